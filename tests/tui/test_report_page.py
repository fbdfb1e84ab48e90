"""The report's page: names of sections stand whole in both languages, whatever cells they take."""

from __future__ import annotations

import pytest

from turbotui.format import cell_width, pad
from turbotui.screens.report import HEAD_CELLS, _divided
from turbotui.text import use_language
from turbotui.text.spoken import word


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_a_line_is_divided_by_cells(language: str) -> None:
    use_language(language)
    try:
        for title in ("engine", "jobs", "memory out", "findings", ""):
            name, text = _divided(f"{pad(word(title) if title else '', HEAD_CELLS - 1)} 31 done, 1 failed")
            assert name.strip() == (word(title) if title else "") and cell_width(name) == HEAD_CELLS
            assert text == "31 done, 1 failed"
    finally:
        use_language("en")
