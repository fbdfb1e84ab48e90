"""Each wording of a foreign log is read, and none of those that are known can go without this being red."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.wire import LogLine
from turbotui.foreign import events
from turbotui.foreign.events import Kind, may_tell, read_event
from turbotui.leaklog import scan
from turbotui.leaklog.read import read_log

PHRASES: tuple[tuple[str, Kind], ...] = (
    ("RuntimeError: CUDA error: out of memory", "oom"),
    ("torch.cuda.OutOfMemoryError: tried to allocate 2.00 GiB", "oom"),
    ("worker 3: OOM while decoding", "oom"),
    ("显存不足", "oom"),
    ("错误：显存溢出", "oom"),
    ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "oom"),
    ("[Errno 98] Address already in use", "port"),
    (
        "[WinError 10048] Only one usage of each socket address (protocol/network address/port) is normally "
        "permitted",
        "port",
    ),
    ("OSError: Cannot find empty port in range: 7860-7860", "port"),
    ("端口 7860 已被占用", "port"),
    ("GPU Memory: 9.8/48.0 GB (20.4% used)", "memory"),
    ("显存占用：9.8 GB / 48.0 GB", "memory"),
    ("GPU 内存：9.8 GB / 48.0 GB", "memory"),
    ("VRAM: 9.8 GB / 48.0 GB", "memory"),
    ("Total VRAM 24564 MB, total RAM 64000 MB", "memory"),
    ("Active models: Wan (UNet loaded)", "models"),
    ("Active models: none", "models"),
    ("活动模型：Wan（UNet 已加载）", "models"),
    ("活跃模型：Wan", "models"),
    ("当前模型：Wan", "models"),
    ("已加载模型：Wan", "models"),
    ("激活模型：Wan", "models"),
    ("Cache status: 12 tensors cached (3.2 GB)", "cache"),
    ("缓存状态：12 个张量（3.2 GB）", "cache"),
    ("CUDA cache cleared", "cleared"),
    ("显存缓存已清空", "cleared"),
    ("Model components unloaded", "parts_out"),
    ("模型组件已卸载", "parts_out"),
    ("| Allocated memory      |   6144 MiB |   7168 MiB |", "allocated"),
    ("| GPU reserved memory   |   7168 MiB |   7168 MiB |", "allocated"),
    ("CUDA memory allocated: 8.1 GB", "allocated"),
    ("torch.cuda.memory_allocated() = 8.1 GB", "allocated"),
    ("Memory reserved: 9.0 GB", "allocated"),
    ("step 3: allocated 8.1 GB, reserved 9.0 GB", "allocated"),
    ("CUDA 显存已分配：8.1 GB", "allocated"),
    ("已分配显存：8.1 GB", "allocated"),
    ("Model unloading completed", "unloaded"),
    ("Model unloaded", "unloaded"),
    ("模型卸载完成", "unloaded"),
    ("模型已卸载", "unloaded"),
    ("Unloading model: Wan", "unloading"),
    ("正在卸载模型：Wan", "unloading"),
    ("2 models unloaded.", "unloaded"),
    ("Unloaded partially: 4100.20 MB freed, 9590.00 MB remains loaded", "unloaded"),
    ("Model loaded successfully", "loaded"),
    ("模型加载成功", "loaded"),
    ("模型已加载", "loaded"),
    ("loaded completely; 20110.80 MB usable, 13690.20 MB loaded, full load: True", "loaded"),
    ("loaded completely 20110.8 13690.2 True", "loaded"),
    ("loaded partially 8192.0 8100.5 3", "loaded"),
    ("Prompt executed in 33.10 seconds", "job"),
    ("Generation completed in 61.2 s", "job"),
    ("Saved video to outputs/a.mp4", "job"),
    ("生成完成，用时 61 秒", "job"),
    ("视频已保存", "job"),
    ("[INFO] Starting server", "started"),
    ("* Running on local URL:  http://127.0.0.1:7860", "started"),
    ("Requested to load WAN21", "loading"),
    ("Loading model: Wan", "loading"),
    ("加载模型 Wan", "loading"),
    ('{"seq":1,"at":1.0,"event":"job","text":"done: /x/y.mp4","level":"info"}', "job"),
)


@pytest.mark.parametrize(("text", "kind"), PHRASES, ids=lambda found: found[:40])
def test_a_wording_is_read(text: str, kind: Kind) -> None:
    event = read_event(text)
    assert event is not None and event.kind == kind
    assert may_tell(text)


def alternatives(pattern: str) -> Iterator[str]:
    """The branches of a pattern at its top level."""
    depth, in_class, branch = 0, False, ""
    for token in re.findall(r"\\.|.", pattern):
        if token == "[" or (in_class and token == "]"):
            in_class = token == "["
        elif not in_class and token in "()":
            depth += 1 if token == "(" else -1
        if token == "|" and not depth and not in_class:
            yield branch
            branch = ""
        else:
            branch += token
    yield branch


BRANCHES = [
    (place, branch)
    for place, (pattern, _read) in enumerate(events._KNOWN)
    for branch in range(len(list(alternatives(pattern.pattern))))
]


@pytest.mark.parametrize(("place", "branch"), BRANCHES)
def test_no_branch_of_any_pattern_can_go(place: int, branch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [read_event(text) for text, _kind in PHRASES]
    pattern, read = events._KNOWN[place]
    left = [one for number, one in enumerate(alternatives(pattern.pattern)) if number != branch]
    known = list(events._KNOWN)
    known[place] = (re.compile("|".join(left) if left else "(?!)", pattern.flags), read)
    monkeypatch.setattr(events, "_KNOWN", tuple(known))
    assert [read_event(text) for text, _kind in PHRASES] != before


@pytest.mark.parametrize("word", sorted(events._WORDS))
def test_no_word_of_the_quick_look_can_go(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_WORDS", events._WORDS - {word})
    assert not all(may_tell(text) for text, _kind in PHRASES)


PROGRAMS: tuple[tuple[str, scan.Program], ...] = (
    ("Starting ComfyUI v0.3", "comfyui"),
    ("Requested to load WAN21", "comfyui"),
    ("Set vram state to: NORMAL_VRAM", "comfyui"),
    ("got prompt", "comfyui"),
    ("Active models: none", "webui"),
    ("Cache status: 0 tensors cached", "webui"),
    ("Loading model: Wan", "webui"),
    ("python webui.py --listen", "webui"),
    ("活动模型：Wan", "webui"),
    ("活跃模型：Wan", "webui"),
    ("缓存状态：0 个张量", "webui"),
    ("正在加载模型：Wan", "webui"),
    ('{"seq":1,"at":1.0,"event":"job","text":"done: /x/y.mp4","level":"info"}', "turbotui"),
)


def test_the_program_is_known_by_each_of_its_signs(tmp_path: Path) -> None:
    assert len(PROGRAMS) == len(scan._SIGNS)
    for text, program in PROGRAMS:
        path = tmp_path / "a.log"
        path.write_text(f"hello\n{text}\n")
        assert read_log(path).program == program, text
        assert [sign for sign, _program in scan._SIGNS if sign in text], "one sign, and no other"


@pytest.mark.parametrize("number", range(len(scan._SIGNS)))
def test_no_sign_of_a_program_can_go(number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left = tuple(sign for place, sign in enumerate(scan._SIGNS) if place != number)
    monkeypatch.setattr(scan, "_SIGNS", left)
    found = []
    for text, program in PROGRAMS:
        path = tmp_path / "a.log"
        path.write_text(f"{text}\n")
        found.append(read_log(path).program == program)
    assert not all(found)


RECORDS = (
    (
        "unload",
        "wan/dit, expected back 13.50 GiB, back 9.10 GiB by nvml-process, residue 4.40 GiB",
        "unloaded",
    ),
    ("park", "wan, back 9.10 GiB by nvml-process", "unloaded"),
    ("cleanup", "worker 7, back 9.10 GiB by nvml-process", "unloaded"),
    ("full_cleanup", "worker 7, back 9.10 GiB by nvml-process", "unloaded"),
    ("free", "cache, back 1.10 GiB by nvml-process", "cleared"),
    ("collect", "cycles and cache, back 1.10 GiB by nvml-process", "cleared"),
    ("load", "wan/dit, 13.50 GiB in, 0.310 s", "loaded"),
    ("switch", "wan, 13.50 GiB in, 0.310 s", "loaded"),
    ("job", "done: /x/y.mp4", "job"),
    ("engine", "engine abc starts, pid 7, home /x", "started"),
    ("background", "GPU memory of GPU 2: 23.10 GiB of 48.00 GiB (48.1 % used): ours 20.0", "memory"),
    ("background", "Active models: wan (dit.high loaded 13.50 GiB, in use, vae unloaded)", "models"),
    ("background", "Cache status: 3.20 GiB on the device that `free` gives back", "cache"),
    ("oom", "needs 30.00 GiB of the budget of 40.00 GiB and lacks 12.50 GiB: wan/text are in use", "oom"),
    ("job", "had no memory left while in denoise; this worker holds 3.00 GiB of 8.00 GiB", "oom"),
)


@pytest.mark.parametrize(("event", "text", "kind"), RECORDS)
def test_each_record_of_our_own_file_is_read(event: str, text: str, kind: Kind) -> None:
    line = LogLine(seq=1, at=5.0, event=event, text=text, level="info")
    found = read_event(msgspec.json.encode(line).decode())
    assert found is not None and (found.kind, found.at) == (kind, 5.0)
