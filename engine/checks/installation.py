"""What `turbotui doctor` knows of an installation: gathered in a process of its own, which loads no torch.

    python -P -m engine.checks.doctor     (the caller's facts as JSON on standard input)

torch is asked in a child and NVML through a probe, each with a time, so that nothing that hangs or
crashes there takes the answer along.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import msgspec

from engine.jobs.filesystem import find_type, is_network
from engine.paths import Paths, user_name
from engine.telemetry.host import HostProbe
from engine.telemetry.procfs import clean
from engine.telemetry.samples import DeviceReading, FromProbe, HostReading, ProbeFault

TORCH_S = 120.0
"""A cold import from a network disk takes minutes at worst."""
PROBE_S = 65.0
"""Opening a driver without persistence mode takes seconds for each GPU."""
_TORCH = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda, "cudnn": None, "file": torch.__file__}
found["uuids"], found["error"] = [], None
try:
    found["cudnn"] = torch.backends.cudnn.version()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            uuid = str(torch.cuda.get_device_properties(index).uuid)
            found["uuids"].append("GPU-" + uuid.removeprefix("GPU-"))
except Exception as error:
    found["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """What only the process of the command knows."""

    engine_file: str
    cwd: str
    path: list[str]
    """Its `sys.path`."""
    pythonpath: str = ""
    """PYTHONPATH as it was started with."""
    term: str | None = None
    is_terminal: bool = False
    encoding: str = ""
    colour: str | None = None
    """COLORTERM."""
    multiplexer: str | None = None
    """`tmux` or `screen`."""


class Torch(msgspec.Struct, frozen=True, kw_only=True):
    """What torch tells of itself; `error` where it could not be asked."""

    version: str = ""
    cuda: str | None = None
    cudnn: int | None = None
    file: str = ""
    uuids: list[str] = []
    error: str | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of ours, or the nearest one above it that exists."""

    name: str
    path: str
    fs_type: str | None = None
    network: bool = False
    free_bytes: int | None = None
    writable: bool = False


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the checks look at."""

    caller: Caller
    python: str
    executable: str
    engine_file: str
    requirements: list[str] | None = None
    """As the installed distribution states them; None where it is not installed."""
    installed: dict[str, str] = {}
    """Package to version, of all that are required or were tested with."""
    tested: dict[str, str] = {}
    """Package to the version that this release was tested with; empty outside a checkout."""
    torch: Torch = Torch()
    nvml_gpus: list[tuple[str, str]] = []
    """UUID and name."""
    nvml_fault: str | None = None
    driver: str | None = None
    visible_devices: str | None = None
    """CUDA_VISIBLE_DEVICES."""
    ffmpeg: str | None = None
    """Its first line; None where it does not run."""
    ffmpeg_error: str | None = None
    memlock_bytes: int | None = None
    """None: unlimited."""
    open_files: int | None = None
    host_bytes: int = 0
    host_available_bytes: int = 0
    limited_by_cgroup: bool = False
    has_logind: bool = False
    """Whether systemd's login manager runs, which takes /run/user away."""
    lingers: bool = False
    runtime_dir: str = ""
    user: str = ""
    is_root: bool = False
    places: list[Place] = []
    sudo: str | None = None
    nvidia_smi: str | None = None
    persistence: bool | None = None
    """Whether nvidia-persistenced runs; None where that cannot be told."""


def gather(caller: Caller, paths: Paths, environ: dict[str, str]) -> Installation:
    """Look at everything; takes as long as importing torch does."""
    gpus, fault = ask_nvml(environ)
    ffmpeg, ffmpeg_error = ask_ffmpeg()
    host = HostProbe()
    host.refresh_limits()
    memory = host.read()
    requirements = _requirements()
    tested = _tested()
    names = {*(name_of(requirement) for requirement in requirements or []), *tested, "torch"}
    return Installation(
        caller=caller,
        python=platform.python_version(),
        executable=sys.executable,
        engine_file=_engine_file(),
        requirements=requirements,
        installed={name: version for name in names if (version := _version(name)) is not None},
        tested=tested,
        torch=ask_torch(environ),
        nvml_gpus=gpus,
        nvml_fault=fault,
        driver=read_driver(),
        visible_devices=environ.get("CUDA_VISIBLE_DEVICES"),
        ffmpeg=ffmpeg,
        ffmpeg_error=ffmpeg_error,
        memlock_bytes=_limit(resource.RLIMIT_MEMLOCK),
        open_files=_limit(resource.RLIMIT_NOFILE),
        host_bytes=memory.total_bytes,
        host_available_bytes=memory.available_bytes,
        limited_by_cgroup=memory.limited_by_cgroup,
        has_logind=Path("/run/systemd/seats").is_dir(),
        lingers=Path("/var/lib/systemd/linger", user_name()).exists(),
        runtime_dir=str(paths.runtime),
        user=user_name(),
        is_root=os.geteuid() == 0,
        places=[
            look_at("state", paths.state),
            look_at("models", paths.models),
            look_at("videos", paths.output),
        ],
        sudo=shutil.which("sudo"),
        nvidia_smi=shutil.which("nvidia-smi"),
        persistence=Path("/run/nvidia-persistenced/socket").exists() if gpus else None,
    )


