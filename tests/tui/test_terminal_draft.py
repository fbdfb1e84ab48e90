"""An unsent job in a real terminal: it outlives the console, and an editor gets the terminal."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from turbotui.draft import load_draft

from .test_terminal import RESTORED, Terminal, terminal

PROGRAM = """
import sys, time
from pathlib import Path
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.client.scripted import ScriptedClient
TurboApp(lambda: ScriptedClient(scenes.script("idle", time.time())), draft_path=Path(sys.argv[1])).run()
"""
ENTERED = b"\x1b[?1049h"
"""Enters the alternate screen."""


def program(path: Path) -> tuple[str, ...]:
    return ("-c", PROGRAM, str(path))


def write_prompt(console: Terminal, text: str) -> None:
    console.read_until(b"History")
    console.read_until(b"wan2.1-14b")
    os.write(console.fd, b"a")
    console.read_until(b"What should be seen?")
    os.write(console.fd, text.encode())


def wait_for_draft(console: Terminal, path: Path, prompt: str, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while load_draft(path).prompt != prompt:
        assert time.monotonic() < deadline, f"the disk has {load_draft(path).prompt!r}"
        console.pump(0.05)


def test_a_draft_outlives_a_kill_and_a_hangup(tmp_path: Path) -> None:
    path = tmp_path / "draft.json"
    with terminal(program=program(path)) as console:
        write_prompt(console, "一只猫")
        wait_for_draft(console, path, "一只猫")
        os.kill(console.pid, signal.SIGKILL)
        assert console.ended_within(3.0)
    with terminal(program=program(path)) as console:
        console.read_until(b"wan2.1-14b")
        os.write(console.fd, b"a")
        console.read_until("一只猫".encode())
        os.write(console.fd, b"\x1b[200~ runs\nfast\x1b[201~")
        os.kill(console.pid, signal.SIGHUP)
        assert console.ended_within(4.0)
    assert load_draft(path).prompt in ("一只猫", "一只猫 runs\nfast"), "what was typed is never half of it"


def test_the_editor_has_the_terminal_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = tmp_path / "editor.sh"
    # It reads a key itself: were the console still to read, the key would be the prompt's.
    editor.write_text('#!/bin/sh\necho EDITOR-IS-OPEN\nread answer\nprintf "%s" "$answer" > "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    path = tmp_path / "draft.json"
    with terminal(program=program(path)) as console:
        write_prompt(console, "old")
        wait_for_draft(console, path, "old")
        os.write(console.fd, b"\x07")
        console.read_until(b"EDITOR-IS-OPEN")
        assert RESTORED in console.output.partition(b"EDITOR-IS-OPEN")[0]
        drawn = len(console.output)
        console.pump(0.5)
        console.pump(0.2)
        assert len(console.output) - drawn < 20, "the console drew over the editor"
        os.write(console.fd, "从编辑器来\n".encode())
        wait_for_draft(console, path, "从编辑器来")
        assert ENTERED in console.output[drawn:]
        os.write(console.fd, b"!")
        wait_for_draft(console, path, "从编辑器来!")


def test_the_scripted_program_tells_what_a_job_would_cost() -> None:
    with terminal() as console:
        write_prompt(console, "a fox")
        console.read_until(b"19.0 GiB")
