"""The command that has the driver reset a GPU: tells everything first, and asks for the GPU's index."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from engine.errors import InvalidRequest, Refused
from engine.wire import ResetHelper, ResetPlan, ResetRequest
from turbotui.format import bytes_text
from turbotui.subcommands.output import note, table
from turbotui.subcommands.receipts import show_receipt
from turbotui.subcommands.session import json_option, open_session
from turbotui.subcommands.steps import steps_shown
from turbotui.text.spoken import spoken, tr, word


@click.command()
@click.argument("gpu", metavar="GPU", required=False)
@click.option("--plan", "only_plan", is_flag=True, help="Tell what would be done and what stands against it.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; needs --confirm as well.")
@click.option(
    "--confirm", type=int, metavar="INDEX", help="The index of the GPU, as the person would type it."
)
@click.option(
    "--print-helper", is_flag=True, help="Print the helper that resets GPUs as root, and its place."
)
@json_option
def reset(
    gpu: str | None, only_plan: bool, yes: bool, confirm: int | None, print_helper: bool, json: bool
) -> None:
    """Have the driver reset GPU (an index or UUID), as the last resort; everything on it is lost.

    The engine's own processes end before and come back after, a running job is queued again. Refused
    while anybody else holds the GPU, and wherever the driver would refuse.
    """
    session = open_session(json=json)
    if session.demo:
        raise InvalidRequest("a demonstration resets no GPU; leave --demo out")
    client = session.client()
    if print_helper:
        helper = client.reset_helper()
        if not json:
            for line in _install_lines(helper):
                note(line)
        session.show(helper, lambda: helper.script.splitlines())
        return
    if gpu is None:
        raise InvalidRequest("name the GPU by its index or UUID; `turbotui status` lists them")
    plan = client.reset_plan(gpu)
    if only_plan:
        session.show(plan, lambda: plan_lines(plan))
        return
    if yes and confirm is None:
        raise InvalidRequest(
            f"--yes alone resets nothing; add --confirm {plan.index} if you mean GPU {plan.index}"
        )
    if not yes and not sys.stdin.isatty():
        raise InvalidRequest(
            f"a reset ends everything on GPU {plan.index} and there is no terminal to ask on; "
            f"add --yes --confirm {plan.index}"
        )
    for line in plan_lines(plan):
        note(line)
    if plan.blocked_by:
        names = ", ".join(word(condition.name) for condition in plan.blocked_by)
        raise Refused(f"GPU {plan.index} cannot be reset now, see above: {names}")
    if not yes:
        question = tr(
            "Everything on GPU {index} ({name}) is lost. Type its index to reset it",
            index=plan.index,
            name=plan.name,
        )
        confirm = click.prompt(question, type=int, err=True)
    if confirm != plan.index:
        raise InvalidRequest(f"{confirm} is not the index of GPU {plan.index}; nothing was done")
    request = ResetRequest(device_id=plan.device_id, index=plan.index)
    with steps_shown(client, "reset"):
        receipt = client.reset(request)
    show_receipt(session, receipt)


def plan_lines(plan: ResetPlan) -> Iterable[str]:
    """What would be done, what it rests on, and the commands word by word."""
    bus = tr(" at {bus_id}", bus_id=plan.bus_id) if plan.bus_id else ""
    yield tr(
        "GPU {index} {name}{bus}, {device_id}: {used_bytes} used",
        index=plan.index,
        name=plan.name,
        bus=bus,
        device_id=plan.device_id,
        used_bytes=bytes_text(plan.used_bytes),
    )
    advice = spoken(plan.recovery_action or "") or tr("it does not tell")
    rows = [[tr("driver's advice"), "", advice]]
    rows += [
        [word(condition.name), word(condition.state), spoken(condition.text)] for condition in plan.conditions
    ]
    rows += [[tr("ends before"), "", spoken(text)] for text in plan.ends]
    rows += [[word("runs"), "", " ".join(command)] for command in plan.commands]
    yield from (f"  {line}" for line in table(rows))


def _install_lines(helper: ResetHelper) -> Iterable[str]:
    """What an admin does with the script, which goes to stdout alone and so into a file."""
    yield spoken(helper.problem or "") or (
        tr("the helper is installed") if helper.installed else tr("the helper is not installed")
    )
    yield (
        tr(
            "read it first: whoever may run it can reset GPUs and switch their persistence mode, and nothing "
            "else; then as root:"
        )
    )
    yield f"  turbotui reset --print-helper > FILE && install -o root -g root -m 0755 FILE {helper.path}"
    # A broken file in sudoers.d can lock everybody out of sudo: it is checked before it lies there.
    yield f"  echo '{helper.sudoers}' > LINE && visudo -cf LINE &&"
    yield f"    install -o root -g root -m 0440 LINE {helper.sudoers_path}"
