"""What the commands print with Chinese in every column: it lines up and is no wider than its terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import pytest

from engine.wire import (
    DeviceProcess,
    InstallationLine,
    Job,
    JobSpec,
    Receipt,
    ReceiptStep,
    ResetCondition,
    SwitchRequest,
)
from turbotui.client import scene_plans, scenes
from turbotui.format import cell_width
from turbotui.subcommands import (
    doctor,
    explain,
    jobs,
    models,
    output,
    processes,
    receipts,
    reset,
    watch,
)
from turbotui.text import LANGUAGES, use_language

NOW = time.time()
NAME = "万相模型-图生视频"
PROMPT = "一只小熊猫在木制阳台上喝茶，身后的群山静静地下着雪，镜头缓慢推进，电影质感，细节丰富"
WIDTHS = [80, 120]


@pytest.fixture(params=LANGUAGES, autouse=True)
def _language(request: pytest.FixtureRequest) -> Iterator[None]:
    use_language(request.param)
    yield
    use_language("en")


def job(number: int, **changes: object) -> Job:
    spec = JobSpec(model=NAME, prompt=PROMPT, resolution="480p", frames=81, steps=4)
    told: dict[str, object] = {"id": number, "spec": spec, "status": "queued", "created_at": NOW, **changes}
    return Job(**told)  # type: ignore[arg-type]


def all_jobs() -> Iterable[str]:
    found = [job(1), job(22, status="failed", error="没有显存" * 9), job(333, held=True, position=2)]
    found.append(job(4, status="waiting_memory", waits_for="others on this host hold 30.00 GiB"))
    return jobs.job_table(found)


def all_models() -> Iterable[str]:
    status = scenes.busy(NOW).status
    return models._model_lines([replace(one, name=f"{NAME}{at}") for at, one in enumerate(status.models)])


def all_processes() -> Iterable[str]:
    device = scenes.gpu(NOW, scenes.gpu_balance(NOW))
    one = DeviceProcess(
        pid=90112, bytes=2**33, name="训练", user="李伟", command="python 训练.py --数据 /数据/视频" * 4,
        container="容器-甲", started_at=NOW - 300,
    )  # fmt: skip
    other = replace(one, pid=7, user="张三丰的用户", bytes=None)
    return processes._lines([replace(device, processes=(one, other))])


def whole_status() -> Iterable[str]:
    status = scenes.busy(NOW).status
    return watch.status_lines(replace(status, models=tuple(replace(one, name=NAME) for one in status.models)))


def a_plan() -> Iterable[str]:
    return explain._lines(scenes.switch_plan(SwitchRequest(model=NAME)))


def a_reset() -> Iterable[str]:
    plan = scene_plans.reset_plan("0")
    conditions = (ResetCondition(name="持有者", state="blocks", text="李伟的进程" * 12), *plan.conditions)
    return reset.plan_lines(replace(plan, conditions=conditions))


def a_receipt() -> Iterable[str]:
    load = ReceiptStep(name=f"load {NAME}/dit", elapsed_s=1.2, bytes=2**34)
    steps = (load, ReceiptStep(name="gone from NVML", elapsed_s=0.1))
    return receipts.receipt_lines(
        Receipt(action="switch", target=NAME, ok=True, elapsed_s=2.0, proof="nvml-process", steps=steps)
    )


def the_doctor() -> Iterable[str]:
    first = InstallationLine(name="python", state="note", text=PROMPT, fix="make run")
    return doctor._lines([first, replace(first, name="显卡")])


TABLES: dict[str, Callable[[], Iterable[str]]] = {
    "jobs": all_jobs, "models": all_models, "ps": all_processes, "status": whole_status, "explain": a_plan,
    "reset": a_reset, "receipt": a_receipt, "doctor": the_doctor,
}  # fmt: skip


def cut(line: str, begin: int) -> str:
    """The line from a cell on; what is halved by that cell is no beginning."""
    cells = 0
    for place, character in enumerate(line):
        if cells == begin:
            return line[place:]
        cells += cell_width(character)
    return ""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["jobs", "models", "ps", "explain"])
def test_no_row_of_a_table_is_wider_than_the_terminal(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "columns", lambda stream: width)
    lines = list(TABLES[name]())
    assert len(lines) > 2
    assert [line for line in lines if cell_width(line) > width] == []


@pytest.mark.parametrize("name", ["jobs", "models", "ps", "status", "explain", "reset"])
def test_every_cell_stands_in_its_column(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[tuple[list[list[str]], list[str], frozenset[int]]] = []

    def recorded(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> Iterable[str]:
        lines = list(output.table(rows, right=right))
        tables.append(([list(row) for row in rows], lines, right))
        return lines

    for module in (jobs, models, processes, watch, explain, reset):
        monkeypatch.setattr(module, "table", recorded)
    list(TABLES[name]())
    assert tables
    for rows, lines, right in tables:
        assert len(rows) == len(lines) > 1
        widths = [max(map(cell_width, column)) for column in zip(*rows, strict=True)]
        for row, line in zip(rows, lines, strict=True):
            begin = 0
            for column, cell in enumerate(row):
                shift = widths[column] - cell_width(cell) if column in right and column < len(row) - 1 else 0
                assert not cell.strip() or cut(line, begin + shift).startswith(cell.rstrip()), line
                begin += widths[column] + 2


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_line_is_clean(name: str) -> None:
    for line in TABLES[name]():
        assert "\n" not in line and "\x1b" not in line
