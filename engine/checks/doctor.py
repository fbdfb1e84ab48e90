"""The lines of `turbotui doctor`: pure checks over the facts of an installation, each with its fix."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from shlex import quote

import msgspec

from engine.checks.installation import Caller, Installation, decode_caller, gather, name_of, shadows
from engine.checks.worker import CUDNN_LEAST, TORCH_CONCERNED
from engine.paths import find_paths
from engine.units import GIB, MIB, size_text
from engine.wire import InstallationLine

PYTHON_LEAST = (3, 11)
TORCH_LEAST = (2, 10)
"""Older ones run code out of a checkpoint. Source: CVE-2026-24747."""
DRIVER_LEAST = {11: (450,), 12: (525, 60), 13: (580,)}
"""CUDA's major version to the oldest Linux driver that runs it. Source: CUDA release notes, minor-version
compatibility."""
MEMLOCK_LEAST = 8 * MIB
OPEN_FILES_LEAST = 1024
HOST_LEAST = 16 * GIB
DISK_PROBLEM, DISK_NOTE = GIB, 20 * GIB
_OPERATORS = re.compile(r"(>=|<=|==|!=|~=|<|>)\s*([\w.*+!-]+)")


def examine(facts: Installation) -> list[InstallationLine]:
    """Every line, in the order in which one thing rests on another."""
    return [line for check in CHECKS for line in check(facts)]


def _python(facts: Installation) -> Iterator[InstallationLine]:
    if _numbers(facts.python)[:2] < PYTHON_LEAST:
        yield _problem(
            "python", f"Python {facts.python} is too old; 3.11 is needed", "make run PYTHON=python3.12"
        )
    else:
        yield _ok("python", f"Python {facts.python}, {facts.executable}")


def _engine(facts: Installation) -> Iterator[InstallationLine]:
    """Whose `engine` is imported."""
    caller = facts.caller
    if os.path.dirname(facts.engine_file) != os.path.dirname(os.path.dirname(caller.engine_file)):
        yield _problem(
            "engine",
            f"the command imports engine from {caller.engine_file}, its children from {facts.engine_file}",
            _without(caller, os.path.dirname(os.path.dirname(os.path.dirname(caller.engine_file)))),
        )
        return
    others = shadows(caller.path, caller.cwd, facts.engine_file)
    if others:
        yield _note(
            "engine",
            f"another engine could be imported in our place: {', '.join(others[:3])}; "
            f"ours is {facts.engine_file}. turbotui starts its processes so that they do not look there",
            _without(caller, os.path.dirname(others[0])),
        )
    else:
        yield _ok(
            "engine", f"imported from {os.path.dirname(facts.engine_file)}, and nothing else has that name"
        )


def _without(caller: Caller, folder: str) -> str:
    """What keeps Python from looking into `folder`, and leaves all else where it looks as it is.

    An installation may itself be found by PYTHONPATH, so that is never emptied of more than this.
    """
    named = caller.pythonpath.split(os.pathsep) if caller.pythonpath else []
    kept = [entry for entry in named if not _is_same(entry or caller.cwd, folder)]
    if len(kept) < len(named):
        return f"export PYTHONPATH={quote(os.pathsep.join(kept))}" if kept else "unset PYTHONPATH"
    if _is_same(caller.cwd, folder):
        return "cd ~"
    return f"{quote(sys.executable)} -m site   # who puts {quote(folder)} there"


def _is_same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _packages(facts: Installation) -> Iterator[InstallationLine]:
    if facts.requirements is None:
        yield _note(
            "packages", "turbotui is not installed as a package, so nothing says what it needs", "make run"
        )
        return
    wrong = []
    for requirement in facts.requirements:
        name = name_of(requirement)
        version = facts.installed.get(name)
        if version is None:
            wrong.append(f"{name} is missing")
        elif not satisfies(version, requirement):
            wrong.append(f"{name} is {version}, needed {requirement.partition(';')[0].strip()}")
    if wrong:
        yield _problem(
            "packages", "; ".join(wrong), f"{quote(facts.executable)} -m pip install -c constraints.txt -e ."
        )
        return
    other = [
        f"{name} {facts.installed[name]} (tested {version})"
        for name, version in sorted(facts.tested.items())
        if name in facts.installed and facts.installed[name] != version
    ]
    if other:
        more = f" and {len(other) - 4} more" if len(other) > 4 else ""
        yield _note(
            "packages",
            f"all that is needed is there; of other versions than tested: {', '.join(other[:4])}{more}",
            f"{quote(facts.executable)} -m pip install -c constraints.txt -e .",
        )
    else:
        yield _ok("packages", f"{len(facts.requirements)} packages as needed")


def _torch(facts: Installation) -> Iterator[InstallationLine]:
    torch = facts.torch
    if not torch.version:
        yield _problem("torch", f"torch cannot be used: {torch.error}", "make run TORCH='torch>=2.10'")
        return
    told = f"torch {torch.version}, " + (f"CUDA {torch.cuda}" if torch.cuda else "without CUDA")
    if _numbers(torch.version)[:2] < TORCH_LEAST:
        yield _problem(
            "torch",
            f"{told}: 2.10 is needed, older ones run code out of checkpoints",
            "make run TORCH='torch>=2.10'",
        )
    elif facts.nvml_gpus and not torch.cuda:
        yield _problem(
            "torch",
            f"{told}, while there are GPUs: the engine would refuse them",
            "make run TORCH='torch>=2.10'",
        )
    else:
        yield _ok("torch", told)
    cudnn = torch.cudnn
    if facts.nvml_gpus and cudnn and cudnn < CUDNN_LEAST and _numbers(torch.version)[:2] >= TORCH_CONCERNED:
        major = (torch.cuda or "12").partition(".")[0]
        yield _problem(
            "cudnn",
            f"cuDNN {cudnn} makes the VAE take three times its memory in bf16; {CUDNN_LEAST} is needed",
            f"{quote(facts.executable)} -m pip install 'nvidia-cudnn-cu{major}>=9.15'",
        )


def _gpus(facts: Installation) -> Iterator[InstallationLine]:
    """NVML's GPUs, and whether torch sees the same ones."""
    if not facts.nvml_gpus and facts.driver is not None:
        yield _problem("gpu", f"driver {facts.driver} is loaded, but: {facts.nvml_fault}", "nvidia-smi")
        return
    if not facts.nvml_gpus:
        yield _note(
            "gpu", f"no GPU: {facts.nvml_fault or 'NVML lists none'}; models then run on the CPU", None
        )
        return
    listed = dict(facts.nvml_gpus)
    names = ", ".join(f"{name} {uuid[:12]}" for uuid, name in facts.nvml_gpus)
    if not facts.torch.version or not facts.torch.cuda:
        yield _note("gpu", f"NVML lists {names}; torch cannot be asked", None)
        return
    if facts.torch.error:
        yield _problem("gpu", f"NVML lists {names}; torch fails on them: {facts.torch.error}", "nvidia-smi")
        return
    seen = set(facts.torch.uuids)
    if strangers := seen - set(listed):
        yield _problem(
            "gpu",
            f"torch sees {', '.join(sorted(strangers))}, which NVML does not list; nothing can be proved",
            None,
        )
    elif facts.visible_devices is None and seen != set(listed):
        missing = ", ".join(sorted(set(listed) - seen))
        yield _problem("gpu", f"NVML lists {missing}, which torch does not see", "nvidia-smi -q -d COMPUTE")
    elif not seen:
        yield _note(
            "gpu",
            f"CUDA_VISIBLE_DEVICES={facts.visible_devices!r} hides every GPU from torch; NVML lists {names}",
            "unset CUDA_VISIBLE_DEVICES",
        )
    else:
        yield _ok("gpu", f"torch sees {len(seen)} of the {len(listed)} GPUs that NVML lists: {names}")


