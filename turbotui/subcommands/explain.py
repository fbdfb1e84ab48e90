"""The command that tells ahead what a switch or a job would do with the weights, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable

import click

from engine.errors import InvalidRequest
from engine.wire import (
    ATTENTIONS,
    RESIDENCIES,
    Attention,
    Explanation,
    JobSpec,
    Quant,
    Residency,
    SwitchRequest,
)
from turbotui.draft import whole_path
from turbotui.format import bytes_text
from turbotui.subcommands.output import table, titles
from turbotui.subcommands.quant import quant_option, runs_line
from turbotui.subcommands.session import demo_option, json_option, open_session
from turbotui.text.spoken import spoken, tr, word

residency_option = click.option(
    "--residency",
    type=click.Choice(RESIDENCIES),
    help="What stays on the device beside what a stage uses; by default the engine's setting.",
)

attention_option = click.option(
    "--attention",
    type=click.Choice(ATTENTIONS),
    default="auto",
    show_default=True,
    help="How self-attention is computed; auto is what the model was trained for.",
)
topk_option = click.option(
    "--sla-topk",
    type=float,
    help="With sla and sagesla: the share of the keys, above 0, at most 1; by default 0.1, 0.15 is finer.",
)


@click.command()
@click.argument("model")
@click.option("--prompt", "-p", help="Explain a job with this prompt; without it, a switch.")
@click.option("--image", metavar="FILE", help="The job's first frame, for image-to-video models.")
@click.option("--resolution", help="A name in the model's table, such as 480p.")
@click.option("--aspect-ratio", help="Such as 16:9.")
@click.option("--frames", type=int, help="4n + 1.")
@click.option("--steps", type=int, help="Denoising steps, 1 to 4.")
@click.option("--samples", type=int, help="So many side by side in one video.")
@click.option("--adaptive", is_flag=True, help="The image's own shape, at about as many pixels.")
@residency_option
@attention_option
@topk_option
@quant_option
@json_option
@demo_option
def explain(
    model: str,
    prompt: str | None,
    image: str | None,
    resolution: str | None,
    aspect_ratio: str | None,
    frames: int | None,
    steps: int | None,
    samples: int | None,
    adaptive: bool,
    residency: Residency | None,
    attention: Attention,
    sla_topk: float | None,
    quant: Quant,
    json: bool,
    demo: bool,
) -> None:
    """Tell which weights would go, stay and come, and why. Nothing is moved.

    A prompt that was encoded before needs no text encoder, so a job's plan is that of its very prompt.
    """
    session = open_session(json=json, demo=demo)
    if prompt is None:
        given = (image, resolution, aspect_ratio, frames, steps, samples, residency, sla_topk)
        if adaptive or attention != "auto" or quant != "auto" or any(value is not None for value in given):
            raise InvalidRequest("these options are a job's; give its --prompt too, or none of them")
        told = session.client().explain_switch(SwitchRequest(model=model))
    else:
        spec = JobSpec(
            model=model,
            prompt=prompt,
            image=image if image is None or session.target is not None else whole_path(image),
            resolution=resolution,
            aspect_ratio=aspect_ratio,
            frames=frames,
            steps=steps,
            samples=1 if samples is None else samples,
            adaptive=adaptive,
            residency=residency,
            attention=attention,
            sla_topk=finite("--sla-topk", sla_topk),
            quant=quant,
        )
        told = session.client().explain(spec)
    session.show(told, lambda: _lines(told))


def finite(option: str, number: float | None) -> float | None:
    """`number` as it is.

    Raises:
        InvalidRequest: JSON has no such number: it would say none.
    """
    if number is not None and not math.isfinite(number):
        raise InvalidRequest(f"{option} is {number}; it must be a number")
    return number


def _lines(told: Explanation) -> Iterable[str]:
    yield told.target
    yield from runs_line(told.runs)
    verdict = word("fits") if told.fits else tr("does not fit")
    yield tr(
        "{verdict}: peak {peak_bytes} of {budget_bytes}",
        verdict=verdict,
        peak_bytes=bytes_text(told.peak_bytes),
        budget_bytes=bytes_text(told.budget_bytes),
    )
    if told.reason:
        yield spoken(told.reason)
    if told.tenants:
        yield tr("the rest of the device: {tenants}", tenants=spoken(told.tenants))
    if told.note:
        yield spoken(told.note)
    if not told.steps:
        if told.fits:
            yield tr("no weights move")
        return
    rows = [titles("STAGE", "ACTION", "COMPONENT", "SIZE", "HELD AFTER", "REASON")]
    rows += [
        [
            word(step.stage),
            word(step.action),
            f"{step.model}/{step.component}",
            bytes_text(step.bytes),
            bytes_text(step.held_bytes),
            spoken(step.reason),
        ]
        for step in told.steps
    ]
    yield from table(rows, right=frozenset({3, 4}))
