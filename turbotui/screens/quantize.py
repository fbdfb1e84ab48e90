"""Owns quantising from the console: what it would write is shown before it begins, and it can be stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.wire import QuantisePlan, QuantiseRequest
from turbotui.format import bytes_text
from turbotui.screens.confirm import ConfirmPanel, ConfirmScreen
from turbotui.text import t

if TYPE_CHECKING:
    from turbotui.app import TurboApp


def start_quantizing(app: TurboApp, name: str | None) -> None:
    """Ask what quantising the model called `name` would take, then whether to; or whether to stop it."""
    model = next((model for model in app.link.state.models if model.name == name), None)
    if model is None:
        app.say(t("quantize.choose"), "wait")
        return
    if model.quantising is not None:
        app.push_screen(_stop_dialog(model.name), lambda agreed: _stop(app) if agreed else None)
        return
    request = QuantiseRequest(model=model.name)

    def planned(plan: QuantisePlan) -> None:
        if app.screen is not app.dashboard:
            return  # the person has gone on to something else, whose keys these are
        app.push_screen(_dialog(plan), lambda agreed: _start(app, request) if agreed else None)

    app.ask(
        t("doing.quantize_plan", name=model.name),
        lambda client: client.plan_quantising(request),
        then=planned,
    )


def _start(app: TurboApp, request: QuantiseRequest) -> None:
    app.ask(
        t("doing.quantize", name=request.model),
        lambda client: client.quantise(request),
        then=lambda plan: app.say(t("did.quantize", name=plan.name)),
    )


def _stop(app: TurboApp) -> None:
    app.ask(
        t("doing.quantize_stop"),
        lambda client: client.stop_quantising(),
        then=lambda stopped: app.say(t("did.quantize_stop", name=stopped.model)),
    )


def _dialog(plan: QuantisePlan) -> ConfirmScreen:
    facts = [
        (t("quantize.makes"), plan.name),
        (t("quantize.layers"), str(plan.layers)),
        (
            t("quantize.weights"),
            t(
                "quantize.shrinks",
                source_bytes=bytes_text(plan.source_bytes),
                bytes=bytes_text(plan.bytes),
            ),
        ),
        (t("quantize.writes"), bytes_text(plan.bytes - plan.kept_bytes)),
        (t("quantize.free"), bytes_text(plan.free_bytes)),
        (t("quantize.path"), plan.path),
    ]
    if plan.kept_bytes:
        facts.insert(4, (t("quantize.kept"), bytes_text(plan.kept_bytes)))
    panel = ConfirmPanel(
        title=t("quantize.title", name=plan.model),
        facts=tuple(facts),
        loss=t("quantize.costs"),
        answers=((t("quantize.yes"), True),),
    )
    return ConfirmScreen(panel)


def _stop_dialog(name: str) -> ConfirmScreen:
    panel = ConfirmPanel(
        title=t("quantize.title", name=name),
        facts=(),
        loss=t("quantize.stop_costs"),
        answers=((t("quantize.stop"), True),),
    )
    return ConfirmScreen(panel)
