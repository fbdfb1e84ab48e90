"""What an old log tells of leaks: its timeline, its verdicts, and that none of its contents does harm."""

from __future__ import annotations

import json
import os
import sys
import time
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from engine.errors import InvalidRequest
from engine.wire import LogLine, Verdict
from turbotui.cli import main
from turbotui.foreign.events import may_tell, read_event
from turbotui.leaklog.course import MOST_POINTS
from turbotui.leaklog.graph import PLAIN, graph_lines
from turbotui.leaklog.read import FIRST_FACTS, LAST_FACTS, LogReport, read_log
from turbotui.subcommands.leaks_log import log_document, log_lines, tell_log
from turbotui.text import use_language

DATA = Path(__file__).parents[2] / "data" / "foreign"
GIB = 2**30


def told(tmp_path: Path, *lines: str, encoding: str = "utf-8") -> LogReport:
    path = tmp_path / "a.log"
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return read_log(path)


def of_kind(report: LogReport, kind: str, *, leak: bool | None = None) -> list[Verdict]:
    return [one for one in report.verdicts if one.kind == kind and leak in (None, one.leak)]


def test_a_webui_log_tells_its_day_and_each_of_its_leaks() -> None:
    report = read_log(DATA / "leaks-webui-en.log")
    assert report.program == "webui" and report.lines == 55 and report.total_bytes is not None
    assert report.begin is not None and time.strftime("%H:%M", time.localtime(report.begin)) == "09:00"
    kinds = [fact.event.kind for fact in report.facts]
    assert kinds[:5] == ["memory", "models", "loading", "loaded", "memory"]
    assert kinds[-9:-2] == ["unloaded", "memory", "models", "loading", "loaded", "memory", "oom"]
    stayed, grows, component, orphan, oom = report.verdicts
    assert (stayed.kind, stayed.leak, stayed.title) == ("tensor", True, "Unloaded, but 9.80 GiB stayed.")
    assert any("17.0 GiB to 10.4 GiB, in line 44 (09:20:05)" in one for one in stayed.evidence)
    assert any("live tensors hold it" in one for one in stayed.evidence)
    assert stayed.remedy is not None and "restart application" in stayed.remedy.text
    assert grows.title.endswith("grows by 410 MiB with each.") and grows.bytes == round(10.9 * GIB) - round(
        8.1 * GIB
    )
    assert component.kind == "component" and component.component == "Wan2.1-1.3B/UNet"
    assert orphan.kind == "orphan" and "port 7860" in orphan.title and orphan.remedy is not None
    assert orphan.remedy.command == "ss -ltnp 'sport = :7860'"
    assert not oom.leak and oom.bytes == round(6.2 * GIB) - 96 * 2**20
    assert "Could have gone: cache 1.20 GiB, what an unload left 9.80 GiB." in oom.evidence
    (trend,) = report.trends
    assert trend.grows and trend.count == 8 and trend.over == "jobs" and len(trend.floors) == 8


def test_the_same_in_chinese_and_gbk_with_times_without_a_day() -> None:
    report = read_log(DATA / "leaks-webui-zh-gbk.log")
    assert report.program == "webui" and report.end is not None and report.begin is not None
    assert report.end - report.begin == 15 * 60  # over midnight
    assert abs(report.end - (DATA / "leaks-webui-zh-gbk.log").stat().st_mtime) < 86400 + 120
    kinds = [(one.kind, one.leak) for one in report.verdicts]
    assert kinds == [
        ("tensor", True), ("tensor", True), ("component", True), ("orphan", True), ("cache", False),
    ]  # fmt: skip
    assert report.verdicts[0].title == "Unloaded, but 9.80 GiB stayed."
    assert any("may be cache" in one for one in report.verdicts[0].evidence)
    assert "2.00" not in report.verdicts[1].title and "410 MiB" in report.verdicts[1].title
    assert report.verdicts[4].title == "The cache of 4.70 GiB was never emptied."


