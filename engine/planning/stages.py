"""The stages of a job as the worker runs them: what each uses, and what is loaded under it for later ones."""

from __future__ import annotations

from dataclasses import dataclass

from engine.planning.shapes import experts_for, rcm_timesteps
from engine.wire import ModelKind
from engine.wire import Stage as StageName


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStage:
    """One stage that uses weights."""

    name: str
    """As a person reads it: `denoise high` is a stage of its own."""
    footprint: StageName
    """Whose working memory it has."""
    component: str
    ahead: frozenset[str] = frozenset()
    """Components that travel under it where they fit."""


def job_stages(kind: ModelKind, steps: int, sigma_max: float, *, with_text: bool) -> tuple[JobStage, ...]:
    """The stages in order; without a text stage where the prompt's embedding is kept from before.

    The first net travels under the encoding of what it is given, the other one under the first step,
    and the decoder under the last.
    """
    nets: tuple[str, ...] = ("dit",)
    if kind == "i2v":
        nets = tuple(
            dict.fromkeys(f"dit.{expert}" for expert in experts_for(rcm_timesteps(steps, sigma_max)))
        )
    stages = []
    if with_text:
        ahead = frozenset({nets[0], "vae"} if kind == "i2v" else {nets[0]})
        stages.append(JobStage(name="text", footprint="text", component="text", ahead=ahead))
    if kind == "i2v":
        stages.append(JobStage(name="image", footprint="image", component="vae", ahead=frozenset(nets)))
    for net in nets:
        under = set(nets) if net == nets[0] else set()
        if net == nets[-1]:
            under.add("vae")
        _, _, expert = net.partition(".")
        name = f"denoise {expert}" if expert else "denoise"
        stages.append(JobStage(name=name, footprint="denoise", component=net, ahead=frozenset(under)))
    return (*stages, JobStage(name="decode", footprint="decode", component="vae"))


def returning(kind: ModelKind, stages: tuple[JobStage, ...]) -> tuple[JobStage, ...]:
    """The stages whose weights come back after the last one: the only DiT, which left for the decoder."""
    return tuple(stage for stage in stages if stage.footprint == "denoise") if kind == "t2v" else ()