def _driver(facts: Installation) -> Iterator[InstallationLine]:
    if not facts.nvml_gpus and facts.driver is None:
        return
    if facts.driver is None:
        yield _note("driver", "the kernel does not tell the driver's version (WSL?)", None)
        return
    cuda = facts.torch.cuda
    least = DRIVER_LEAST.get(_numbers(cuda)[0]) if cuda else None
    if least is not None and _numbers(facts.driver)[: len(least)] < least:
        needed = ".".join(map(str, least))
        yield _problem(
            "driver",
            f"driver {facts.driver} is too old for torch's CUDA {cuda}, which needs {needed}",
            "make run TORCH=...  # one built for an older CUDA, or have the driver updated",
        )
    else:
        yield _ok("driver", f"driver {facts.driver}" + (f", new enough for CUDA {cuda}" if least else ""))
    if facts.persistence is False:
        yield _note(
            "persistence",
            "nvidia-persistenced does not run, so the first context after a rest may take seconds "
            "(persistence mode may be set by hand: nvidia-smi -q -d PERFORMANCE tells)",
            "sudo systemctl enable --now nvidia-persistenced",
        )


def _ffmpeg(facts: Installation) -> Iterator[InstallationLine]:
    if facts.ffmpeg is None:
        fix = f"{quote(facts.executable)} -m pip install 'imageio[ffmpeg]'"
        yield _problem(
            "ffmpeg", f"ffmpeg does not run, so no video can be written: {facts.ffmpeg_error}", fix
        )
    else:
        yield _ok("ffmpeg", facts.ffmpeg)