def ask_torch(environ: dict[str, str]) -> Torch:
    """What torch tells of itself, in a child that ends again."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _TORCH],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TORCH_S,
            cwd="/",
            env={**environ, "PYTHONSAFEPATH": "1"},
        )
    except subprocess.TimeoutExpired:
        return Torch(error=f"importing it took longer than {TORCH_S:.0f} s")
    except OSError as error:
        return Torch(error=str(error))
    if done.returncode != 0:
        return Torch(error=_last_line(done.stderr) or f"importing it ended with exit code {done.returncode}")
    try:
        return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Torch)
    except (msgspec.MsgspecError, IndexError):
        return Torch(error="it printed what is no answer")


def ask_nvml(environ: dict[str, str]) -> tuple[list[tuple[str, str]], str | None]:
    """UUID and name of each GPU that NVML lists, or why it lists none; through a probe of its own."""
    found: dict[str, str] = {}
    fault: str | None = None
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "engine.telemetry.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**environ, "PYTHONSAFEPATH": "1"},
        )
    except OSError as error:
        return [], f"the probe cannot be started: {error}"
    assert child.stdin is not None and child.stdout is not None
    deadline = time.monotonic() + PROBE_S
    decoder: msgspec.json.Decoder[FromProbe] = msgspec.json.Decoder(FromProbe)
    try:
        # The probe speaks of the host ten times a second, so no line is waited for without end.
        for line in child.stdout:
            message = decoder.decode(line)
            if isinstance(message, ProbeFault):
                fault = message.detail
            elif isinstance(message, DeviceReading):
                if message.device_id in found:
                    break  # all of them were read once
                found[message.device_id] = message.name
            elif isinstance(message, HostReading) and (fault is not None or time.monotonic() > deadline):
                break
    except (msgspec.MsgspecError, OSError) as error:
        fault = f"the probe's answer is not understood: {error}"
    finally:
        with suppress(OSError):
            child.stdin.close()
        child.kill()
        with suppress(subprocess.TimeoutExpired):  # one that hangs in the driver is left behind
            child.wait(timeout=2)
        child.stdout.close()
    return list(found.items()), None if found else fault or "NVML did not answer in time"


def ask_ffmpeg() -> tuple[str | None, str | None]:
    """The first line that our ffmpeg prints of itself, or why it prints none."""
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]

        program = imageio_ffmpeg.get_ffmpeg_exe()
        done = subprocess.run(
            [program, "-version"], capture_output=True, text=True, errors="replace", timeout=20
        )
    except (ImportError, RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        return None, f"{type(error).__name__}: {error}"
    if done.returncode != 0 or not done.stdout:
        return None, _last_line(done.stderr) or f"{program} ended with exit code {done.returncode}"
    return clean(done.stdout.splitlines()[0], 120), None


def read_driver(file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The kernel driver's version; None where none is loaded or the kernel does not show it (WSL)."""
    try:
        text = file.read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+\.\d+(?:\.\d+)?)\s", text.split("\n", 1)[0] + " ")
    return found[1] if found else None


def look_at(name: str, path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> Place:
    """What holds `path`."""
    there = next((place for place in (path, *path.parents) if place.exists()), Path("/"))
    fs_type = None
    with suppress(OSError):
        fs_type = find_type(Path(os.path.realpath(there)), os.fsdecode(mountinfo.read_bytes()))
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(there).free
    return Place(
        name=name,
        path=str(path),
        fs_type=fs_type,
        network=fs_type is not None and is_network(fs_type),
        free_bytes=free,
        writable=os.access(there, os.W_OK | os.X_OK),
    )


def shadows(path: Sequence[str], cwd: str, engine_file: str) -> list[str]:
    """Folders and files named `engine`, not ours, in `cwd` or on `path`."""
    ours = Path(engine_file).parent
    found = []
    for folder in dict.fromkeys([cwd, *(entry or cwd for entry in path)]):
        for name in ("engine", "engine.py"):
            candidate = Path(folder) / name
            with suppress(OSError):
                is_module = candidate.is_file() if name.endswith(".py") else candidate.is_dir()
                if is_module and not (candidate.exists() and ours.exists() and candidate.samefile(ours)):
                    found.append(str(candidate))
    return found


def name_of(requirement: str) -> str:
    """`imageio` of `imageio[ffmpeg]>=2.37`."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _engine_file() -> str:
    from engine import paths

    return str(paths.__file__)


def _requirements() -> list[str] | None:
    try:
        stated = metadata.requires("turbotui") or []
    except metadata.PackageNotFoundError:
        return None
    return [line for line in stated if "extra ==" not in line]


def _tested() -> dict[str, str]:
    """The constraints that lie beside a checkout."""
    found = {}
    with suppress(OSError, UnicodeDecodeError):
        for line in (Path(_engine_file()).parents[1] / "constraints.txt").read_text("utf-8").splitlines():
            name, sign, version = line.partition("==")
            if sign and not line.startswith("#"):
                found[name.strip()] = version.strip()
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _limit(kind: int) -> int | None:
    soft = resource.getrlimit(kind)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return clean(lines[-1], 300) if lines else ""


def decode_caller(data: bytes) -> Caller:
    """What the command wrote.

    Raises:
        ValueError: it is no such thing.
    """
    return msgspec.convert(json.loads(data), Caller)
