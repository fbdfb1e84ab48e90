"""Owns the prompts of before: those of this person's console in a small file, and those of the jobs known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from turbotui.draft import Draft, draft_from, draft_of
from turbotui.kept import LIMIT_BYTES, load_table, save_table

if TYPE_CHECKING:
    from engine.wire import Job, ModelStatus

KEPT = 500
MOST_CHARS = LIMIT_BYTES // 6
"""Of all prompts together; a character takes at most four bytes, and there is more than the prompts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """A prompt that was queued, with its settings and when that was, by the wall clock."""

    draft: Draft
    at: float


class PromptHistory:
    """The file of it. Any thread; each call reads or writes the whole small file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def load(self) -> list[Earlier]:
        """Newest first; none where there is no file, or it cannot be understood."""
        entries = load_table(self._path).get("prompts")
        tables = entries if isinstance(entries, list) else ()
        drafts = [draft_from(table) for table in tables if isinstance(table, dict)]
        return [Earlier(draft=draft, at=draft.saved_at) for draft in drafts if draft.prompt.strip()]

    def add(self, draft: Draft, at: float) -> None:
        """Put a queued job in front; an older one with the same prompt gives way to it."""
        if not draft.prompt.strip():
            return
        kept, chars = [], 0
        for earlier in newest([Earlier(draft=draft, at=at), *self.load()])[:KEPT]:
            chars += len(earlier.draft.prompt) + 200
            if chars > MOST_CHARS:
                break
            kept.append(asdict(replace(earlier.draft, saved_at=earlier.at)))
        save_table(self._path, {"prompts": kept})


def of_jobs(jobs: Iterable[Job], models: Iterable[ModelStatus], output_dir: str | None) -> list[Earlier]:
    """The prompts of the jobs that the engine has told of."""
    kinds = {model.name: model.kind for model in models}
    return [
        Earlier(
            draft=replace(
                draft_of(job, kind=kinds.get(job.spec.model, "t2v"), output_dir=output_dir), job_id=0
            ),
            at=job.created_at,
        )
        for job in jobs
        if job.spec.prompt.strip()
    ]


def newest(entries: Iterable[Earlier]) -> list[Earlier]:
    """Newest first, each prompt once: white space at the ends and line breaks make no other prompt."""
    found: dict[str, Earlier] = {}
    for entry in sorted(entries, key=lambda entry: entry.at, reverse=True):
        found.setdefault(" ".join(entry.draft.prompt.split()), entry)
    return list(found.values())
