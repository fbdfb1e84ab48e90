"""What a job or a switch would do with the weights, and why: the worker's own decisions, told ahead."""

from __future__ import annotations

from engine.config import EngineConfig
from engine.daemon.memory import Budget, MemoryView
from engine.daemon.queue import Plan, never_fits, waits_for
from engine.daemon.supervisor import Supervisor
from engine.errors import EngineError, ModelUnusable, NotNow
from engine.models.catalog import Catalog
from engine.models.model import Model
from engine.planning.footprint import DeviceKind, Footprint, estimate_footprint
from engine.planning.residency import Needed, Resident, Stage, explain_job, explain_switch
from engine.planning.shapes import experts_for, rcm_timesteps
from engine.wire import Explanation, PlanStep
from engine.wire import Stage as StageName

SWITCH_RESERVE_BYTES = 2**30
"""Kept free beside the work of the largest stage: what no estimate sees."""


class Planner:
    """Explains. Event loop's thread only."""

    def __init__(
        self, catalog: Catalog, supervisor: Supervisor, memory: MemoryView, config: EngineConfig
    ) -> None:
        self._catalog = catalog
        self._supervisor = supervisor
        self._memory = memory
        self._config = config

    def reserve_bytes(self, model: Model) -> int:
        """What a switch leaves free: the largest stage's work at the model's own default size, and 1 GiB.

        Where that is too much beside the largest component, what each stage takes beside its own
        one decides: a DiT leaves for the decoder and comes back.
        """
        spare = SWITCH_RESERVE_BYTES if self._device_kind == "cuda" else 0
        footprint = self._footprint(model)
        work = max(stage.activation_bytes for stage in footprint.stages.values())
        largest = max(component.bytes for component in model.components)
        budget = self._memory.budget()
        if budget is not None and largest + work + spare > budget.now_bytes:
            work = max(0, footprint.peak_bytes - largest)
        return work + spare

    def explain_job(self, plan: Plan) -> Explanation:
        """Every move of weights that the job would make if it ran now."""
        budget = self._budget()
        admitted, footprint = plan.admitted, plan.footprint
        stages = [
            Stage(
                name=name,
                needed=(self._needed(plan.model, component),),
                working_bytes=footprint.stages[stage].activation_bytes,
            )
            for name, stage, component in _stages(plan)
        ]
        reason = waits_for(footprint.peak_bytes, budget)
        if footprint.peak_bytes > budget.empty_bytes:
            reason = never_fits(plan, budget)
        steps: tuple[PlanStep, ...] = ()
        if reason is None:
            try:
                steps = explain_job(
                    self._residents(),
                    stages,
                    budget_bytes=budget.now_bytes,
                    mode=admitted.spec.residency or self._config.residency,
                )
            except EngineError as error:
                reason = str(error)
        size = f"{admitted.width}x{admitted.height}, {admitted.frames} frames, {admitted.steps} steps"
        return Explanation(
            target=f"job: {plan.model.name} at {size}",
            fits=reason is None,
            reason=reason,
            budget_bytes=budget.now_bytes,
            tenants=budget.held_by,
            peak_bytes=max([footprint.peak_bytes, *(step.held_bytes for step in steps)]),
            steps=steps,
        )

    def explain_switch(self, model: Model) -> Explanation:
        """Every move of weights that a switch to `model` would make now.

        Raises:
            ModelUnusable: it has a problem.
        """
        if model.problem is not None:
            raise ModelUnusable(f"{model.name} cannot be loaded: {model.problem}")
        budget = self._budget()
        reserve = self.reserve_bytes(model)
        steps: tuple[PlanStep, ...] = ()
        reason = None
        try:
            steps = explain_switch(
                self._residents(),
                [self._needed(model, component.name) for component in model.components],
                budget_bytes=budget.now_bytes,
                reserve_bytes=reserve,
            )
        except EngineError as error:
            reason = str(error)
        held = steps[-1].held_bytes if steps else sum(item.bytes for item in self._residents())
        return Explanation(
            target=f"switch: {model.name}",
            fits=reason is None,
            reason=reason,
            budget_bytes=budget.now_bytes,
            tenants=budget.held_by,
            peak_bytes=max([held + reserve, *(step.held_bytes for step in steps)]),
            steps=steps,
        )

    def _footprint(self, model: Model) -> Footprint:
        card = model.card
        row = next(
            row
            for row in card.table
            if (row.name, row.aspect_ratio) == (card.default_resolution, card.default_aspect_ratio)
        )
        return estimate_footprint(
            model, row.width, row.height, card.default_frames, device_kind=self._device_kind
        )

    def _needed(self, model: Model, component: str) -> Needed:
        found = model.component(component)
        return Needed(model=model.name, component=component, bytes=found.bytes, content=found.content)

    def _residents(self) -> list[Resident]:
        found = []
        for number, (name, component) in enumerate(self._supervisor.residents.present()):
            state = self._supervisor.residents.of_model(name)[component]
            try:
                content = self._catalog.get(name).component(component).content
            except EngineError:  # it went from the disk since it was loaded
                content = ""
            found.append(
                Resident(
                    model=name,
                    component=component,
                    bytes=state.bytes,
                    leased=False,  # by the time of a job or a switch nothing else runs
                    last_used=float(number),
                    content=content,
                )
            )
        return found

    def _budget(self) -> Budget:
        budget = self._memory.budget()
        if budget is None:
            raise NotNow("the device has not been read yet; try again in a second")
        return budget

    @property
    def _device_kind(self) -> DeviceKind:
        return "cpu" if self._memory.device_id == "cpu" else "cuda"


def _stages(plan: Plan) -> list[tuple[str, StageName, str]]:
    """A job's stages in order: what they are called, whose footprint they have, what they use."""
    admitted = plan.admitted
    stages: list[tuple[str, StageName, str]] = [("text", "text", "text")]
    if admitted.kind == "t2v":
        stages.append(("denoise", "denoise", "dit"))
    else:
        stages.append(("image", "image", "vae"))
        experts = dict.fromkeys(experts_for(rcm_timesteps(admitted.steps, admitted.sigma_max)))
        stages += [(f"denoise {expert}", "denoise", f"dit.{expert}") for expert in experts]
    return [*stages, ("decode", "decode", "vae")]