def test_a_clean_day_has_no_leak() -> None:
    report = read_log(DATA / "clean-webui-en.log")
    assert not report.leaks and report.verdicts == ()
    assert {trend.over: trend.grows for trend in report.trends} == {"jobs": False, "switches": False}


def test_pytorch_alone_tells_fragmentation_and_no_growth_where_there_is_none() -> None:
    report = read_log(DATA / "leaks-pytorch.log")
    assert report.program == "pytorch" and report.begin is None and not report.leaks
    (oom,) = report.verdicts
    assert oom.kind == "fragmented" and "that would have been enough" in oom.evidence[-1]
    assert oom.remedy is not None and "expandable_segments" in oom.remedy.text
    # The table's row of what is allocated counts, and the peaks do not.
    assert len(report.trends[0].floors) == 8 and max(report.trends[0].floors) < 7 * GIB


def test_comfyui_tells_which_model_was_in_the_way() -> None:
    report = read_log(DATA / "comfyui.log")
    assert report.program == "comfyui" and report.leaks
    component, oom = report.verdicts
    assert component.component == "WAN21" and component.bytes == round(13690.2 * 2**20)
    assert oom.kind == "component" and len(of_kind(report, "component", leak=False)) == 1
    assert sum(fact.event.kind == "oom" for fact in report.facts) == 2  # one event in two lines


def test_comfyui_s_models_make_room_for_each_other_and_are_parts_of_one_job(tmp_path: Path) -> None:
    lines = [
        "Total VRAM 24564 MB, total RAM 64217 MB",
        "Requested to load WanTEModel", "loaded completely 21845.6 10835.4 True",
        "Requested to load WAN21", "loaded partially 14823.20 14820.17 0",
    ]  # fmt: skip
    oom = "torch.OutOfMemoryError: Allocation on device 0 would exceed allowed memory. (out of memory)"
    in_its_way = told(tmp_path, *lines, "Requested to load WanVAE", oom)
    assert [one.component for one in of_kind(in_its_way, "component", leak=True)] == ["WAN21"], (
        "both at once are more than the card has"
    )
    later = told(tmp_path, *lines, "Requested to load WanVAE", "Prompt executed in 58.31 seconds", oom)
    assert not later.leaks


def record(event: str, text: str, at: float, level: str = "info") -> str:
    line = LogLine(seq=1, at=at, event=event, text=text, level=level)  # type: ignore[arg-type]
    return msgspec.json.encode(line).decode()


def test_our_own_file_is_read_by_its_records(tmp_path: Path) -> None:
    report = told(
        tmp_path,
        record("engine", "engine abc starts, pid 7, home /x", 1000.0),
        record("background", "GPU memory of GPU 2: 23.10 GiB of 48.00 GiB (48.1 % used): ours 20.0", 1001.0),
        record("background", "Active models: wan (dit.high loaded 13.50 GiB, in use, vae unloaded)", 1001.0),
        record("background", "Cache status: 3.20 GiB on the device that `free` gives back", 1001.5),
        record("switch", "wan, 13.50 GiB in, 0.310 s", 1002.0),
        record("job", "done: /x/y.mp4", 1003.0),
        record("unload", "wan/dit, expected back 13.50 GiB, back 9.10 GiB by nvml-process, residue 4.40 GiB, "
               "0.024 s", 1004.0),
        record("oom", "denoise needs 30.00 GiB of the budget of 40.00 GiB and lacks 12.50 GiB: wan/text are "
               "in use; wait for that job to end", 1005.0, "error"),
        '{"seq": 1, "at": "nonsense"}',
    )  # fmt: skip
    assert report.program == "turbotui" and (report.begin, report.end) == (1000.0, 1005.0)
    assert [fact.event.kind for fact in report.facts] == [
        "started", "memory", "models", "cache", "loaded", "job", "unloaded", "oom",
    ]  # fmt: skip
    memory, models, cache = (report.facts[place].event for place in (1, 2, 3))
    assert (memory.used_bytes, memory.total_bytes) == (round(23.1 * GIB), 48 * GIB)
    assert models.models[0].parts == (("dit.high", True), ("vae", False)) and cache.used_bytes == round(
        3.2 * GIB
    )
    assert report.facts[4].text == "switch: wan, 13.50 GiB in, 0.310 s"
    stayed = report.verdicts[0]
    assert stayed.leak and stayed.bytes == round(4.4 * GIB) and stayed.remedy is not None
    assert stayed.remedy.command == "turbotui cleanup"
    (oom,) = [one for one in report.verdicts if not one.leak]
    assert oom.bytes == round(12.5 * GIB) and "30.0 GiB" in oom.title


