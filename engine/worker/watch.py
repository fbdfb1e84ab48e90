"""What others may see of a running job: its stages as they are measured, and its latents."""

from __future__ import annotations

from collections.abc import Callable

from engine.wire import StageRecord
from engine.worker.backend import Backend
from engine.worker.channel import JobPreviewed, JobStaged, RunJob
from engine.worker.denoise import Saw
from engine.worker.preview import Previewer
from engine.worker.progress import TYPICAL, Shares, parts_of, stages_of


class JobWatch:
    """One job's. Nothing that it is told of is changed by it."""

    def __init__(
        self,
        job: RunJob,
        backend: Backend,
        *,
        tell: Callable[[JobPreviewed | JobStaged], None],
        preview: bool,
    ) -> None:
        """`preview` asks for pictures of the latents; the stages are told anyway."""
        self._job = job
        self._kind = backend.kind
        self._tell = tell
        self._parts: dict[str, float] = {}
        self._from_last = False
        wanted = preview and job.spec.steps is not None
        self._previewer = Previewer(job.job_id, job.spec.steps or 0, backend, tell=tell) if wanted else None

    def begin(self, shares: Shares | None) -> Shares | None:
        """Note what the last job of this shape took, which is handed on as it is."""
        self._from_last = shares is not None
        parts = parts_of(shares or TYPICAL[self._kind], stages_of(self._job.model.kind))
        self._parts = {str(stage): part for stage, part in parts.items()}
        return shares

    @property
    def saw(self) -> Saw | None:
        """What the sampler tells its steps to."""
        return None if self._previewer is None else self._previewer.saw

    def line(self, records: tuple[StageRecord, ...], stage: str | None, before_bytes: int | None) -> None:
        """As `StageLedger` tells it."""
        self._tell(
            JobStaged(
                job_id=self._job.job_id,
                ended=records,
                current=stage,
                current_before_bytes=before_bytes,
                shares=self._parts,
                from_last=self._from_last,
            )
        )

    def close(self) -> None:
        """Wait until everything is told: nothing of a job comes after its end."""
        if self._previewer is not None:
            self._previewer.close()
