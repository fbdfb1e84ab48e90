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
from engine.planning.admission import Admitted, check_request
from engine.planning.footprint import Footprint, estimate_footprint
from engine.planning.image_file import check_image
from engine.units import size_text
from engine.wire import JobForecast, JobSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPlan:
    """A request that was found good: the model, the request with nothing left open, and what it takes."""

    model: Model
    admitted: Admitted
    footprint: Footprint

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
        model = self._catalog.get(spec.model)
        admitted = check_request(spec, model, self._config, self._output_dir, look=look)
        footprint = estimate_footprint(
            model,
            admitted.width,
            admitted.height,
            admitted.frames,
            device_kind=self._memory.device_kind,
            samples=admitted.spec.samples,
        )
        return JobPlan(model=model, admitted=admitted, footprint=footprint)

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
        )


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
    if budget.limit_bytes is not None:
        limit = size_text(budget.limit_bytes)
        return f"{what}engine.memory_budget_bytes allows {limit}; raise that, or {smaller}"
    return f"{what}the empty device has {size_text(budget.empty_bytes)}; {smaller}"
