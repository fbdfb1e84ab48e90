"""The person's own editor: whatever becomes of it, the prompt is not lost."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from engine.errors import InvalidRequest
from turbotui.editor import edit, find_editor
from turbotui.text import t


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def script(tmp_path: Path, body: str) -> list[str]:
    path = tmp_path / "ed it"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return [str(path)]


def left(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("turbotui-*/*"))


def test_what_was_written_comes_back_without_the_editors_last_newline(tmp_path: Path) -> None:
    edited = edit("old 猫", script(tmp_path, 'grep -q 猫 "$1" && printf "new\\nline\\n" > "$1"'))
    assert (edited.text, edited.word) == ("new\nline", "") and left(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "word", "stays"),
    [
        ("exit 1", "ended with 1: the prompt is as it was", False),
        ('printf new > "$1"; exit 3', "what it wrote is in", True),
        ('kill -9 $$', "ended with -9", False),
        (': > "$1"', "came back empty", False),
        ('rm "$1"', "is gone", False),
        ('head -c 1000001 /dev/zero > "$1"', "too long", True),
        ('printf "\\377\\377" > "$1"', "no UTF-8 text", True),
    ],
)  # fmt: skip
def test_an_editor_that_fails_costs_nothing(tmp_path: Path, body: str, word: str, stays: bool) -> None:
    edited = edit("old", script(tmp_path, body))
    assert edited.text is None and word in edited.word
    assert bool(left(tmp_path)) == stays
    assert all(str(path) in edited.word for path in left(tmp_path))


def test_an_editor_that_cannot_be_started_and_a_disk_that_takes_nothing_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "did not start" in edit("old", [str(tmp_path / "none")]).word
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert "no file for the editor" in edit("old", ["true"]).word


def test_an_interrupt_in_the_editors_terminal_does_not_end_the_console(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    edited = edit(
        "old", script(tmp_path, f'trap "" INT; kill -INT {os.getpid()}; sleep 0.1; printf new > "$1"')
    )
    assert edited.text == "new" and signal.getsignal(signal.SIGINT) is before


def test_the_editor_is_the_persons_own_with_its_options(tmp_path: Path) -> None:
    (command,) = script(tmp_path, "true")
    env = {"PATH": f"{tmp_path}:/bin", "VISUAL": "'ed it' --wait", "EDITOR": "other"}
    assert find_editor(env) == ["ed it", "--wait"]
    assert subprocess.run(["test", "-x", command]).returncode == 0
    assert find_editor({"PATH": str(tmp_path), "EDITOR": "'ed it'"}) == ["ed it"]


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"VISUAL": "hx -x"}, "VISUAL=hx -x names a program that is not on the PATH"),
        ({"EDITOR": "'vi"}, "EDITOR='vi is no command line"),
        ({}, t("editor.none")),
    ],
)
def test_where_there_is_no_editor_it_is_said_what_to_do(
    tmp_path: Path, env: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        find_editor({"PATH": str(tmp_path), **env})
    assert said in str(refusal.value)


def test_nobody_is_asked_which_editor_it_shall_be(tmp_path: Path) -> None:
    programs, home = tmp_path / "programs", tmp_path / "home"
    programs.mkdir()
    home.mkdir()
    for name in ("sensible-editor", "editor", "vi", "emacs"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    env = {"PATH": str(programs), "HOME": str(home)}
    assert find_editor(env) == ["vi"]
    assert find_editor({**env, "SELECTED_EDITOR": "/bin/ed"}) == ["sensible-editor"]
    (home / ".selected_editor").write_text('SELECTED_EDITOR="/bin/ed"\n')
    assert find_editor(env) == ["sensible-editor"]