def jobs(*allocated: float) -> list[str]:
    return [f"CUDA memory allocated: {figure:.2f} GB" for figure in allocated]


@pytest.mark.parametrize(
    ("floors", "grows"),
    [
        ((8.0, 8.5, 9.0, 9.5, 10.0), True),
        ((8.0, 8.5, 9.0, 9.5), False),  # too few to be sure
        ((8.0, 8.1, 8.0, 8.1, 8.0, 8.1, 8.0), False),
        ((6.0, 8.1, 8.1, 8.1, 8.1, 8.1), False),  # the first job filled its workspaces
        ((8.0, 8.01, 8.02, 8.03, 8.04, 8.05), False),  # below a log's own rounding
        ((8.0, 8.5, 9.0, 9.5, 10.0, 10.5, 11.0, *[11.5] * 8), False),  # a cache that has filled
    ],
)
def test_floors_grow_only_where_it_cannot_be_chance(
    tmp_path: Path, floors: tuple[float, ...], grows: bool
) -> None:
    report = told(tmp_path, "Model loaded successfully", *jobs(*floors))
    assert report.leaks is grows and report.trends[0].grows is grows


def test_floors_of_another_model_or_of_another_run_are_others(tmp_path: Path) -> None:
    report = told(
        tmp_path, *jobs(2, 2.1, 2.0), "Loading model: b", "Model loaded successfully", *jobs(9, 9.1, 9.0)
    )
    assert not report.leaks and report.trends[0].count == 3
    report = told(
        tmp_path, *jobs(2, 3, 4), "Starting server", *jobs(2, 3, 4), "Starting server", *jobs(2, 3, 4)
    )
    assert not report.leaks


def test_a_job_that_says_its_end_has_one_floor_however_often_it_tells(tmp_path: Path) -> None:
    lines = [
        line
        for place in range(6)
        for line in (*jobs(9 + place % 3, 12), "Prompt executed in 33.10 seconds", *jobs(8.0))
    ]
    report = told(tmp_path, *lines)
    assert report.trends[0].floors == (8 * GIB,) * 6 and not report.leaks


def test_without_a_line_of_what_is_allocated_the_cards_use_after_each_job_is_the_floor(
    tmp_path: Path,
) -> None:
    lines = [
        line
        for place in range(6)
        for line in (f"GPU Memory: {30 - place}.0/48.0 GB", "Prompt executed in 33.10 seconds",
                     f"GPU Memory: {9 + place}.0/48.0 GB")
    ]  # fmt: skip
    report = told(tmp_path, *lines)
    assert report.trends[0].floors == tuple((9 + place) * GIB for place in range(6)) and report.leaks
    assert "This is the figure of the whole card, so another program's memory is in it." in (
        report.verdicts[0].evidence
    )


def test_floors_of_the_card_and_of_pytorch_are_two_series_whichever_is_told_first(tmp_path: Path) -> None:
    lines = []
    for place in range(8):
        looks = [f"GPU Memory: {20 + place}.0/48.0 GB", *jobs(8.0)]
        lines += ["Prompt executed in 33.10 seconds", *looks[:: 1 if place % 3 else -1]]
    report = told(tmp_path, *lines)
    assert report.trends[0].floors == (8 * GIB,) * 8 and not report.leaks


