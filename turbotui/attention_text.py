"""Owns how a job's kind of attention is told: what was asked for, and once it is done what ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.text import t
from turbotui.text.spoken import spoken

if TYPE_CHECKING:
    from engine.wire import Job, Manifest


def attention_text(job: Job, manifest: Manifest | None) -> str:
    """Kind and top-k; of a job that is done also what computed it, and why another than was asked for.

    Empty where nobody knows: in jobs of engines that had one kind.
    """
    ran = manifest.attention if manifest is not None and job.status == "done" else None
    kind, topk = (job.spec.attention, job.spec.sla_topk) if ran is None else (ran.kind, ran.topk)
    if kind == "auto":
        return ""
    text = t(f"new.attention_{kind}")
    if topk is not None:
        text = t("job.attention_topk", kind=text, topk=f"{topk:g}")
    if ran is None:
        return text
    return "  ".join(filter(None, (text, t("job.attention_by", by=ran.by), spoken(ran.note or ""))))
