"""Owns what a line of a foreign log tells of memory: its kind, and its numbers in bytes.

Known are the WebUI of the guide (English or Chinese wording), ComfyUI and what PyTorch itself says.
These programs write GB and MB for powers of two, as the allocator's own GiB and MiB.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "memory",  # what the device holds
    "models",  # which models and parts are there
    "cache",
    "allocated",  # what PyTorch holds
    "loading",
    "loaded",
    "unloading",
    "unloaded",
    "parts_out",  # a model's components were let go
    "cleared",  # the allocator's cache was emptied
    "port",  # another instance has the address
    "oom",
    "job",  # a video was made
    "started",  # the program begins anew
]
KINDS: tuple[Kind, ...] = (
    *("memory", "models", "cache", "allocated", "loading", "loaded"),
    *("unloading", "unloaded", "parts_out", "cleared", "port", "oom", "job", "started"),
)
AROUND: frozenset[Kind] = frozenset({"job", "started"})
"""Tell nothing of memory themselves, but which of its figures belong together."""
SCANNED = 8000
"""Characters of a line that are looked at."""

MOST = 2.0**62
"""Bytes; a line may say any number, and none that is larger means anything."""
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_WIDE = str.maketrans("：（），；％／＝。．【】０１２３４５６７８９", ":(),;%/=..[]0123456789")
"""What Chinese wording uses."""
_THOUSANDS = re.compile(r"(?<![\d.,:])\d{1,3}(?:,\d{3})+(?![\d,])")
_DECIMALS = re.compile(r"(?<![\d.,:])(\d+),(\d{1,2})(?=\s*(?:[KMGT]i?B|[/%]))", re.IGNORECASE)
"""Numbers as other locales write them; a clock's milliseconds are none."""
_NUMBER = r"(\d+(?:\.\d+)?)"
_UNIT = r"([KMGT])(?:i?B)?(?![A-Za-z])"
_SIZE = _NUMBER + r"\s*" + _UNIT


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignModel:
    """A model as a status line names it, with each part and whether it is loaded (None: not said)."""

    name: str
    parts: tuple[tuple[str, bool | None], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignEvent:
    """What one line tells; every number that it does not tell is None."""

    kind: Kind
    model: str | None = None
    models: tuple[ForeignModel, ...] = ()
    used_bytes: int | None = None
    """Of the device; of a cache, what it holds."""
    total_bytes: int | None = None
    share: float | None = None
    """Of the device in use."""
    free_bytes: int | None = None
    asked_bytes: int | None = None
    """What could not be had."""
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    """By PyTorch's allocator, with what is allocated."""
    process_bytes: int | None = None
    """The writing process's whole, with what is not PyTorch's."""
    others: tuple[tuple[int, int], ...] = ()
    """Pid and bytes of other processes that are named."""
    device: int | None = None
    tensors: int | None = None
    port: int | None = None
    expected_bytes: int | None = None
    """What an unload should give back, and what did come back of it, where a program proves it."""
    returned_bytes: int | None = None
    residue_bytes: int | None = None
    at: float | None = None
    """Wall clock, where the line is a record that has its time inside."""
    said: str | None = None
    """What such a record says to people."""


def read_event(text: str) -> ForeignEvent | None:
    """What a line tells of memory; None for all others."""
    plain = text[:SCANNED].translate(_WIDE)
    if "," in plain:
        plain = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), plain)
        plain = _DECIMALS.sub(r"\1.\2", plain)
    if plain.startswith('{"seq":'):
        return read_own(text)
    for pattern, read in _KNOWN:
        found = pattern.search(plain)
        if found is not None and (event := read(found, plain)) is not None:
            return event
    return None


def may_tell(text: str) -> bool:
    """Whether `read_event` could find something: a quick look, which most lines of a log do not pass."""
    lowered = text[:SCANNED].lower()
    return any(word in lowered for word in _WORDS)


_WORDS = frozenset(
    {
        *("memory", "model", "vram", "oom", "cache", "alloc", "load", "port", "address"),
        *("executed", "generat", "saved", "running on", "starting server", '{"seq":'),
        *("显存", "模型", "缓存", "端口", "内存", "生成", "保存"),
    }
)


