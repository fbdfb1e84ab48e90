"""The README in both languages: the same commands, the same tables, the same figures."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGLISH = (ROOT / "README.md").read_text("utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text("utf-8")


def sections(text: str) -> list[list[str]]:
    """The text cut at its headings, in lines."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if re.match(r"#+ ", line):
            found.append([])
        found[-1].append(line)
    return found


def code(text: str) -> Counter[str]:
    """What stands in backticks, fenced blocks aside."""
    bare = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return Counter(re.sub(r"\s+", " ", piece) for piece in re.findall(r"`([^`]+)`", bare))


def commands(text: str) -> list[str]:
    """The first cells of the table of commands."""
    return [line.split("` |")[0] for line in text.splitlines() if re.match(r"\| `turbotui[ `]", line)]


def figures(text: str) -> Counter[str]:
    """Numbers with a unit, or in a table's cell."""
    units = r"(?:ms|s|GB/s|GB|MB|GiB|MiB|KiB|KB/s|B|%|Hz)"
    return Counter(re.findall(rf"\d[\d.,]*(?=\s?{units}(?![A-Za-z0-9]))", text))


def settings(text: str) -> list[str]:
    """The example of settings without its remarks."""
    block = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [line.split("#")[0].rstrip() for line in block[1].splitlines()]


def test_each_names_the_other() -> None:
    assert "(README.zh-CN.md)" in ENGLISH.splitlines()[2] and "(README.md)" in CHINESE.splitlines()[2]


def test_both_have_the_same_sections_and_tables() -> None:
    english, chinese = sections(ENGLISH), sections(CHINESE)
    assert len(english) == len(chinese)
    for one, other in zip(english, chinese, strict=True):
        rows = [sum(line.startswith("|") for line in part) for part in (one, other)]
        points = [sum(line.startswith("- **") for line in part) for part in (one, other)]
        blocks = [sum(line.startswith("```") for line in part) for part in (one, other)]
        assert (rows[0], points[0], blocks[0]) == (rows[1], points[1], blocks[1]), one[:1]


def test_both_have_the_same_commands() -> None:
    assert len(commands(ENGLISH)) > 35
    assert commands(ENGLISH) == commands(CHINESE)
    assert code(ENGLISH) == code(CHINESE)


def test_both_have_the_same_settings() -> None:
    assert settings(ENGLISH) == settings(CHINESE)


@pytest.mark.parametrize("place", range(2, len(sections(ENGLISH))))
def test_both_have_the_same_figures(place: int) -> None:
    english, chinese = ("\n".join(sections(text)[place]) for text in (ENGLISH, CHINESE))
    assert figures(english) == figures(chinese)


def test_the_chinese_one_is_chinese() -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", CHINESE, flags=re.DOTALL)
    for line in prose.splitlines():
        assert not re.search(r"[a-z]{3,} [a-z]{3,} [a-z]{3,}", line), line
