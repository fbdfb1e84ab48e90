"""Owns files of many jobs: a prompt a line, or a job's fields as JSON a line, each line told good or bad."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO

import msgspec

from engine.errors import InvalidRequest
from engine.wire import BATCH_LIMIT, JobSpec
from turbotui.draft import samples_of, whole_path
from turbotui.plain_file import open_plain

LIMIT_BYTES = 16 * 2**20
"""A larger file is none of ours."""
LINE_LIMIT_CHARS = 32_000
"""More than engines take of a prompt; keeps one line from filling a request."""
JSON_SUFFIXES = (".jsonl", ".ndjson")
FIELDS = tuple(field.name for field in fields(JobSpec))
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True, kw_only=True, slots=True)
class JobLine:
    """A line that asks for something: exactly one of `spec` and `error` is there."""

    number: int
    """From 1, as editors count."""
    text: str
    """The prompt, or as much of the line as names it."""
    spec: JobSpec | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFile:
    """What a file asks for, in its order."""

    lines: tuple[JobLine, ...]
    encoding: str

    @property
    def good(self) -> tuple[JobLine, ...]:
        """Those that could be understood."""
        return tuple(line for line in self.lines if line.spec is not None)


def read_job_file(name: str, base: JobSpec, *, samples: int = 1) -> JobFile:
    """The lines of the file `name`; what a line does not say is as in `base`.

    Each is asked for `samples` times, with seeds that follow each other.

    Raises:
        InvalidRequest: it cannot be read, is no text, or asks for nothing or for too much.
    """
    path = Path(whole_path(name))
    try:
        file, _size = open_plain(path)
        with file:
            raw = read_bytes(file, name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidRequest(f"{name} cannot be read: {reason}; give the path of a text file") from error
    return parse_jobs(raw, base, name=name, folder=path.parent, samples=samples)


def read_bytes(file: BinaryIO, name: str) -> bytes:
    """All of `file`.

    Raises:
        InvalidRequest: it is larger than what anybody writes.
    """
    raw = file.read(LIMIT_BYTES + 1)
    if len(raw) > LIMIT_BYTES:
        raise InvalidRequest(f"{name} is larger than {LIMIT_BYTES >> 20} MiB; divide it")
    return raw


def parse_jobs(raw: bytes, base: JobSpec, *, name: str, folder: Path, samples: int = 1) -> JobFile:
    """As `read_job_file`, of a file's bytes; a relative image in it lies in `folder`."""
    text, encoding = _decode(raw, name)
    meant = []
    # Not splitlines, which also breaks at characters that a prompt may hold.
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            meant.append((number, stripped))
    if not meant:
        raise InvalidRequest(f"{name} asks for nothing; write a prompt a line (# begins a remark)")
    if len(meant) * samples > BATCH_LIMIT:
        raise InvalidRequest(
            f"{name} asks for {len(meant):,} jobs{f' times {samples} samples' if samples > 1 else ''}, "
            f"and at most {BATCH_LIMIT:,} are queued at once; divide it"
        )
    as_json = name.lower().endswith(JSON_SUFFIXES) or _is_object(meant[0][1])
    if not as_json and not base.model:
        raise InvalidRequest(f"{name} names no models; choose one for its prompts")
    found: list[JobLine] = []
    for number, line in meant:
        if len(line) > LINE_LIMIT_CHARS:
            error = f"it has {len(line):,} characters and at most {LINE_LIMIT_CHARS:,} are read; shorten it"
            found.append(JobLine(number=number, text=line[:200], error=error))
            continue
        try:
            if not as_json and _is_object(line, field="prompt"):
                raise InvalidRequest(
                    "it looks like a JSON line in a file of prompts; keep one kind of line in a file"
                )
            spec = _spec_of(line, base, folder) if as_json else replace(base, prompt=line)
            if not spec.model:
                raise InvalidRequest('no model is named; write "model": "..." or choose one for all lines')
            found += [JobLine(number=number, text=spec.prompt, spec=one) for one in samples_of(spec, samples)]
        except InvalidRequest as problem:
            found.append(JobLine(number=number, text=line[:200], error=str(problem)))
    return JobFile(lines=tuple(found), encoding=encoding)


def _decode(raw: bytes, name: str) -> tuple[str, str]:
    """The text and what it was: by its mark, else UTF-8, else GBK as Chinese Windows writes it."""
    marked = next((encoding for mark, encoding in _BOMS if raw.startswith(mark)), None)
    for encoding in (marked,) if marked else ("utf-8", "gb18030"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, encoding
    raise InvalidRequest(f"{name} is no text in UTF-8, UTF-16 or GBK; save it as UTF-8")


def _is_object(line: str, *, field: str | None = None) -> bool:
    """Whether it is a JSON object, and where a `field` is named, one that has it."""
    if not line.startswith("{"):
        return False
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and (field is None or field in found)


def _spec_of(line: str, base: JobSpec, folder: Path) -> JobSpec:
    try:
        given = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        what = "it is no JSON"
        if isinstance(error, json.JSONDecodeError):
            what = f"it is no JSON at character {error.pos + 1}"
        raise InvalidRequest(f'{what}; write {{"prompt": "..."}} and what else differs') from error
    if not isinstance(given, dict):
        raise InvalidRequest('it is no JSON object; write {"prompt": "..."} and what else differs')
    if unknown := [str(key) for key in given if key not in FIELDS]:
        raise InvalidRequest(f"a job has no field {unknown[0]}; it has {', '.join(FIELDS)}")
    if not isinstance(given.get("prompt"), str):
        raise InvalidRequest('it has no prompt; write "prompt": "..."')
    if given.get("model", base.model) != base.model:
        # Another model's sizes and settings are its own.
        base = JobSpec(
            model="", prompt="", seed=base.seed, output_dir=base.output_dir, priority=base.priority
        )
    for name in ("image", "output_dir"):
        if isinstance(path := given.get(name), str):
            given[name] = whole_path(path if path.startswith(("/", "~")) else str(folder / path))
    try:
        spec = msgspec.convert(asdict(base) | given, JobSpec)
        msgspec.json.encode(spec)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{error}; write it as JSON of its kind") from error
    except UnicodeEncodeError as error:
        raise InvalidRequest("it holds half of a character; remove it") from error
    return spec


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")
