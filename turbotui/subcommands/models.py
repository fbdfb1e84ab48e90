"""The commands that look at models and move their weights."""

from __future__ import annotations

from collections.abc import Iterable

import click

from engine.errors import WorkFailed
from engine.wire import ComponentStatus, ModelStatus, Receipt, SwitchRequest, UnloadRequest
from turbotui.format import bytes_text, seconds
from turbotui.subcommands.output import note, table
from turbotui.subcommands.session import Session, demo_option, json_option, open_session

PROOFS = {
    "nvml-process": "by NVML",
    "device-delta": "by the device's total",
    "allocator": "by the allocator",
    "process-rss": "by the worker's memory",
}


@click.command("models")
@json_option
@demo_option
def list_models(json: bool, demo: bool) -> None:
    """List the models on this host and what of them is loaded."""
    session = open_session(json=json, demo=demo)
    models = [model for model in session.client().models() if model.demo or not session.demo]
    session.show(models, lambda: _model_lines(models))


@click.command()
@click.argument("model")
@json_option
@demo_option
def switch(model: str, json: bool, demo: bool) -> None:
    """Load a model and give back what it does not need."""
    session = open_session(json=json, demo=demo)
    _show_receipt(session, session.client().switch(SwitchRequest(model=model)))


@click.command()
@click.argument("target", metavar="[MODEL[/COMPONENT]]", default="")
@json_option
@demo_option
def unload(target: str, json: bool, demo: bool) -> None:
    """Give back the memory of a component, a model, or all of them."""
    session = open_session(json=json, demo=demo)
    model, _, component = target.partition("/")
    request = UnloadRequest(model=model or None, component=component or None)
    _show_receipt(session, session.client().unload(request))


@click.command()
@json_option
def free(json: bool) -> None:
    """Give back the allocator's cache and idle components, also while a job runs."""
    session = open_session(json=json)
    _show_receipt(session, session.client().free())


def receipt_line(receipt: Receipt) -> str:
    """What an action promised and what it did, in one line."""
    parts = [f"{receipt.action} {receipt.target}".strip()]
    if receipt.expected_bytes or receipt.returned_bytes:
        parts.append(f"expected {bytes_text(receipt.expected_bytes)}")
        parts.append(f"back {bytes_text(receipt.returned_bytes)} {PROOFS[receipt.proof]}")
    if receipt.residue_bytes:
        names = f" ({', '.join(receipt.residue)})" if receipt.residue else ""
        parts.append(f"residue {bytes_text(receipt.residue_bytes)}{names}")
    if receipt.loaded_bytes:
        parts.append(f"loaded {bytes_text(receipt.loaded_bytes)}")
    parts.append(seconds(receipt.elapsed_s))
    return "  ".join(parts)


def _show_receipt(session: Session, receipt: Receipt) -> None:
    session.show(receipt, lambda: [receipt_line(receipt)])
    if not receipt.ok:
        note(receipt.error or f"{receipt.action} {receipt.target} failed")
        raise click.exceptions.Exit(WorkFailed.exit_code)


def _model_lines(models: list[ModelStatus]) -> Iterable[str]:
    if not models:
        return ["no models; `turbotui models --demo` makes three small ones to try"]
    rows = [["", "MODEL", "KIND", "DTYPE", "SIZE", "ON THE DEVICE"]]
    for model in models:
        where = model.problem or ", ".join(map(_component_text, model.components))
        mark = "!" if model.problem else "*" if model.active else ""
        rows.append([mark, model.name, model.kind, model.dtype, bytes_text(model.bytes), where])
    return table(rows, right=frozenset({4}))


def _component_text(component: ComponentStatus) -> str:
    state = "leased" if component.leased else {"absent": "-"}.get(component.state, component.state)
    return f"{component.name} {state}"