def read_own(text: str) -> ForeignEvent | None:
    """A line of this engine's own file, which is a record in JSON."""
    from turbotui.foreign.own import read_record

    return read_record(text)


def level_of(text: str) -> Literal["info", "warning", "error"]:
    """How bad a line says it is."""
    if _ERROR.search(text[:400]):
        return "error"
    return "warning" if _WARNING.search(text[:200]) else "info"


_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|FATAL)\b|Traceback \(most recent|^\S*(?:Error|Exception): |错误")
_WARNING = re.compile(r"\bWARN(?:ING)?\b|Warning:|警告")


def size(number: str, unit: str) -> int:
    """`23.1`, `G` in bytes."""
    return round(min(float(number) * _UNITS[unit[0].upper()], MOST))


def _sized(pattern: str, text: str) -> int | None:
    found = re.search(pattern.replace("SIZE", _SIZE), text, re.IGNORECASE)
    return None if found is None else size(found[1], found[2])


def _memory(found: re.Match[str], text: str) -> ForeignEvent:
    part = found.groupdict()
    total = size(part["total"], part["unit"])
    used = size(part["used"], part["unit_used"] or part["unit"])
    share = re.match(r"\W*" + _NUMBER + r"\s*%", text[found.end() :])
    fraction = float(share[1]) / 100 if share else None
    return ForeignEvent(kind="memory", used_bytes=used, total_bytes=total, share=fraction)


_LOADED = re.compile(r"^(?:loaded|on|ready|resident|gpu|cuda(?::\d)?|已加载|已载入|加载)$", re.IGNORECASE)
_UNLOADED = re.compile(r"^(?:unloaded|off|not loaded|cpu|none|未加载|已卸载|未载入|卸载)$", re.IGNORECASE)


def _models(found: re.Match[str], text: str) -> ForeignEvent:
    rest = text[found.end() :].strip()
    models = []
    for name, inside in re.findall(r"([^(),;]+)(?:\(([^()]*)\))?", rest):
        if (name := name.strip(" .")) and name.lower() not in ("none", "无", "没有"):
            parts = tuple(_part(word) for word in re.split(r"[,;、]", inside) if word.strip())
            models.append(ForeignModel(name=name, parts=parts))
    return ForeignEvent(kind="models", models=tuple(models))


def _part(words: str) -> tuple[str, bool | None]:
    name, _, state = words.strip().replace(":", " ").replace("=", " ").partition(" ")
    if not state and (glued := re.fullmatch(r"(.+?)(已加载|已载入|未加载|已卸载|未载入)", name)):
        name, state = glued[1], glued[2]
    state = state.strip()
    return name, True if _LOADED.match(state) else False if _UNLOADED.match(state) else None


def _cache(found: re.Match[str], text: str) -> ForeignEvent:
    rest = text[found.end() :]
    count = re.search(r"(\d+)\s*(?:个)?\s*(?:tensors?|张量)", rest, re.IGNORECASE)
    return ForeignEvent(
        kind="cache", tensors=int(count[1]) if count else None, used_bytes=_sized("SIZE", rest)
    )


def _allocated(found: re.Match[str], text: str) -> ForeignEvent | None:
    if _PEAK.search(text[: found.start()]):
        return None  # the most that there was is no state of now
    rest = text[found.start() :]
    return ForeignEvent(
        kind="allocated",
        allocated_bytes=_sized(r"(?:allocated|已分配)[^\d\n]{0,24}SIZE", rest),
        reserved_bytes=_sized(r"(?:reserved|已保留|预留)[^\d\n]{0,24}SIZE", rest),
        total_bytes=_sized(r"(?:total|总计|共)[^\d\n]{0,24}SIZE", rest),
    )


_PEAK = re.compile(r"(?:max(?:imum)?|peak)[\s_]*$|(?:峰值|最大)\s*$", re.IGNORECASE)


def _summary(found: re.Match[str], text: str) -> ForeignEvent:
    """A row of `torch.cuda.memory_summary()`, whose first figure is that of now."""
    held = size(found[2], found[3])
    if found[1].lower().startswith("allocated"):
        return ForeignEvent(kind="allocated", allocated_bytes=held)
    return ForeignEvent(kind="allocated", reserved_bytes=held)


def _of_model(kind: Kind) -> Callable[[re.Match[str], str], ForeignEvent]:
    def read(found: re.Match[str], text: str) -> ForeignEvent:
        rest = text[found.end() :].lstrip(" :'\"")
        name = re.match(r"(?:weights?\s+)?(?:from\s+)?(?:模型)?[:\s'\"]*([\w./\\-]*\w)", rest)
        word = name[1] if name else None
        return ForeignEvent(
            kind=kind,
            model=None if word is None or word.lower() in _NO_NAMES else word,
            used_bytes=_sized("SIZE", rest),
        )

    return read


_NO_NAMES = frozenset(
    {"from", "to", "the", "in", "for", "weights", "completed", "successfully", "took", "on", "into", "and"}
)


def _plain(kind: Kind) -> Callable[[re.Match[str], str], ForeignEvent]:
    def read(found: re.Match[str], text: str) -> ForeignEvent:
        return ForeignEvent(kind=kind, used_bytes=_sized("SIZE", text[found.end() :]))

    return read


def _around(kind: Kind) -> Callable[[re.Match[str], str], ForeignEvent]:
    return lambda _found, _text: ForeignEvent(kind=kind)


def _named(kind: Kind) -> Callable[[re.Match[str], str], ForeignEvent]:
    """The model is a group of the pattern; so is a size in MB, where it says one."""

    def read(found: re.Match[str], text: str) -> ForeignEvent:
        part = found.groupdict()
        held = part.get("mb")
        return ForeignEvent(
            kind=kind, model=part.get("model"), used_bytes=None if held is None else size(held, "M")
        )

    return read


def _total(found: re.Match[str], text: str) -> ForeignEvent:
    return ForeignEvent(kind="memory", total_bytes=size(found[1], found[2]))


def _port(found: re.Match[str], text: str) -> ForeignEvent:
    number = re.search(
        r"(?:port(?:\s+in\s+range)?|端口)\D{0,4}(\d{2,5})|(?:['\"]\s*,\s*|\d\.\d+:)(\d{2,5})\b", text, re.I
    )
    port = int(number[1] or number[2]) if number else None
    return ForeignEvent(kind="port", port=port if port is not None and port < 65536 else None)


_NO_OOM = re.compile(
    r"\b(?:no|without|zero|0|avoid(?:s|ed)?|prevent(?:s|ed)?)\s+OOM|OOMs?\s*[:=]\s*0\b|无\s*OOM", re.I
)


def _oom(found: re.Match[str], text: str) -> ForeignEvent | None:
    if _NO_OOM.search(text):
        return None
    device = re.search(r"GPU (\d+)", text)
    of = re.search(_NUMBER + r"\s*(?:[KMGT]i?B)?\s*/\s*" + _SIZE, text)
    allocated = _sized(r"SIZE (?:already allocated|is allocated by PyTorch)", text)
    reserved = _sized(r"SIZE reserved in total", text)
    unallocated = _sized(r"SIZE is reserved by PyTorch but unallocated", text)
    if reserved is None and allocated is not None and unallocated is not None:
        reserved = allocated + unallocated
    free = _sized(r"of which SIZE is free", text) or _sized(r"SIZE free", text)
    if free is None and (full := re.search(r"(?<!\d)(\d{1,4}) bytes (?:is )?free", text)):
        free = int(full[1])
    others = re.findall(r"Process (\d+) has " + _SIZE, text)
    return ForeignEvent(
        kind="oom",
        asked_bytes=_sized(r"(?:tried to allocate|尝试分配|申请)\s*SIZE", text),
        total_bytes=size(of[2], of[3])
        if of
        else _sized(r"total capacity of SIZE", text) or _sized(r"SIZE total capacity", text),
        used_bytes=size(of[1], of[3]) if of else None,
        free_bytes=free,
        allocated_bytes=allocated,
        reserved_bytes=reserved,
        process_bytes=_sized(r"this process has SIZE", text),
        others=tuple((int(pid), size(number, unit)) for pid, number, unit in others),
        device=int(device[1]) if device else None,
    )


_Reader: TypeAlias = Callable[[re.Match[str], str], ForeignEvent | None]
_KNOWN: tuple[tuple[re.Pattern[str], _Reader], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), read)
    for pattern, read in (
        (r"out of memory|OutOfMemoryError|(?-i:\bOOM\b)|显存不足|显存溢出|CUBLAS_STATUS_ALLOC_FAILED", _oom),
        (
            r"address already in use|only one usage of each socket address|cannot find empty port"
            r"|端口.{0,12}(?:占用|使用中)",
            _port,
        ),
        (
            r"(?:GPU\s*(?:memory|显存|内存)|VRAM|显存)(?:\s*(?:usage|used|占用|使用|使用情况|使用量))?\s*[:=]\s*"
            r"(?P<used>\d+(?:\.\d+)?)\s*(?P<unit_used>[KMGT]i?B)?\s*/\s*(?P<total>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]i?B)",
            _memory,
        ),
        (r"\btotal VRAM " + _SIZE, _total),
        (r"(?:active models?|活动模型|活跃模型|当前模型|已加载模型|激活模型)\s*:", _models),
        (r"(?:cache status|缓存状态)\s*:", _cache),
        (
            r"CUDA cache (?:cleared|emptied)|(?:CUDA|显存)\s*缓存\s*已?(?:被)?(?:清空|清理|清除|释放)",
            _plain("cleared"),
        ),
        (r"model components? unloaded|模型组件(?:已|均已)?(?:全部)?卸载", _plain("parts_out")),
        (r"^\|\s*(Allocated memory|GPU reserved memory)\s*\|\s*" + _SIZE, _summary),
        (
            r"(?:CUDA|GPU|torch\.cuda)[ ._]*memory[ _]*(?:allocated|reserved)|memory (?:allocated|reserved):"
            r"|\ballocated\b[\s:=]{1,3}\d[\d.]*\s*[KMGT]i?B\W.{0,20}\breserved\b"
            r"|CUDA\s*(?:显存|内存)?\s*已分配|已分配\s*(?:CUDA|GPU)?\s*显存",
            _allocated,
        ),
        (
            r"model unload(?:ing|ed)?\s+(?:completed?|finished|done|successfully)|model unloaded"
            r"|模型\s*(?:已)?卸载\s*(?:完成|成功|完毕)|模型已卸载",
            _plain("unloaded"),
        ),
        (r"unloading (?:all )?(?:loaded )?models?\b|(?:正在|开始)?卸载模型", _of_model("unloading")),
        (r"\b[1-9]\d* models? unloaded\b", _plain("unloaded")),
        (r"unloaded partially\W+(?P<mb>\d+(?:\.\d+)?)\s*MB", _named("unloaded")),
        (
            r"model loaded\b|模型\s*(?:已)?(?:加载|载入)\s*(?:完成|成功|完毕)|模型已(?:加载|载入)",
            _plain("loaded"),
        ),
        (
            r"loaded (?:completely|partially)\W[^,\n]*usable, (?P<mb>\d+(?:\.\d+)?) MB loaded",
            _named("loaded"),
        ),
        (r"loaded completely \d+(?:\.\d+)? (?P<mb>\d+(?:\.\d+)?)", _named("loaded")),
        (r"loaded partially \d+(?:\.\d+)? (?P<mb>\d+(?:\.\d+)?)", _named("loaded")),
        (
            r"\bprompt executed in\b|\b(?:generation|video) (?:completed?|finished|done|saved)\b"
            r"|\bsaved (?:the )?video\b|(?:视频)?生成\s*(?:已)?(?:完成|成功|完毕)|视频\s*已?(?:保存|生成)",
            _around("job"),
        ),
        (
            r"^\W*(?:\[?INFO\]?\W*)?starting server\b|\brunning on (?:local URL|https?://)",
            _around("started"),
        ),
        (r"requested to load (?P<model>[\w./-]+)", _named("loading")),
        (r"(?<![a-z])loading (?:diffusion )?models?\b|(?:正在|开始)?(?:加载|载入)模型", _of_model("loading")),
    )
)
