"""Owns the Chinese of how the floors of the memory ledger move."""

# ruff: noqa: E501  (a sentence and its translation stand in one line)
from __future__ import annotations

FORMS: dict[str, str] = {
    "job {job_id}": "任务 {job_id}",
    "{what} floor of {count} {noun}; {least} tell a slope": "{what:w}底线：{count} 次{noun:w}；满 {least} 次才看得出斜率",
    "{what} floor {each} a {one} over {count} {noun}": "{what:w}底线 每次{one:w} {each}，共 {count} 次{noun:w}",
    "{what} floor {each} a {one} ({low} to {high}) over {count} {noun}": "{what:w}底线 每次{one:w} {each}（{low} 到 {high}），共 {count} 次{noun:w}",
    "{what} floor {each} a {one} ({low} to {high}) over {count} {noun}, in {stage}": "{what:w}底线 每次{one:w} {each}（{low} 到 {high}），共 {count} 次{noun:w}，在{stage:w}中",
    "{what} floor {each} a {one} ({low} to {high}) over {count} {noun}, in {stage} of {component}": "{what:w}底线 每次{one:w} {each}（{low} 到 {high}），共 {count} 次{noun:w}，在 {component} 的{stage:w}中",
}
