"""The console's settings and clipboard: a mistake costs only itself."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from engine.config import ConsoleConfig
from turbotui.clipboard import MOST_BYTES, SCREEN_BYTES, clipboard_sequence, fitting
from turbotui.settings import load_console
from turbotui.subcommands.doctor import settings_lines


def load(tmp_path: Path, text: str, **env: str) -> tuple[ConsoleConfig, tuple[str, ...]]:
    path = tmp_path / "config.toml"
    path.write_text(text, "utf-8")
    settings = load_console(path, env)
    return settings.config, settings.problems


def test_what_is_right_holds_without_a_word(tmp_path: Path) -> None:
    text = '[engine]\nmax_queue = 9\n[console]\nmouse = false\nlog = "~/w.log"\n[console.keys]\nfree = "F5"\n'
    config, problems = load(tmp_path, text, TURBOTUI_CONSOLE_THEME="light", TURBOTUI_ENGINE_DEVICE="cpu")
    assert (config.mouse, config.log, config.keys, config.theme) == (
        False,
        "~/w.log",
        {"free": "F5"},
        "light",
    )
    assert problems == ()
    assert load_console(tmp_path / "none.toml", {}).problems == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[console]\nmouse = false\nhologram = "on"\n', ["console.hologram"]),
        ("[console]\nmouse = false\n[hologram]\ndepth = 3\n", ["[hologram]"]),
        ('[console]\nmouse = false\nnotify = "smoke"\ntheme = 5\n', ["console.notify", "console.theme"]),
        ('[console]\nmouse = false\nkeys = "x"\n', ["console.keys"]),
        ('[console]\nmouse = false\nlanguage = "klingon"\n', ["klingon"]),
        ("[engine]\nshine = 1\n[console]\nmouse = false\n", ["engine.shine"]),
        ('[notify]\non = ["never"]\n[console]\nmouse = false\n', ["notify"]),
    ],
)
def test_each_mistake_is_named_and_the_rest_holds(tmp_path: Path, text: str, named: list[str]) -> None:
    config, problems = load(tmp_path, text)
    assert not config.mouse and config.theme == "dark"
    assert all(name in problem for name, problem in zip(named, problems, strict=True))


def test_keys_that_are_no_text_cost_only_themselves(tmp_path: Path) -> None:
    config, problems = load(tmp_path, '[console.keys]\nfree = 5\npark = "F6"\n')
    assert config.keys == {"park": "F6"} and "free" in problems[0] and len(problems) == 1


@pytest.mark.parametrize("text", ["[console", "console = 3\n", "\x00"])
def test_a_file_that_says_nothing_leaves_the_defaults(tmp_path: Path, text: str) -> None:
    config, problems = load(tmp_path, text)
    assert config == ConsoleConfig() and len(problems) == 1


def test_a_variable_that_is_wrong_is_named_by_its_own_name(tmp_path: Path) -> None:
    _config, problems = load(tmp_path, "", TURBOTUI_CONSOLE_NOTIFY="smoke")
    assert "TURBOTUI_CONSOLE_NOTIFY" in problems[0]


def test_the_clipboard_is_reached_through_tmux_and_screen() -> None:
    plain = clipboard_sequence("一", {})
    assert plain == f"\x1b]52;c;{base64.b64encode('一'.encode()).decode()}\a"
    inside = clipboard_sequence("一", {"TMUX": "/tmp/x,1,0"})
    assert inside == plain + "\x1bPtmux;\x1b" + plain + "\x1b\\"
    long = clipboard_sequence("x" * 3000, {"STY": "1.x"})
    pieces = long.removesuffix("\x1b\\").removeprefix("\x1bP").split("\x1b\\\x1bP")
    assert all(len(piece) <= SCREEN_BYTES for piece in pieces)
    assert "".join(pieces) == clipboard_sequence("x" * 3000, {})


def test_what_a_terminal_would_refuse_is_cut_at_a_character_and_said() -> None:
    assert fitting("x" * MOST_BYTES) == ("x" * MOST_BYTES, True)
    text, whole = fitting("一" * 40_000)
    assert not whole and set(text) == {"一"} and MOST_BYTES - 3 < len(text.encode()) <= MOST_BYTES
    assert len(clipboard_sequence(text, {})) <= 100_000


def test_doctor_names_what_a_console_would_leave_out(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[console]\nhologram = 1\n[console.keys]\nfree = "x"\n')
    lines = settings_lines(path)
    assert [line.state for line in lines] == ["note", "note"]
    assert (
        "console.hologram" in lines[0].text
        and "x to free" in lines[1].text
        and str(path) in (lines[0].fix or "")
    )
    path.write_text("[console]\nmouse = false\n")
    assert settings_lines(path) == []