def _limits(facts: Installation) -> Iterator[InstallationLine]:
    if facts.memlock_bytes is not None and facts.memlock_bytes < MEMLOCK_LEAST:
        yield _note(
            "memlock",
            f"only {size_text(facts.memlock_bytes)} may be locked; some drivers then refuse to register "
            "weight files, and loads are slower",
            "ulimit -l unlimited",
        )
    else:
        size = "unlimited" if facts.memlock_bytes is None else size_text(facts.memlock_bytes)
        yield _ok("memlock", f"locked memory: {size}")
    if facts.open_files is not None and facts.open_files < OPEN_FILES_LEAST:
        yield _note("files", f"only {facts.open_files} files may be open", f"ulimit -n {OPEN_FILES_LEAST}")
    else:
        yield _ok("files", f"open files: {facts.open_files or 'unlimited'}")
    where = "the cgroup's limit" if facts.limited_by_cgroup else "this host's"
    told = f"{size_text(facts.host_bytes)} ({where}), {size_text(facts.host_available_bytes)} available"
    if facts.host_bytes < HOST_LEAST:
        yield _note("memory", f"host memory: {told}; a 14B model does not stay warm in that", None)
    else:
        yield _ok("memory", f"host memory: {told}")


def _linger(facts: Installation) -> Iterator[InstallationLine]:
    """Whether a logout takes the socket, and the engine with it."""
    if not facts.has_logind:
        yield _ok("linger", "no login manager takes anything away at logout")
    elif not facts.runtime_dir.startswith("/run/user/"):
        yield _ok("linger", f"the socket's folder {facts.runtime_dir} is none that a logout takes away")
    elif facts.lingers:
        yield _ok("linger", f"{facts.user} lingers: a logout leaves the engine and its socket alone")
    else:
        yield _note(
            "linger",
            f"{facts.runtime_dir} goes, with the engine's socket, when {facts.user}'s last login ends; the "
            "socket is made again, but logind may end the engine, too (KillUserProcesses)",
            f"loginctl enable-linger {quote(facts.user)}",
        )


