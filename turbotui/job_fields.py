"""Owns what a job's fields may hold: which value of them is wrong, and what would be right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from turbotui.draft import DECIMAL, MAX_SAMPLES, MAX_TOGETHER, SHARE, Draft
from turbotui.text import t

if TYPE_CHECKING:
    from engine.wire import ModelStatus

FPS = 16
FRAMES_STEP = 4
"""The VAE folds frames by four, but for the first, which stands alone: 4n + 1."""
MAX_SEED = 2**63 - 1
SEED_DIGITS = len(str(MAX_SEED))
ENGINE_WORDS = (
    ("frames", re.compile(r"\bframes (is\b|must\b|是|须)")),
    ("seed", re.compile(r"\bseed (is\b|must\b|是|须)")),
    ("steps", re.compile(r"\bsteps (is\b|must\b|是|须)")),
    ("resolution", re.compile(r"\b(resolution|aspect_ratio) (is\b|是)")),
    ("sla_topk", re.compile(r"\bsla_topk (is\b|是)|\bname sla_topk\b|指定 sla_topk")),
    ("attention", re.compile(r"\battention (is\b|是)")),
    ("samples", re.compile(r"\bsamples is\b|样本数是")),
    ("image", re.compile(r"\bimage\b(?!-to)|\bthe path\b|图像|路径")),
    ("prompt", re.compile(r"\bthe prompt\b|提示词")),
)
"""By which words of a refusal a field is known, in either language."""


def faults(draft: Draft, model: ModelStatus | None) -> dict[str, str]:
    """Field to what is wrong with it and what would be right, of what can be known without the engine."""
    found: dict[str, str] = {}
    for name in ("frames", "seed", "samples"):
        text = getattr(draft, name)
        if text and not DECIMAL.fullmatch(text):
            found[name] = t(f"new.no_number_{name}", text=text)
    if draft.frames and "frames" not in found and model is not None:
        frames = int(draft.frames)
        if frames > model.max_frames:
            found["frames"] = t("new.frames_most", most=model.max_frames)
        elif nearest := near_frames(frames, model.max_frames):
            found["frames"] = t("new.frames_near", near=t("new.or").join(map(str, nearest)))
    jobs = 1 if draft.together else samples(draft)
    if draft.seed and "seed" not in found and int(draft.seed) + jobs - 1 > MAX_SEED:
        found["seed"] = t("new.seed_most", most=MAX_SEED)
    most = MAX_TOGETHER if draft.together else MAX_SAMPLES
    if draft.samples and "samples" not in found and not 1 <= int(draft.samples) <= most:
        found["samples"] = t("new.samples_most", most=most)
    if draft.sla_topk and not (SHARE.fullmatch(draft.sla_topk) and 0 < float(draft.sla_topk) <= 1):
        found["sla_topk"] = t("new.sla_topk_range")
    return found


def near_frames(frames: int, most: int) -> tuple[int, ...]:
    """The counts of the form 4n + 1 on either side of `frames`, at most `most`; none when it is one."""
    if frames < 1:
        return (1,)
    over = (frames - 1) % FRAMES_STEP
    if not over:
        return ()
    return tuple(count for count in (frames - over, frames - over + FRAMES_STEP) if count <= most)


def stepped_frames(frames: int, by: int, most: int) -> int:
    """The next count of the form 4n + 1 upwards or, with a negative `by`, downwards."""
    steps = (frames - 1) // FRAMES_STEP if by > 0 else -((1 - frames) // FRAMES_STEP)
    largest = (most - 1) // FRAMES_STEP
    return 1 + FRAMES_STEP * max(0, min(largest, steps + by))


def samples(draft: Draft) -> int:
    """How many jobs are meant; 1 while the field is empty or wrong."""
    return max(1, int(draft.samples)) if DECIMAL.fullmatch(draft.samples) and draft.samples else 1


def field_of(error: str) -> str | None:
    """Which field a refusal of the engine speaks of, or None."""
    return next((name for name, words in ENGINE_WORDS if words.search(error)), None)
