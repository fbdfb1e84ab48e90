"""What foreign logs tell: each phrase of the released programs, in both wordings, with its numbers."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest

from turbotui.foreign.events import ForeignModel, level_of, read_event
from turbotui.foreign.tail import ForeignLine, read_whole
from turbotui.foreign.times import dated, find_stamp

DATA = Path(__file__).parents[2] / "data" / "foreign"
GIB = 2**30


def told(name: str) -> list[ForeignLine]:
    return [line for line in read_whole(DATA / name) if line.event is not None]


STORY = ["loading", "loaded", "memory", "models", "cache", "allocated"]
END = ["unloading", "parts_out", "cleared", "unloaded"]


def test_the_webui_in_english_is_told_line_by_line() -> None:
    lines = told("webui-en.log")
    kinds = [line.event.kind for line in lines if line.event]
    assert kinds == [*STORY, "allocated", *END, "loading", "oom", "oom", "port"]
    events = [line.event for line in lines if line.event]
    assert events[0].model == "Wan2.1-1.3B"
    assert (events[2].used_bytes, events[2].total_bytes) == (round(9.8 * GIB), 48 * GIB)
    assert events[2].share == pytest.approx(0.204)
    assert events[3].models == (ForeignModel(name="Wan2.1-1.3B", parts=(("UNet", True), ("VAE", False))),)
    assert (events[4].tensors, events[4].used_bytes) == (12, round(3.2 * GIB))
    assert [event.allocated_bytes for event in events[5:7]] == [round(8.1 * GIB), round(8.6 * GIB)]
    assert (events[12].used_bytes, events[12].total_bytes) == (round(23.9 * GIB), 24 * GIB)
    full = events[13]
    assert (full.asked_bytes, full.free_bytes, full.device) == (round(11.02 * GIB), GIB // 2, 0)
    assert full.others == ((90112, 3 * GIB),) and full.process_bytes == round(20.4 * GIB)
    assert full.allocated_bytes == round(19.1 * GIB) and full.total_bytes == round(23.99 * GIB)
    assert full.reserved_bytes == round(19.1 * GIB) + 700 * 2**20
    assert events[14].port == 7860


@pytest.mark.parametrize("name", ["webui-zh-gbk.log", "webui-zh-utf16.log", "webui-zh-utf8-bom.log"])
def test_the_webui_in_chinese_tells_the_same_in_every_encoding(name: str) -> None:
    lines = told(name)
    assert [line.event.kind for line in lines if line.event] == [*STORY, *END, "oom", "port"]
    events = [line.event for line in lines if line.event]
    assert events[3].models == (ForeignModel(name="Wan2.1-1.3B", parts=(("UNet", True), ("VAE", False))),)
    assert events[2].used_bytes == round(9.8 * GIB) and events[4].tensors == 12
    assert (events[10].used_bytes, events[11].port) == (round(23.9 * GIB), 7860)
    assert all(line.at is not None and "�" not in line.text for line in lines)
    assert lines[0].text[lines[0].body :] == "[信息] 正在加载模型：Wan2.1-1.3B"


def test_comfyui_and_pytorch_tell_without_times_or_colours() -> None:
    lines = list(read_whole(DATA / "comfyui.log"))
    events = [line.event for line in lines if line.event]
    assert [event.kind for event in events] == [
        "memory",
        "loading",
        "loaded",
        "loading",
        "loaded",
        "oom",
        "oom",
    ]
    assert events[0].total_bytes == 24564 * 2**20 and events[1].model == "WAN21"
    assert events[2].used_bytes == round(13690.2 * 2**20) and events[4].used_bytes == 8800 * 2**20
    assert events[6].asked_bytes == round(2.1 * GIB) and events[6].reserved_bytes == 21 * GIB
    assert not any(line.at for line in lines) and not any("\x1b" in line.text for line in lines)
    assert [line.text for line in lines if "it/s" in line.text or "s/it" in line.text] == [
        "100%|##########| 4/4 [00:12<00:00,  3.18s/it]"
    ]


@pytest.mark.parametrize(
    "free", ["GPU 0 has a total capacity of 12.00 GiB of which 0 bytes is free.", "(GPU 0; 0 bytes free; a)"]
)
def test_a_card_without_a_free_byte_is_told_as_that(free: str) -> None:
    event = read_event(f"CUDA out of memory. Tried to allocate 2.25 GiB. {free}")
    assert event is not None and event.free_bytes == 0


def test_a_containers_record_is_read_as_the_line_that_it_holds_with_its_time(tmp_path: Path) -> None:
    path, at = tmp_path / "c-json.log", "2026-05-11T08:00:20.5Z"
    line = r'{"log":"\u001b[32mINFO\u001b[0m 显存: 14.00/24.00 GB\r\n","stream":"stdout","time":"AT"}'
    path.write_text(line.replace("AT", at) + '\n{"log": 3}\n{"log":"half', "utf-8")
    whole, odd, half = read_whole(path)
    assert whole.event is not None and whole.event.used_bytes == 14 * GIB
    assert whole.at == datetime.fromisoformat(at).timestamp()
    assert whole.text[whole.body :] == "INFO 显存: 14.00/24.00 GB"
    assert (odd.text, half.text) == ('{"log": 3}', '{"log":"half')


@pytest.mark.parametrize(
    "text",
    [
        "the ROOM is on", "0 OOM in 27 switches", "ran without OOM", "Downloading models from the hub",
        "memory foam: 3 GB", "GPU Memory: n/a", "", "cache status unknown", "oom_score_adj set",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_is_no_event(text: str) -> None:
    assert read_event(text) is None


def test_a_line_of_100_kb_is_looked_at_in_no_time() -> None:
    for text in ("GPU Memory: " * 9000, "9" * 100_000, "(" * 100_000, "unloading models " * 6000):
        before = time.perf_counter()
        read_event(text), level_of(text), find_stamp(text, 0.0)
        assert time.perf_counter() - before < 0.2


def local(*when: int) -> float:
    return time.mktime((*when, 0, 0, -1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-15 14:03:22,123 - INFO - x", "[2026-01-15T14:03:22.5] y", "[INFO] 2026/01/15 14:03:22 z",
        "2026年1月15日 14:03:22 f", "[01/15/26 14:03:22] e", "INFO 01-15 14:03:22 c",
        "I0115 14:03:22.123456 d", "Jan 15 14:03:22 host h", f"{int(local(2026, 1, 15, 14, 3, 22))}.25 epoch",
    ],
)  # fmt: skip
def test_a_time_is_read_in_each_form(text: str) -> None:
    stamp = find_stamp(text, local(2026, 2, 1, 0, 0, 0))
    assert stamp is not None and stamp.at is not None
    assert int(stamp.at) == local(2026, 1, 15, 14, 3, 22)


def test_a_time_with_its_zone_is_that_moment() -> None:
    one, other = find_stamp("2026-01-15T14:03:22Z a", 0.0), find_stamp("2026-01-15 22:03:22+08:00 b", 0.0)
    assert one and other and one.at == other.at == 1768485802.0


@pytest.mark.parametrize(
    "text",
    [
        "50%|█| 1/2 [00:12<00:30, 1.2s/it]",
        "took 0:00:12",
        "99:99:99 x",
        "2026-13-45 14:03:22",
        "127.0.0.1:80",
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert find_stamp(text, 0.0) is None


def test_times_without_a_day_go_back_over_midnight_from_the_last_one() -> None:
    stamps = [
        find_stamp(text, 0.0) for text in ("23:59:58 a", "no time", "00:00:02 b", "23:10:00 c", "08:00:00 d")
    ]
    latest = local(2026, 1, 15, 8, 0, 1)
    assert dated(stamps, latest) == [
        local(2026, 1, 13, 23, 59, 58), None, local(2026, 1, 14, 0, 0, 2),
        local(2026, 1, 14, 23, 10, 0), local(2026, 1, 15, 8, 0, 0),
    ]  # fmt: skip
    december = find_stamp("Dec 31 23:00:00 host x", local(2026, 1, 1, 1, 0, 0))
    assert december and december.at == local(2025, 12, 31, 23, 0, 0)
