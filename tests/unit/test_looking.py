"""A console that only looks: its options, and that nothing but looks gets through to an engine."""

from __future__ import annotations

import inspect

import pytest

from engine.errors import NotNow
from turbotui import console
from turbotui.app import TurboApp
from turbotui.cli import main
from turbotui.client.base import Client
from turbotui.client.looking import LOOKS, LookingClient

ACTS = {
    "submit", "submit_many", "cancel", "retry", "duplicate", "hold", "move", "resume_queue", "switch",
    "cancel_switch", "unload", "free", "park", "cleanup", "kill", "spare", "full_cleanup", "prune_outputs",
    "reset", "warm", "drop_warm", "clear_cache", "make_demo_models", "stop", "sample",
    "get_model", "import_model", "cancel_errand", "quantise", "stop_quantising",
    "export_snapshot", "mark", "trace", "remedy",
}  # fmt: skip


def test_every_call_of_a_client_is_a_look_or_is_refused() -> None:
    calls = {name for name, _call in inspect.getmembers(Client, inspect.isfunction) if name[0] != "_"}
    assert calls <= LOOKS | ACTS and not LOOKS & ACTS
    looking = LookingClient(object())  # type: ignore[arg-type]  # nothing of it is reached
    for name in ACTS:
        with pytest.raises(NotNow, match="only looks"):
            getattr(looking, name)


@pytest.mark.parametrize("words", [["--read-only"], ["view", "--read-only"], ["--read-only", "view"]])
@pytest.mark.parametrize("by_setting", [False, True])
def test_it_reaches_the_console(
    words: list[str], by_setting: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apps: list[TurboApp] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(TurboApp, "run", lambda self, **_settings: apps.append(self))
    if by_setting:
        monkeypatch.setenv("TURBOTUI_CONSOLE_READ_ONLY", "true")
        words = [word for word in words if word != "--read-only"]
    assert main(words) == 0
    assert apps[0].read_only and apps[0].link._start_engine is None
    assert main([*words, "--demo"]) == 2
    assert "makes no demo models" in capsys.readouterr().err


def test_it_is_refused_where_no_console_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--read-only", "status"]) == 2
    assert "the console's" in capsys.readouterr().err
    assert console.open_console(demo=False, read_only=True) == 2
