"""Owns which picture of a job is to be seen: its latents while it denoises, its frames once it is done.

Nothing is asked or read before a page is open, and what was read goes with it.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from turbotui.picture.raster import Picture
from turbotui.text import t

if TYPE_CHECKING:
    from engine.wire import Job, JobPreview
    from turbotui.app import TurboApp
    from turbotui.widgets.lines import View

FRAME_PIXELS = (168, 168)
"""More than the widest page shows; 161 frames of it are 8 MiB."""
FPS = 16
MOST_FPS = 6.0
BYTES_PER_S = 10_000
"""Of the 16 kB a second that a console may send, so much is a clip's; the rest is the dashboard's."""


class JobPictures:
    """One page's. Event loop's thread only; reading and asking is done in threads of the app's."""

    def __init__(self, turbo: TurboApp, job_id: int) -> None:
        self._turbo = turbo
        self._job_id = job_id
        self.frames: tuple[Picture, ...] = ()
        self._steps: dict[int, Picture] = {}
        self._of_steps = 0
        self._asked: set[int | None] = set()
        self._attempt: int | None = None
        """Whose pictures these are; None before it begins."""
        self._video: str | None = None
        """Whose frames were asked for."""
        self._at: int | None = None
        """Frame or step that the person chose; None follows."""
        self.playing = False
        self.words = ""
        """What is said in the place of a picture."""

    # ------------------------------------------------------------------ what there is

    def follow(self, view: View) -> None:
        """Ask for what `view` says can be seen now."""
        job = view.state.job(self._job_id)
        if job is None:
            return
        attempt = None if job.status in ("queued", "waiting_memory") else job.attempt
        if attempt != self._attempt:
            # Nothing of an earlier attempt is this one's.
            self._attempt, self._video, self._at = attempt, None, None
            self.frames, self.playing, self.words = (), False, ""
            self._steps, self._asked = {}, set()
        if job.status == "done" and job.output:
            self._read(job.output)
        elif job.status == "running":
            told = view.state.preview
            newest = told.step if told is not None and told.job_id == job.id else None
            if newest not in self._asked:
                self._asked.add(newest)
                self._ask(newest)
            if not self._steps:
                self.words = self._why_not_yet(job)
        elif job.status in ("failed", "cancelled", "interrupted"):
            if None not in self._asked:
                self._asked.add(None)
                self._ask(None)
            if not self._steps:
                self.words = t("preview.none")
        else:
            self.words = t("preview.waiting")

    def _why_not_yet(self, job: Job) -> str:
        denoised = job.progress is not None and job.progress.stage in ("decode", "write")
        return t("preview.off") if denoised else t("preview.soon")

    def _ask(self, step: int | None) -> None:
        attempt = self._attempt

        def got(preview: JobPreview) -> None:
            if attempt != self._attempt:
                return
            rgb = base64.b64decode(preview.rgb)
            self._steps[preview.step] = Picture(width=preview.width, height=preview.height, rgb=rgb)
            self._of_steps = preview.steps

        self._turbo.ask(
            "preview",
            lambda client: client.preview(self._job_id, step),
            then=got,
            failed=lambda error: None,  # none was made yet, or none is made at all
            quiet=True,
        )

    def _read(self, output: str) -> None:
        if (box := self._turbo.box) is not None:
            # A file of the same path on this machine is another one.
            self.words = t("picture.there", machine=box.name, fetch=self._turbo.key_of("fetch"))
            return
        if self._video == output:
            return
        self._video, self._at, self.words = output, None, t("picture.reading")

        def read() -> tuple[Picture, ...]:
            from turbotui.picture.files import read_frames

            return read_frames(Path(output), FRAME_PIXELS)

        attempt = self._attempt

        def got(frames: tuple[Picture, ...]) -> None:
            if attempt == self._attempt:
                self.frames = frames

        def failed(error: str) -> None:
            if attempt == self._attempt:
                self.words = error

        self._turbo.run_apart("frames", read, then=got, failed=failed, quiet=True)

    # ------------------------------------------------------------------ what is seen

    @property
    def shape(self) -> tuple[int, int] | None:
        """Width and height of what there is, in pixels."""
        picture = self.picture
        return None if picture is None else (picture.width, picture.height)

    @property
    def place(self) -> int:
        """Index of the frame, or number of the step, that is shown."""
        if self.frames:
            return len(self.frames) // 2 if self._at is None else self._at
        newest = max(self._steps, default=0)
        return self._at if self._at in self._steps else newest

    @property
    def picture(self) -> Picture | None:
        return self.frames[self.place] if self.frames else self._steps.get(self.place)

    def caption(self) -> str:
        """What the picture is."""
        if self.frames:
            at = self.place
            moves = "▶" if self.playing else "‖"
            return t("preview.frame", at=at + 1, count=len(self.frames), time=f"{at / FPS:.1f}", moves=moves)
        return t("preview.step", step=self.place, steps=self._of_steps) if self._steps else ""

    def keys(self, *, large: bool = False) -> tuple[str, ...]:
        """What can be done with it, the longest words first."""
        size = "" if large else t("preview.key_large")  # the large page's frame says how it ends
        arrows = " ".join(map(self._turbo.symbols.key, "←→"))
        if self.frames:
            long = t("preview.frame_keys", size=size, arrows=arrows).rstrip()
            return long, f"{arrows} {t('preview.space')} z"
        return (t("preview.step_keys", size=size, arrows=arrows).rstrip(),) if len(self._steps) > 1 else ()

    # ------------------------------------------------------------------ what is done with it

    def move(self, by: int) -> None:
        """Show another frame, round and round, or another step."""
        if self.frames:
            self._at = (self.place + by) % len(self.frames)
        elif self._steps:
            known = sorted(self._steps)
            place = known.index(self.place) + by
            # The newest again follows.
            self._at = None if place >= len(known) - 1 else known[max(0, place)]

    def toggle(self) -> bool:
        """Play or stop; whether there is anything to play."""
        self.playing = bool(self.frames) and not self.playing
        if self.playing and self._at is None:
            self._at = 0
        return bool(self.frames)

    def advance(self, waited_s: float) -> None:
        """The frame that is due after so long: a clip keeps its own time, whatever the terminal takes."""
        self.move(max(1, round(waited_s * FPS)))


def wait_s(spent_bytes: int) -> float:
    """Seconds until the next frame may be sent after one that cost `spent_bytes`."""
    return max(1 / MOST_FPS, spent_bytes / BYTES_PER_S)