def _places(facts: Installation) -> Iterator[InstallationLine]:
    for place in facts.places:
        free = "free bytes unknown" if place.free_bytes is None else f"{size_text(place.free_bytes)} free"
        told = f"{place.name} in {place.path} on {place.fs_type or 'an unknown file system'}, {free}"
        if not place.writable:
            yield _problem(
                place.name,
                f"{told}; it cannot be written",
                f"ls -ld {quote(place.path)}; echo $TURBOTUI_HOME",
            )
        elif place.free_bytes is not None and place.free_bytes < DISK_PROBLEM:
            yield _problem(place.name, f"{told}; that is too little", f"df -h {quote(place.path)}")
        elif place.network:
            slow = "it works without WAL" if place.name == "state" else "first loads take the network's time"
            yield _note(
                place.name, f"{told}, over the network: {slow}", "export TURBOTUI_HOME=/a/local/folder"
            )
        elif place.name != "state" and place.free_bytes is not None and place.free_bytes < DISK_NOTE:
            yield _note(place.name, f"{told}; a 14B model takes 28 GB", f"df -h {quote(place.path)}")
        else:
            yield _ok(place.name, told)


def _reset(facts: Installation) -> Iterator[InstallationLine]:
    """What a GPU reset needs; nothing is tried."""
    if not facts.nvml_gpus:
        return
    if facts.nvidia_smi is None:
        yield _note("reset", "nvidia-smi is not there, so a GPU cannot be reset from here", None)
    elif facts.is_root or facts.sudo is not None:
        how = "as root" if facts.is_root else "through sudo, where that is allowed"
        yield _ok("reset", f"{facts.nvidia_smi} could reset a GPU {how}")
    else:
        yield _note("reset", "a GPU reset needs root, and sudo is not there", None)


def _terminal(facts: Installation) -> Iterator[InstallationLine]:
    caller = facts.caller
    if not caller.is_terminal:
        yield _ok("terminal", "the output is no terminal, so none was looked at")
        return
    told = f"{caller.term or 'no TERM'}, {caller.encoding}" + (
        f", in {caller.multiplexer}" if caller.multiplexer else ""
    )
    if not caller.term or caller.term == "dumb":
        yield _problem("terminal", f"{told}: the console cannot draw", "export TERM=xterm-256color")
    elif caller.encoding.replace("-", "").lower() != "utf8":
        yield _note("terminal", f"{told}: only ASCII is drawn", "export LC_ALL=C.UTF-8")
    elif not caller.colour and "256color" not in caller.term:
        yield _note("terminal", f"{told}, 16 colours", "export TERM=xterm-256color")
    else:
        yield _ok("terminal", told)


CHECKS: tuple[Callable[[Installation], Iterator[InstallationLine]], ...] = (
    _python,
    _engine,
    _packages,
    _torch,
    _gpus,
    _driver,
    _ffmpeg,
    _limits,
    _linger,
    _places,
    _reset,
    _terminal,
)


def satisfies(version: str, requirement: str) -> bool:
    """Whether `version` is one that `requirement` takes; signs that are not understood refuse nothing."""
    have = _numbers(version)
    for sign, wanted in _OPERATORS.findall(requirement.partition(";")[0]):
        least = _numbers(wanted)
        length = max(len(have), len(least))
        one, other = (numbers + (0,) * (length - len(numbers)) for numbers in (have, least))
        held = {
            ">=": one >= other,
            "<=": one <= other,
            ">": one > other,
            "<": one < other,
            "==": one == other or "*" in wanted,
            "!=": one != other or "*" in wanted,
        }.get(sign, True)
        if not held:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """`2.10.0+cu130` as (2, 10, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(number) for number in found[0].split(".")) if found else (0,)


def _ok(name: str, text: str) -> InstallationLine:
    return InstallationLine(name=name, state="ok", text=text)


def _note(name: str, text: str, fix: str | None) -> InstallationLine:
    return InstallationLine(name=name, state="note", text=text, fix=fix)


def _problem(name: str, text: str, fix: str | None) -> InstallationLine:
    return InstallationLine(name=name, state="problem", text=text, fix=fix)


def main() -> int:
    """Read the caller's facts, look, and write the lines as JSON."""
    caller = decode_caller(sys.stdin.buffer.read())
    lines = examine(gather(caller, find_paths(), dict(os.environ)))
    sys.stdout.buffer.write(msgspec.json.encode(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
