"""What stands for and against a reset of one GPU, as sentences. Pure: `Facts` in, conditions out."""

from __future__ import annotations

from dataclasses import dataclass

from engine.daemon.host_kind import HostKind
from engine.daemon.reset_holders import Holders
from engine.wire import ResetCondition, ResetHolder, ResetState

AMPERE = 8.0
"""Compute capability from which a GPU with NVLink can be reset alone."""
NAMED = 5
"""Holders that one sentence names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """One GPU as the reset program tells of it; None for what is not told."""

    uuid: str
    index: int
    name: str
    bus_id: str | None = None
    persistence: bool | None = None
    display: bool | None = None
    mig: bool | None = None
    """None also where the GPU has no such mode, with `mig_told`."""
    mig_told: bool = False
    compute_cap: float | None = None
    used_bytes: int | None = None
    recovery_action: str | None = None
    links: int | None = None
    """Active NVLinks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What decides beside the GPU itself."""

    rights: ResetCondition
    platform: HostKind


def facts_from(row: dict[str, str | None]) -> Facts | None:
    """Facts of one line of the program's answer; None where it names no GPU by UUID and index."""
    uuid, index = row.get("uuid"), row.get("index")
    if not uuid or index is None or not index.isdecimal():
        return None
    used, cap = row.get("memory.used"), row.get("compute_cap")
    mig = row.get("mig.mode.current")
    return Facts(
        uuid=uuid,
        index=int(index),
        name=row.get("name") or "GPU",
        bus_id=row.get("pci.bus_id"),
        persistence=_switch(row.get("persistence_mode")),
        display=_switch(row.get("display_active")),
        mig=_switch(mig),
        mig_told="mig.mode.current" in row,
        compute_cap=_number(cap),
        used_bytes=None if _number(used) is None else round((_number(used) or 0) * 2**20),
    )


def count_links(text: str) -> int:
    """Active links in what `nvlink --status` prints: a rate each, or `<inactive>`."""
    return sum("GB/s" in line for line in text.splitlines() if line.strip().startswith("Link"))


def conditions(facts: Facts, holders: Holders, around: Surroundings) -> tuple[ResetCondition, ...]:
    """Everything that is looked at before anybody is asked, in the order of telling."""
    return (
        around.rights,
        _platform(around.platform),
        *_held(holders),
        _display(facts),
        _mig(facts),
        _links(facts),
        _persistence(facts),
    )


def rights_condition(
    *, is_set: bool, is_root: bool, helper_problem: str | None, sudo_problem: str | None
) -> ResetCondition:
    """Whether we may; `is_set` where a person has chosen the program."""
    if is_set:
        return _condition(
            "rights", "unknown", "engine.reset_program is run as this user and sees to its rights itself"
        )
    if is_root:
        return _condition("rights", "ok", "the engine runs as root")
    if (problem := helper_problem or sudo_problem) is not None:
        return _condition("rights", "blocks", f"a reset needs root, and {problem}")
    return _condition("rights", "ok", "sudo runs the helper as root, without a password")


def _platform(platform: HostKind) -> ResetCondition:
    if platform == "wsl":
        text = "in WSL the GPU belongs to Windows; restart its driver or the machine there"
        return _condition("platform", "blocks", text)
    if platform == "container":
        text = (
            "in a container a reset is mostly not allowed, and processes outside of it are seen only where "
            "it shares the host's pid namespace"
        )
        return _condition("platform", "unknown", text)
    return _condition("platform", "ok", "neither a container nor WSL")


def _held(holders: Holders) -> list[ResetCondition]:
    foreign = holders.foreign
    if foreign:
        names = ", ".join(map(holder_text, foreign[:NAMED]))
        more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
        text = (
            f"{names}{more} {'hold' if len(foreign) > 1 else 'holds'} the GPU; `turbotui kill PID` ends one, "
            "with its proof"
        )
        found = _condition("holders", "blocks", text)
    else:
        ours = sum(holder.ours is not None for holder in holders.known)
        text = f"nobody but {ours} of our own, which are ended first" if ours else "nobody that can be seen"
        found = _condition("holders", "ok", text)
    told = [found]
    if holders.hidden:
        text = (
            f"the open files of {holders.hidden} processes of others cannot be seen; only root could say "
            "whether one holds the GPU, and the driver refuses where one does"
        )
        told.append(_condition("hidden holders", "unknown", text))
    return told


def holder_text(holder: ResetHolder) -> str:
    """A holder in a few words."""
    return f"process {holder.pid} of {holder.user or 'an unknown user'} ({holder.command or '?'})"


def _display(facts: Facts) -> ResetCondition:
    if facts.display is None:
        return _condition("display", "unknown", "the driver does not tell whether a display is on it")
    if facts.display:
        text = "a display is active on it, and the driver resets no such GPU; stop the display manager first"
        return _condition("display", "blocks", text)
    return _condition("display", "ok", "no display is active on it")


def _mig(facts: Facts) -> ResetCondition:
    if facts.mig:
        text = (
            "MIG is on: a reset takes the instances of everybody on it; delete them and switch MIG off "
            "first (`nvidia-smi -mig 0`)"
        )
        return _condition("MIG", "blocks", text)
    if facts.mig is None and not facts.mig_told:
        return _condition("MIG", "unknown", "the driver does not tell whether MIG is on")
    return _condition("MIG", "ok", "MIG is off" if facts.mig is False else "the GPU has no MIG")


def _links(facts: Facts) -> ResetCondition:
    if facts.links is None:
        return _condition("NVLink", "unknown", "the driver does not tell whether it is linked with others")
    if facts.links == 0:
        return _condition("NVLink", "ok", "no active link to another GPU")
    if facts.compute_cap is None:
        text = f"{facts.links} active links, and the driver does not tell the generation that decides"
        return _condition("NVLink", "unknown", text)
    if facts.compute_cap < AMPERE:
        text = (
            f"{facts.links} active links, and a GPU before Ampere is reset only together with all its peers "
            "in one command; that has to be done by hand"
        )
        return _condition("NVLink", "blocks", text)
    text = f"{facts.links} active links; from Ampere on it is reset alone"
    if facts.compute_cap < 9.0:
        text += " (with NVSwitch, Fabric Manager must run)"
    return _condition("NVLink", "ok", text)


def _persistence(facts: Facts) -> ResetCondition:
    if facts.persistence is None:
        return _condition(
            "persistence", "unknown", "the driver does not tell the persistence mode, which is left as it is"
        )
    if facts.persistence:
        text = "persistence mode is on, which alone blocks a reset: it is switched off and restored after"
        return _condition("persistence", "ok", text)
    return _condition("persistence", "ok", "persistence mode is off")


def _condition(name: str, state: ResetState, text: str) -> ResetCondition:
    return ResetCondition(name=name, state=state, text=text)


def _switch(cell: str | None) -> bool | None:
    return {"enabled": True, "disabled": False}.get((cell or "").lower())


def _number(cell: str | None) -> float | None:
    try:
        return None if cell is None else float(cell)
    except ValueError:
        return None