def test_a_run_that_grew_is_told_though_a_longer_one_did_not(tmp_path: Path) -> None:
    report = told(tmp_path, *jobs(2, 3, 4, 5, 6, 7), "Starting server", *jobs(*[2.0] * 20))
    assert report.leaks and report.trends[0].count == 6


@pytest.mark.parametrize(
    ("lines", "title"),
    [
        (["3.0", "4.0"], "The cache of 4.00 GiB was never emptied."),
        (["3.0", "4.0", "Starting server", "1.1"], "The cache of 4.00 GiB was never emptied."),
        (["3.0", "4.0", "1.9", "1.5"], "The cache of 1.90 GiB was never emptied."),  # somebody did
        (["3.0", "4.0", "CUDA cache cleared"], None),
        (["3.0"], None),
        (["0.3", "0.4"], None),
    ],
)
def test_a_cache_that_is_never_emptied(tmp_path: Path, lines: list[str], title: str | None) -> None:
    texts = [f"Cache status: 9 tensors cached ({line} GB)" if line[0].isdigit() else line for line in lines]
    found = of_kind(told(tmp_path, *texts), "cache")
    assert [one.title for one in found] == ([] if title is None else [title])


UNLOADED = (
    "Loading model: a", "Model loaded successfully", "GPU Memory: 20.0/48.0 GB (41.7% used)",
    "Unloading model: a", "Model components unloaded", "CUDA cache cleared", "Model unloading completed",
)  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (["GPU Memory: 0.6/48.0 GB"], ["GPU Memory: 0.9/48.0 GB"], []),
        (["GPU Memory: 15.0/48.0 GB"], ["GPU Memory: 15.2/48.0 GB"], []),  # another program's all along
        (["GPU Memory: 0.6/48.0 GB"], ["GPU Memory: 9.0/48.0 GB", "GPU Memory: 0.9/48.0 GB"], []),  # late
        ([], ["GPU Memory: 1.4/48.0 GB"], []),  # a context
        ([], ["GPU Memory: 9.0/48.0 GB"], ["tensor"]),
        (["GPU Memory: 0.6/48.0 GB"], ["CUDA memory allocated: 6.0 GB"], ["tensor"]),
        (["GPU Memory: 0.6/48.0 GB"], ["Cache status: 9 tensors cached (8.1 GB)", "GPU Memory: 9.0/48.0 GB"],
         ["cache"]),
        (["GPU Memory: 0.6/48.0 GB"], [], []),  # nobody looked
    ],
)  # fmt: skip
def test_what_stays_after_an_unload(
    tmp_path: Path, before: list[str], after: list[str], kinds: list[str]
) -> None:
    report = told(tmp_path, *before, *UNLOADED, *after)
    assert [one.kind for one in report.verdicts] == kinds
    assert report.leaks is ("tensor" in kinds)


def test_an_unload_of_one_of_two_is_no_leak(tmp_path: Path) -> None:
    report = told(
        tmp_path, "GPU Memory: 0.6/48.0 GB", "Loading model: a", "Model loaded successfully",
        "Loading model: b", "Model loaded successfully", "Unloading model: b",
        "Unloaded model: b", "GPU Memory: 20.0/48.0 GB",
    )  # fmt: skip
    assert not of_kind(report, "tensor")


def test_memory_that_another_process_held_is_its(tmp_path: Path) -> None:
    report = told(
        tmp_path,
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.00 GiB. GPU 0 has a total capacity "
        "of 23.99 GiB of which 512.00 MiB is free. Process 90112 has 8.00 GiB memory in use. Of the "
        "allocated memory 13.10 GiB is allocated by PyTorch, and 100.00 MiB is reserved by PyTorch but "
        "unallocated.",
    )
    (oom,) = report.verdicts
    assert oom.kind == "process" and "process 90112 8.00 GiB" in oom.evidence[2]


