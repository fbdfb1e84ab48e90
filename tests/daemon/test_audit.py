"""The audit trail of a running engine, by its route and by the command."""

from __future__ import annotations

import json
import os

import pytest

from engine.errors import InvalidRequest
from tests.daemon.live import LiveEngine
from turbotui.cli import main


def test_what_was_asked_is_read_back_with_who_asked(
    live: LiveEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = live.client.audit(limit=5000).lines
    receipt = live.client.park()
    page = live.client.audit(limit=1)
    (line,) = page.lines
    assert (line.action, line.state, line.pid, line.uid) == ("park", "done", os.getpid(), os.getuid())
    assert line.at not in {one.at for one in before} and line.elapsed_s == receipt.elapsed_s
    assert live.client.audit(limit=5000, before=line.at).lines == before
    with pytest.raises(InvalidRequest):
        live.client.audit(limit=0)
    monkeypatch.setenv("TURBOTUI_HOME", str(live.home))
    assert main(["audit", "--json", "--limit", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["lines"][0]["action"] == "park"
