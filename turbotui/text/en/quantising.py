"""Owns the English of the choice between a model and its int8 sibling, and of making one."""

from __future__ import annotations

TEXTS: dict[str, str] = {
    "new.quant": "Quant",
    "new.quant_auto": "auto",
    "new.quant_bf16": "bf16",
    "new.quant_int8": "int8",
    "new.quant_where_needed": "{name} where bf16 does not fit",
    "new.quant_named": "{name}, as it is named",
    "new.quant_runs": "runs {name}",
    "new.runs": "runs {name}: {reason}",
    "job.runs": "runs as",
    "job.runs_text": "{name}: {reason}",
    "job.quant": "quant",
    "models.sibling": "sibling",
    "models.made_of": "of {name}",
}