def test_alike_ooms_are_one_verdict_and_a_port_is_told_once(tmp_path: Path) -> None:
    oom = "CUDA out of memory. Tried to allocate 4.00 GiB (GPU 0; 24.00 GiB total capacity; 1.00 GiB free)"
    port = "[Errno 98] error while attempting to bind on address ('0.0.0.0', 7860): address already in use"
    report = told(tmp_path, *[line for _ in range(4) for line in (oom, *["x"] * 300, port)])
    first, second = report.verdicts
    assert first.kind == "orphan" and "4 starts failed, the first in line 302" in first.evidence[0]
    assert "So it was 4 times." in second.evidence


def test_a_file_of_any_size_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.log"
    line = "2026-01-15 14:01:06,880 [INFO] GPU Memory: {:.1f}/48.0 GB\n"
    path.write_text("".join(line.format(place % 47) for place in range(9000)) + "x" * 300_000 + "\n")
    tracemalloc.start()
    report = read_log(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.told == 9000 and len(report.facts) == FIRST_FACTS + LAST_FACTS
    assert report.omitted == 9000 - len(report.facts) and len(report.points) <= MOST_POINTS
    assert peak < 12 * 2**20


def test_a_log_of_thousands_of_loads_takes_seconds(tmp_path: Path) -> None:
    path = tmp_path / "loads.log"
    load = "Loading model: a\nModel loaded successfully\nModel unloading completed\n"
    path.write_text("\n".join(jobs(*[8 + place % 7 / 10 for place in range(200)])) + "\n" + load * 3000)
    began = time.process_time()
    report = read_log(path)
    assert time.process_time() - began < 8 and report.trends[0].count == 200


def test_hostile_lines_harm_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hostile.log"
    path.write_bytes(
        b"\x1b]0;owned\x07GPU Memory: 9.0/48.0 GB \x1b[2J\x9b31m\n"
        + b"\0" * 5000
        + b"OOM " * 30_000
        + b"\n"
        + "Loading model: \u202egpj.exe\n".encode()
        + b"Loading model: "
        + b"(" * 100_000
        + b"\n"
        + b"GPU Memory: 999999999999999999999999/9 GB\n"
        + b"torch.cuda.memory_allocated: "
        + b"9" * 400
        + b" GB\n"
        + b"\xff\xfe\x00\x80"
    )
    before = time.perf_counter()
    report = read_log(path)
    assert time.perf_counter() - before < 2.0 and report.told >= 4
    shown = "\n".join(log_lines(report, all_=True)) + "\n".join(graph_lines(report, 80))
    assert not set(shown) & set("\x1b\x07\x9b\0\u202e")
    assert all(len(fact.text) <= 160 for fact in report.facts)


@pytest.mark.parametrize("name", ["gone.log", "."])
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot be read: .*; give a log's file"):
        read_log(tmp_path / name)


def test_the_command_asks_no_engine_and_its_exit_code_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path / "home"))
    assert main(["leaks", "--log", str(DATA / "clean-webui-en.log")]) == 0
    assert main(["leaks", "--log", str(tmp_path / "none.log")]) == 2
    assert main(["leaks", "--log", str(DATA / "comfyui.log"), "--watch"]) == 2
    assert main(["leaks", "--all"]) == 2
    assert "none.log cannot be read: No such file" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("how", ["file", "pipe"])
def test_a_log_is_read_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    log = DATA / "leaks-webui-en.log"
    with log.open("rb") as file:
        if how == "pipe":
            read, write = os.pipe()
            os.write(write, file.read())  # 4 KB: a pipe holds them
            os.close(write)
        else:
            read = os.dup(file.fileno())
    with open(read, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["leaks", "--log", "-"]) == 7
    output = capsys.readouterr().out
    assert output.startswith("standard input: 3.97 KiB, 55 lines, WebUI, 2026-01-15 09:00:01")
    assert "4 leaks, and 1 other finding" in output


def test_without_a_leak_the_count_is_a_sentence() -> None:
    report = read_log(DATA / "leaks-pytorch.log")
    assert not report.leaks and report.verdicts, "no leak, and something to tell"
    assert list(log_lines(report))[-1] == "no leak, only 1 other finding"
    use_language("zh_CN")
    try:
        assert list(log_lines(report))[-1] == "没有泄漏，只有 1 项其他发现"
    finally:
        use_language("en")


