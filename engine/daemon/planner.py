"""What a job or a switch would do with the weights, and why: the worker's own decisions, told ahead."""

from __future__ import annotations

from engine.config import EngineConfig
from engine.daemon.budget import Budget
from engine.daemon.job_plans import JobPlan, never_fits, waits_for
from engine.daemon.memory import MemoryView
from engine.daemon.prompts import KeptPrompts
from engine.daemon.supervisor import Supervisor
from engine.errors import DoesNotFit, EngineError, ModelUnusable, NotNow
from engine.models.catalog import Catalog
from engine.models.model import Model
from engine.planning.explaining import explain_job, explain_switch
from engine.planning.footprint import Footprint, estimate_footprint
from engine.planning.residency import Needed, Resident, Stage
from engine.planning.stages import JobStage, job_stages, returning
from engine.units import size_text
from engine.wire import Explanation, PlanStep

SWITCH_RESERVE_BYTES = 2**30
"""Kept free beside the work of the largest stage: what no estimate sees."""
KEPT = "this prompt was encoded before and its embedding is kept: no text encoder is needed"
UNKNOWN = (
    "whether this prompt was encoded before cannot be known here: if it was, the text encoder is not "
    "needed and its moves fall away"
)


class Planner:
    """Explains. Event loop's thread only."""

    def __init__(
        self,
        catalog: Catalog,
        supervisor: Supervisor,
        memory: MemoryView,
        prompts: KeptPrompts,
        config: EngineConfig,
    ) -> None:
        self._catalog = catalog
        self._supervisor = supervisor
        self._memory = memory
        self._prompts = prompts
        self._config = config

    def reserve_bytes(self, model: Model) -> int:
        """What a switch leaves free: the largest stage's work at the model's own default size, and 1 GiB.

        Where that is too much beside the largest component, what each stage takes beside its own
        one decides: a DiT leaves for the decoder and comes back.
        """
        spare = SWITCH_RESERVE_BYTES if self._memory.device_kind == "cuda" else 0
        footprint = self._footprint(model)
        work = max(stage.activation_bytes for stage in footprint.stages.values())
        largest = max(component.bytes for component in model.components)
        budget = self._memory.budget()
        if budget is not None and largest + work + spare > budget.now_bytes:
            work = max(0, footprint.peak_bytes - largest)
        return work + spare

    async def explain_job(self, plan: JobPlan) -> Explanation:
        """Every move of weights that the job would make if it ran now.

        Raises:
            NotNow: the device has not been read.
        """
        admitted, footprint = plan.admitted, plan.footprint
        kept = await self._prompts.has(plan.model, admitted.spec.prompt, device_kind=self._memory.device_kind)
        budget = self._budget()
        stages = job_stages(plan.model.kind, admitted.steps, admitted.sigma_max, with_text=not kept)
        reason = waits_for(footprint.peak_bytes, budget)
        if footprint.peak_bytes > budget.empty_bytes:
            reason = never_fits(plan, budget)
        steps: tuple[PlanStep, ...] = ()
        if reason is None:
            try:
                steps = explain_job(
                    self._residents(),
                    [self._stage(plan, stage) for stage in stages],
                    budget_bytes=budget.now_bytes,
                    mode=admitted.spec.residency or self._config.residency,
                    back=[self._stage(plan, stage) for stage in returning(plan.model.kind, stages)],
                )
            except EngineError as error:
                reason = _with_setting(error, budget)
        size = f"{admitted.width}x{admitted.height}, {admitted.frames} frames, {admitted.steps} steps"
        return Explanation(
            target=f"job: {plan.model.name} at {size}",
            fits=reason is None,
            reason=reason,
            budget_bytes=budget.now_bytes,
            tenants=budget.held_by,
            peak_bytes=max([footprint.peak_bytes, *(step.held_bytes for step in steps)]),
            steps=steps,
            note={True: KEPT, False: None, None: UNKNOWN}[kept],
            runs=plan.runs,
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
            reason = _with_setting(error, budget)
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
            model, row.width, row.height, card.default_frames, device_kind=self._memory.device_kind
        )

    def _stage(self, plan: JobPlan, stage: JobStage) -> Stage:
        return Stage(
            name=stage.name,
            needed=(self._needed(plan.model, stage.component),),
            working_bytes=plan.footprint.stages[stage.footprint].activation_bytes,
            ahead=stage.ahead,
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


def _with_setting(error: EngineError, budget: Budget) -> str:
    """Why it does not fit, with the setting that is in the way, if one is."""
    limited = budget.limit_bytes is not None and budget.now_bytes == budget.limit_bytes
    if not limited or not isinstance(error, DoesNotFit):
        return str(error)
    return f"{error}, or raise engine.memory_budget_bytes, which is {size_text(budget.now_bytes)}"
