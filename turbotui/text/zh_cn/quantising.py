"""Owns the Chinese of the choice between a model and its int8 sibling, and of making one."""

from __future__ import annotations

TEXTS: dict[str, str] = {
    "new.quant": "量化",
    "new.quant_auto": "自动",
    "new.quant_bf16": "bf16",
    "new.quant_int8": "int8",
    "new.quant_where_needed": "bf16 放不下时用 {name}",
    "new.quant_named": "用所选的 {name}",
    "new.quant_runs": "运行 {name}",
    "new.runs": "运行 {name}：{reason}",
    "job.runs": "实际运行",
    "job.runs_text": "{name}：{reason}",
    "job.quant": "量化",
    "models.sibling": "同源",
    "models.made_of": "源自 {name}",
}