def test_a_log_that_tells_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.log").write_text("hello\nworld\n")
    assert not tell_log(tmp_path / "a.log", json=False)
    assert "No line of it tells anything of memory." in capsys.readouterr().out


def test_what_is_printed_fits_and_what_is_json_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaks", "--log", str(DATA / "leaks-webui-en.log")]) == 7
    output = capsys.readouterr().out
    for words in (
        "leaks-webui-en.log: 3.97 KiB, 55 lines, WebUI, 2026-01-15 09:00:01 to 09:25:00", "48.0 ┤",
        "█ allocated by PyTorch   ▒ in use on the card", "leak: Unloaded, but 9.80 GiB stayed.",
        "    Remedy: Press", "4 leaks, and 1 other finding", "41  09:20:01  parts out",
    ):  # fmt: skip
        assert words in output
    assert main(["leaks", "--json", "--log", str(DATA / "leaks-webui-en.log")]) == 7
    document = json.loads(capsys.readouterr().out)
    assert document["verdicts"][0]["bytes"] == round(10.4 * GIB) - round(0.6 * GIB)
    assert document["facts"][0]["what"] == "memory" and "model" not in document["facts"][0]
    assert document["points"] and document["trends"][0]["grows"] is True


def test_in_chinese_all_of_it_is_chinese() -> None:
    use_language("zh_CN")
    try:
        text = "\n".join(log_lines(read_log(DATA / "leaks-webui-zh-gbk.log")))
    finally:
        use_language("en")
    for words in (
        "泄漏：已卸载，却留下 9.80 GiB。",
        "先前的服务仍占着端口 7860",
        "4 处泄漏，另有 1 项",
        "重启应用",
    ):
        assert words in text
    assert "stayed" not in text and "was unloaded" not in text


def test_the_graph_goes_down_where_memory_does(tmp_path: Path) -> None:
    report = told(
        tmp_path, "GPU Memory: 0.0/10.0 GB", *["x"] * 30, "GPU Memory: 10.0/10.0 GB", *["x"] * 30,
        "Model unloading completed", "GPU Memory: 0.0/10.0 GB", *["x"] * 30, "GPU Memory: 5.0/10.0 GB",
    )  # fmt: skip
    lines = graph_lines(report, 60, PLAIN)
    assert len(lines) == 10 and all(len(line) <= 60 for line in lines)
    full, half = lines[0], lines[7]
    assert full.split("|")[1].strip() in (":" * 17, ":" * 18)
    assert half.rstrip().endswith(":") and "<" in lines[8] and lines[9].startswith("       +1")


def test_a_peak_is_drawn_where_it_was_and_not_until_the_next_reading(tmp_path: Path) -> None:
    report = told(
        tmp_path, "GPU Memory: 10.0/10.0 GB", "Model unloading completed", "GPU Memory: 1.0/10.0 GB",
        *["x"] * 300, "GPU Memory: 1.0/10.0 GB",
    )  # fmt: skip
    top = graph_lines(report, 60, PLAIN)[0].split("|")[1]
    assert top.rstrip() == ":", top


def test_a_quick_look_never_hides_what_the_parser_reads() -> None:
    lines = [line for name in DATA.glob("*.log") for line in _lines_of(name)]
    missed = [line for line in lines if read_event(line) is not None and not may_tell(line)]
    assert lines and missed == []
    assert not may_tell("step 3 of 4 has taken 0.12 s")


def _lines_of(path: Path) -> list[str]:
    from turbotui.foreign.tail import read_whole

    return [line.text for line in read_whole(path)]


def test_the_document_keeps_what_a_line_says() -> None:
    document = log_document(read_log(DATA / "comfyui.log"))
    loaded = next(fact for fact in document["facts"] if fact["what"] == "loaded")
    assert loaded["used_bytes"] == round(13690.2 * 2**20)
