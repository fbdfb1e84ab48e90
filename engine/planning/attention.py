"""Which kind of self-attention a job runs with: what its model was trained for, or what was asked for.

Source: TurboDiffusion turbodiffusion/inference/modify_model.py (kinds, top-k); it refuses a checkpoint
whose kind is another than the one asked for.
"""

from __future__ import annotations

from typing import Protocol

from engine.errors import InvalidRequest
from engine.wire import ATTENTIONS, AttentionKind, JobSpec

DEFAULT_TOPK = 0.1


class Trained(Protocol):
    """A model, as far as its attention goes."""

    @property
    def name(self) -> str: ...
    @property
    def attention(self) -> AttentionKind: ...


def choose_attention(spec: JobSpec, model: Trained) -> tuple[AttentionKind, float | None]:
    """The kind that `spec` comes to with `model`, and its top-k; None for `dense`.

    A model without the linear part's weights can attend sparsely, but was not made for it: what a
    query's chosen blocks leave out is lost. Whoever names a top-k along with the kind asks for just
    that and is only warned; the kind alone is taken for a mistake and refused, as the reference does.

    Raises:
        InvalidRequest: a kind or top-k that could not work.
    """
    if spec.attention not in ATTENTIONS:
        raise InvalidRequest(f"attention is {spec.attention!r}; choose {', '.join(ATTENTIONS)}")
    topk = spec.sla_topk
    # Written so that a NaN fails it.
    if topk is not None and not 0 < topk <= 1:
        raise InvalidRequest(f"sla_topk is {topk:g}; choose above 0, at most 1")
    kind: AttentionKind = model.attention if spec.attention == "auto" else spec.attention
    if kind == "dense":
        if topk is not None:
            raise InvalidRequest(
                f"sla_topk is {topk:g} and {model.name} would attend densely, over all keys; leave it out, "
                "or choose sla or sagesla"
            )
        return kind, None
    if model.attention == "dense" and topk is None:
        raise InvalidRequest(
            f"attention is {kind} and {model.name} has no proj_l, so only its sparse part could run, which "
            "the model was not trained for; choose dense, or name sla_topk as well to try it all the same"
        )
    return kind, DEFAULT_TOPK if topk is None else topk


def doubt_about(kind: AttentionKind, model: Trained) -> str | None:
    """What is not as `model` was trained, where it will run all the same."""
    if kind == "dense" and model.attention != "dense":
        return (
            f"{model.name} was trained for sparse-linear attention; with dense attention it runs outside "
            "of that, and its video may be worse"
        )
    if kind != "dense" and model.attention == "dense":
        return (
            f"{model.name} has no proj_l: only the sparse part of {kind} runs, which it was not trained "
            "for, and its video may be worse"
        )
    return None
