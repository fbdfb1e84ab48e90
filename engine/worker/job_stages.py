"""What the stages of a job are, and which component each of them uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.models.folders import DIT, TEXT, VAE
from engine.planning.residency import Needed
from engine.planning.residency import Stage as PlannedStage
from engine.planning.shapes import experts_for
from engine.wire import ModelKind, Stage
from engine.worker.components import Model, component_named


def nets_of(kind: ModelKind, timesteps: tuple[float, ...]) -> tuple[str, ...]:
    """The component that makes each step; `timesteps` end with 0, which is none."""
    if kind == "t2v":
        return (DIT,) * (len(timesteps) - 1)
    return tuple(f"{DIT}.{expert}" for expert in experts_for(timesteps))


def planned_stages(
    model: Model, kind: ModelKind, nets: Sequence[str], stage_bytes: Mapping[Stage, int], *, with_text: bool
) -> tuple[PlannedStage, ...]:
    """The stages of a job in order, as the planner wants them."""
    stages: list[tuple[Stage, str]] = [("text", TEXT)] if with_text else []
    if kind == "i2v":
        stages.append(("image", VAE))
    stages += [("denoise", name) for name in dict.fromkeys(nets)]
    stages.append(("decode", VAE))
    return tuple(
        PlannedStage(
            name=stage,
            needed=(Needed(model=model.name, component=name, bytes=component_named(model, name).bytes),),
            working_bytes=stage_bytes.get(stage, 0),
        )
        for stage, name in stages
    )
