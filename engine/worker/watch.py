"""What others may see of a running job: its stages as they are measured, and its latents."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from engine.wire import StageRecord
from engine.worker.backend import Backend
from engine.worker.channel import JobPreviewed, JobStaged, RunJob
from engine.worker.denoise import Saw
from engine.worker.latent_rgb import DecodeSums, LatentColours
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
        colours: LatentColours | None = None,
    ) -> None:
        """`preview` asks for pictures of the latents, in `colours`; the stages are told anyway."""
        self._job = job
        self._kind = backend.kind
        self._tell = tell
        self._parts: dict[str, float] = {}
        self._from_last = False
        wanted = preview and job.spec.steps is not None
        self._colours = LatentColours() if colours is None else colours
        self._previewer = Previewer(job.job_id, job.spec.steps or 0, backend, tell=tell) if wanted else None

    def begin(self, shares: Shares | None) -> Shares | None:
        """Note what the last job of this shape took, which is handed on as it is."""
        self._from_last = shares is not None
        parts = parts_of(shares or TYPICAL[self._kind], stages_of(self._job.model.kind))
        self._parts = {str(stage): part for stage, part in parts.items()}
        return shares

    def saw(self, vae: str) -> Saw | None:
        """What the sampler tells its steps to; `vae` is the content of the one that will decode."""
        if self._previewer is None:
            return None
        self._previewer.colours = self._colours.map_of(vae)
        return self._previewer.saw

    @property
    def colours(self) -> Tensor | None:
        """What it keeps on the device until the job's end."""
        return None if self._previewer is None else self._previewer.colours

    def decoding(self, latents_BCTHW: Tensor) -> DecodeSums | None:
        """What is to be told each decoded frame, and handed to `decoded` after the last."""
        return None if self._previewer is None else DecodeSums(latents_BCTHW)

    def decoded(self, vae: str, sums: DecodeSums) -> None:
        """Later jobs show their latents in the colours that came of these."""
        self._colours.learn(vae, sums.sums)

    def line(
        self,
        records: tuple[StageRecord, ...],
        stage: str | None,
        before_bytes: int | None,
        cut_off: StageRecord | None,
    ) -> None:
        """As `StageLedger` tells it."""
        self._tell(
            JobStaged(
                job_id=self._job.job_id,
                ended=records,
                current=stage,
                current_before_bytes=before_bytes,
                shares=self._parts,
                from_last=self._from_last,
                cut_off=cut_off,
            )
        )

    def close(self) -> None:
        """Wait until everything is told: nothing of a job comes after its end."""
        if self._previewer is not None:
            self._previewer.close()
