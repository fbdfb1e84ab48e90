"""Measured rates are kept by device, since hosts may share a home."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from engine.daemon.rates import Rates


def test_each_device_has_a_rate_of_its_own_also_for_the_engine_after(tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    rates = Rates(file)
    rates.measured("GPU-1", 5e10)
    rates.measured("GPU-2", None)
    assert (rates.ring("GPU-1"), rates.ring("GPU-2")) == (5e10, None)
    again = Rates(file)
    again.measured("GPU-1", 1.0)
    again.measured("GPU-2", 2e10)
    assert (again.ring("GPU-1"), Rates(file).ring("GPU-1"), Rates(file).ring("GPU-2")) == (5e10, 5e10, 2e10)


def test_another_host_with_the_same_home_takes_no_rate_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rates.json"
    monkeypatch.setattr(socket, "gethostname", lambda: "one")
    Rates(file).measured("cpu", 3e9)
    monkeypatch.setattr(socket, "gethostname", lambda: "two")
    other = Rates(file)
    assert other.ring("cpu") is None
    other.measured("cpu", 4e9)
    monkeypatch.setattr(socket, "gethostname", lambda: "one")
    assert Rates(file).ring("cpu") == 3e9


@pytest.mark.parametrize("content", ['{"ring_rate": 123.0}', "[", '{"GPU-1": {"ring_rate": "fast"}}'])
def test_a_file_of_another_form_is_ignored_and_replaced(tmp_path: Path, content: str) -> None:
    file = tmp_path / "rates.json"
    file.write_text(content)
    rates = Rates(file)
    assert rates.ring("GPU-1") is None
    rates.measured("GPU-1", 7.0)
    assert json.loads(file.read_text()) == {"GPU-1": {"ring_rate": 7}}


def test_a_rate_that_cannot_be_written_holds_for_this_engine(tmp_path: Path) -> None:
    rates = Rates(tmp_path / "gone" / "rates.json")
    rates.measured("GPU-1", 7.0)
    assert rates.ring("GPU-1") == 7.0
