"""Memory of nobody is told everywhere, whether it may be somebody's (unseen) or cannot be (a ghost's)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.checks.unseen import unseen_bytes
from engine.daemon.full_cleanup import _held_on
from engine.daemon.growth import holders_of
from engine.recording.rows import Row, row_of
from engine.wire import Balance, DeviceStatus, PartKind, nobodys_bytes
from tests.unit.test_notify import Told, telling
from turbotui.client import scenes
from turbotui.report.facts import find_facts
from turbotui.subcommands.oneline import one_line

NOW = 1_790_000_000.0
KINDS: tuple[PartKind, ...] = ("unseen", "ghost")


def renamed(balance: Balance, kind: PartKind) -> Balance:
    parts = (replace(part, kind=kind) if part.kind == "unseen" else part for part in balance.parts)
    return replace(balance, parts=tuple(parts))


def gpu(kind: PartKind, *, at: float = NOW, unseen: float = 14.0) -> DeviceStatus:
    return scenes.gpu(at, renamed(scenes.gpu_balance(at, unseen=unseen), kind))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_counted_once_for_all(kind: PartKind) -> None:
    device = gpu(kind)
    assert nobodys_bytes(device.balance) == unseen_bytes(device) == scenes.gib(14.0)
    unknown = replace(scenes.gpu_balance(NOW).parts[-2], bytes=None, reason="NVML does not tell")
    assert nobodys_bytes(replace(scenes.gpu_balance(NOW), parts=(unknown,))) is None
    assert nobodys_bytes(None) is None


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_in_the_one_line_and_among_those_who_grew(kind: PartKind) -> None:
    status = scenes.busy(NOW).status
    line = one_line(replace(status, devices=(gpu(kind),)), None)
    assert "?14.0" in line
    assert {holder.who: size for holder, size in holders_of(gpu(kind)).items()}["unseen"] == scenes.gib(14.0)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_notified_once_it_has_stayed(kind: PartKind) -> None:
    told = Told("unseen")
    devices: list[DeviceStatus] = []
    heard = telling(told, devices=devices)
    for unseen in (0, 14, 14, 14):
        devices[:] = [gpu(kind, unseen=unseen)]
        heard.look()
    assert [one.bytes for one in told.told] == [scenes.gib(14.0)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_cleanup_says_that_it_is_still_there(kind: PartKind) -> None:
    assert any("belong to nobody" in line for line in _held_on(gpu(kind)))


def row(kind: PartKind, at: float, unseen: float) -> Row:
    found = row_of(gpu(kind, at=at, unseen=unseen))
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_tells_since_when(kind: PartKind) -> None:
    rows = [row("unseen", NOW, 0.01), row(kind, NOW + 10, 14.0), row(kind, NOW + 20, 14.0)]
    (unseen,) = find_facts([], rows, since=NOW - 5, until=NOW + 21).unseen
    assert unseen.still and unseen.since == NOW + 10 and unseen.bytes == scenes.gib(14.0)
