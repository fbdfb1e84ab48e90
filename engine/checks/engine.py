"""What is wrong with the engine's own helpers and the driver, where they tell."""

from __future__ import annotations

from collections.abc import Iterator

from engine.checks.facts import Facts, gpu_name
from engine.wire import Finding

PROBE_SILENT_S = 5.0
"""It speaks ten times a second."""
XID_KEPT_S = 24 * 3600.0
_APPLICATION_XIDS = frozenset({13, 31, 43, 45})
"""Those that a program causes; the GPU itself is well. Source: NVIDIA's catalogue of Xids."""


def nursery(facts: Facts) -> Iterator[Finding]:
    if facts.nursery_state == "failed":
        yield Finding(
            kind="nursery",
            severity="notice",
            title="No nursery runs, so every worker imports torch anew, which takes 12 to 20 s.",
            evidence=(facts.nursery_detail or "It gave no reason.",),
            remedy="Mend what it says; `turbotui doctor` looks at the installation.",
            remedy_command="turbotui doctor",
            component="nursery",
        )
    if facts.nursery_device_files:
        yield Finding(
            kind="nursery_driver",
            severity="warning",
            title="The nursery has the driver open, which stops a GPU reset and spoils its forks.",
            evidence=(f"Open: {', '.join(facts.nursery_device_files)}.",),
            remedy="Restart the engine when the running job has ended.",
            remedy_command="turbotui engine restart --after-job",
            component="nursery",
        )


def probe(facts: Facts) -> Iterator[Finding]:
    if facts.probe_age_s is not None and facts.probe_age_s > PROBE_SILENT_S:
        yield Finding(
            kind="probe",
            severity="warning",
            title="The probe does not answer, so memory and processes are as they were.",
            evidence=(f"Its last word is {facts.probe_age_s:.0f} s old.",),
            remedy="It is replaced by itself; where that goes on, see the kernel's log.",
            remedy_command="dmesg --level=err,warn --since -10min",
            component="probe",
        )


def driver(facts: Facts) -> Iterator[Finding]:
    """What the driver itself asks for, and its error events."""
    for device in facts.gpus:
        action = device.card.recovery_action if device.card is not None else None
        if action and action.lower() != "none":
            yield Finding(
                kind="recovery_action",
                severity="critical",
                title=f"The driver asks for an action on {gpu_name(device)}: {action}.",
                evidence=("This is NVML's recovery action, the driver's own word.",),
                remedy="Let jobs end, and do what it asks for; a reboot is the administrator's.",
                admin_line=f"{facts.host}, {gpu_name(device)} ({device.id}): "
                f"NVML's recovery action is {action}",
                device_id=device.id,
            )
    for device in facts.gpus:
        card = device.card
        if card is None or card.xid is None or card.xid_age_s is None or card.xid_age_s > XID_KEPT_S:
            continue
        xid = card.xid
        by_program = xid in _APPLICATION_XIDS
        yield Finding(
            kind="xid",
            severity="notice" if by_program else "warning",
            title=f"The driver reported Xid {xid} on {gpu_name(device)}.",
            evidence=(
                "Of this number a program is the usual cause; its process has to be replaced."
                if by_program
                else "Of this number the GPU or its driver is the usual cause.",
            ),
            since=facts.at - card.xid_age_s,
            remedy="The kernel's log says which process met it.",
            remedy_command="dmesg --level=err,warn | grep Xid",
            device_id=device.id,
            component=str(xid),
        )
