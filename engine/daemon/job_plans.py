"""What a request would take, and whether there is room for it: told before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.config import EngineConfig
from engine.daemon.budget import Budget
from engine.daemon.job_times import JobTimes
from engine.daemon.memory import MemoryView
from engine.errors import DoesNotFit
from engine.models.catalog import Catalog
from engine.models.model import Model
from engine.models.siblings import is_int8
from engine.planning.admission import Admitted, check_request
from engine.planning.attention import doubt_about
from engine.planning.footprint import Footprint, estimate_footprint
from engine.planning.image_file import check_image
from engine.planning.quant import choose, find_family, way_out
from engine.units import size_text
from engine.wire import JobForecast, JobRuns, JobSpec, Quant


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPlan:
    """A request that was found good: the model, the request with nothing left open, and what it takes."""

    model: Model
    """Whose weights are used."""
    admitted: Admitted
    footprint: Footprint
    runs: JobRuns | None = None
    """Why that is another than the one that was asked for."""
    way_out: str | None = None
    """How int8 weights would make fit what does not."""

    def refuse_if_too_large(self, budget: Budget) -> None:
        """Refuse what the empty device has no room for.

        Raises:
            DoesNotFit: with the way out.
        """
        if self.footprint.peak_bytes > budget.empty_bytes:
            raise DoesNotFit(never_fits(self, budget))


class JobPlans:
    """Makes them. Event loop's thread only."""

    def __init__(
        self,
        catalog: Catalog,
        memory: MemoryView,
        config: EngineConfig,
        *,
        output_dir: Path,
        times: JobTimes | None = None,
    ) -> None:
        """`output_dir` is where videos go whose requests name no folder; `times` tells how long jobs take."""
        self._catalog = catalog
        self._memory = memory
        self._config = config
        self._output_dir = output_dir
        self._times = times or JobTimes()

    def admit(self, spec: JobSpec, *, look: Callable[[Path], tuple[int, int]] = check_image) -> JobPlan:
        """Check a request whole, and say what it takes; `look` is asked about its image.

        Raises:
            Refused: one of its subclasses, naming the value and the way out.
        """
        asked = self._catalog.get(spec.model)
        family = find_family(asked, spec.quant, self._catalog.models())
        admitted = check_request(spec, family.first, self._config, self._output_dir, look=look)

        def footprint(model: Model) -> Footprint:
            return estimate_footprint(
                model,
                admitted.width,
                admitted.height,
                admitted.frames,
                device_kind=self._memory.device_kind,
                attention=admitted.attention,
                topk=admitted.sla_topk,
                samples=admitted.spec.samples,
            )

        def peak(model: Model) -> int:
            return footprint(model).peak_bytes

        budget = self._memory.budget()
        room = None if budget is None else budget.empty_bytes
        chosen = choose(family, peak, room)
        needs = footprint(chosen.model)
        runs = None
        if chosen.model.name != asked.name:
            quant: Quant = "int8" if is_int8(chosen.model) else "bf16"
            runs = JobRuns(model=chosen.model.name, quant=quant, reason=chosen.reason)
        too_large = room is not None and needs.peak_bytes > room
        return JobPlan(
            model=chosen.model,
            admitted=admitted,
            footprint=needs,
            runs=runs,
            way_out=way_out(family, peak, room) if too_large and room is not None else None,
        )

    def forecast(self, spec: JobSpec) -> JobForecast:
        """What a request would take, for a person who thinks about it; as `admit`."""
        return self.tell(self.admit(spec))

    def tell(self, plan: JobPlan) -> JobForecast:
        """What a plan comes to."""
        admitted, footprint = plan.admitted, plan.footprint
        budget = self._memory.budget()
        expected = self._times.expect(plan.model, admitted)
        fits_now = budget is None or footprint.peak_bytes <= budget.now_bytes
        return JobForecast(
            width=admitted.width,
            height=admitted.height,
            frames=admitted.frames,
            steps=admitted.steps,
            weights_bytes=footprint.weights_bytes,
            peak_bytes=footprint.peak_bytes,
            fits_now=fits_now,
            fits_empty=budget is None or footprint.peak_bytes <= budget.empty_bytes,
            reason=None if fits_now or budget is None else waits_for(footprint.peak_bytes, budget),
            expected_s=None if expected is None else expected.seconds,
            expected_exact=expected is not None and expected.exact,
            attention=admitted.attention,
            doubt=doubt_about(admitted.attention, plan.model),
            runs=plan.runs,
        )

    def doubt(self, spec: JobSpec) -> str | None:
        """What is not as its model was trained, of a request that was admitted; looks at no disk."""
        if spec.attention == "auto" or not self._catalog.scanned:
            return None
        model = next((model for model in self._catalog.models() if model.name == spec.model), None)
        return None if model is None or model.problem else doubt_about(spec.attention, model)


def waits_for(peak_bytes: int, budget: Budget) -> str | None:
    """For whom a job of this peak would wait, or None when it fits now."""
    if peak_bytes <= budget.now_bytes:
        return None
    return f"needs {size_text(peak_bytes)}, can have {size_text(budget.now_bytes)}; {budget.held_by}"


def never_fits(plan: JobPlan, budget: Budget) -> str:
    """Why a request is refused for good, and the way out."""
    admitted = plan.admitted
    what = (
        f"{plan.model.name} at {admitted.width}x{admitted.height} with {admitted.frames} frames needs "
        f"{size_text(plan.footprint.peak_bytes)}, and "
    )
    smaller = "choose a smaller resolution, fewer frames or a smaller model"
    if plan.way_out is not None:
        smaller += f", or {plan.way_out}"
    if budget.limit_bytes is not None:
        limit = size_text(budget.limit_bytes)
        return f"{what}engine.memory_budget_bytes allows {limit}; raise that, or {smaller}"
    return f"{what}the empty device has {size_text(budget.empty_bytes)}; {smaller}"
