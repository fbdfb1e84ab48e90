"""Memory of nobody is a ghost's only where nobody can hide from us."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from engine.telemetry.view import HOST_PID_NAMESPACE, CardView, HostView, read_host_view, view_gap

OPEN = HostView(host_namespace=True, proc_is_ours=True, init_shown=True, hidden=False, wsl=False)
CARD = CardView(mig_mode=False, coherent_memory=False, virtual=False)


def test_on_the_host_itself_nobody_can_hide() -> None:
    assert view_gap(OPEN, CARD) is None


def test_what_an_older_driver_does_not_tell_of_a_card_hides_nobody() -> None:
    assert view_gap(OPEN, CardView(mig_mode=None, coherent_memory=None, virtual=None)) is None


@pytest.mark.parametrize(
    ("host", "card", "said"),
    [
        (replace(OPEN, host_namespace=False), CARD, "container"),
        (replace(OPEN, host_namespace=None), CARD, "namespace is not told"),
        (replace(OPEN, proc_is_ours=False), CARD, "/proc does not show"),
        (replace(OPEN, init_shown=False), CARD, "/proc does not show"),
        (replace(OPEN, hidden=True), CARD, "hidepid"),
        (replace(OPEN, wsl=True), CARD, "WSL"),
        (OPEN, replace(CARD, mig_mode=True), "MIG"),
        (OPEN, replace(CARD, coherent_memory=True), "kernel"),
        (OPEN, replace(CARD, virtual=True), "vGPU"),
        (OPEN, replace(CARD, refused_lists=("graphics",)), "graphics"),
        (OPEN, replace(CARD, unreadable="Insufficient Permissions"), "Insufficient Permissions"),
    ],
)
def test_each_way_to_hide_is_named(host: HostView, card: CardView, said: str) -> None:
    gap = view_gap(host, card)
    assert gap is not None and said in gap


def proc(root: Path, *, namespace: str = HOST_PID_NAMESPACE, options: str = "rw") -> Path:
    made = root / "proc"
    mine = made / str(os.getpid())
    (mine / "ns").mkdir(parents=True)
    (mine / "ns/pid").symlink_to(namespace)
    (mine / "mountinfo").write_text(f"22 1 0:21 / /proc rw,nosuid - proc proc {options}\n")
    (made / "1").mkdir()
    (made / "self").symlink_to(str(os.getpid()))
    return made


def test_a_proc_of_the_host_is_read_as_such(tmp_path: Path) -> None:
    assert read_host_view(proc(tmp_path), tmp_path / "dxg") == OPEN


def test_a_container_is_known_by_its_namespace(tmp_path: Path) -> None:
    assert read_host_view(proc(tmp_path, namespace="pid:[4026532281]")).host_namespace is False


@pytest.mark.parametrize(("options", "hides"), [("rw,hidepid=2", True), ("rw,hidepid=invisible", True)])
def test_a_hiding_proc_hides_from_everybody_but_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, hides: bool
) -> None:
    made = proc(tmp_path, options=options)
    for uid, hidden in ((1000, hides), (0, False)):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert read_host_view(made).hidden is hidden


def test_hidepid_0_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not read_host_view(proc(tmp_path, options="rw,hidepid=0")).hidden


def test_a_proc_of_another_namespace_is_not_ours(tmp_path: Path) -> None:
    made = proc(tmp_path)
    (made / "self").unlink()
    (made / "self").symlink_to("1")
    assert not read_host_view(made).proc_is_ours


def test_a_host_without_proc_or_with_wsl_is_not_seen_whole(tmp_path: Path) -> None:
    (tmp_path / "dxg").touch()
    found = read_host_view(tmp_path / "none", tmp_path / "dxg")
    assert (found.host_namespace, found.proc_is_ours, found.init_shown, found.wsl) == (
        None,
        False,
        False,
        True,
    )
    assert view_gap(found, CARD) is not None
