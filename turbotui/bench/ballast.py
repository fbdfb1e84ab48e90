"""A foreign process that holds so much of a GPU that only a smaller card's room is left.

    python -P -m turbotui.bench.ballast BYTES      (on the one GPU of CUDA_VISIBLE_DEVICES)

It takes memory by the driver alone, says how much is free then, and holds it until its stdin ends,
which it does with whoever started it.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.errors import InvalidRequest, WorkFailed

CHUNKS = (2**30, 64 * 2**20, 2 * 2**20)
"""Taken largest first; the driver gives memory in pieces of 2 MiB."""
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(GiB|MiB)", re.IGNORECASE | re.ASCII)


def read_room(text: str) -> int:
    """Bytes of `24564MiB` or `20 GiB`.

    Raises:
        InvalidRequest: it is no such size.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(f"--room is {text!r}; write it as 24564MiB or 20GiB")
    return int(float(found[1]) * (2**30 if found[2].lower() == "gib" else 2**20))


@contextmanager
def ballast(device_id: str, room_bytes: int) -> Iterator[int]:
    """Leave `room_bytes` of the GPU free for the length of a `with`; what is free as it begins.

    Raises:
        WorkFailed: less than that is free, or the memory cannot be taken.
    """
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "turbotui.bench.ballast", str(room_bytes)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": device_id},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        said = child.stdout.readline().strip()
        if not said.startswith("free "):
            raise WorkFailed(f"no ballast could be taken: {said or f'exit code {child.wait()}'}")
        yield int(said.removeprefix("free "))
    finally:
        child.stdin.close()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


def take(room_bytes: int, driver: Callable[..., None], free_bytes: Callable[[], int]) -> int:
    """Take memory until `room_bytes` are free; what is free then.

    Raises:
        WorkFailed: less is free already.
    """
    free = free_bytes()
    if free < room_bytes:
        free_mib, room_mib = free >> 20, room_bytes >> 20
        raise WorkFailed(f"{free_mib} MiB are free, less than the room of {room_mib} MiB")
    for chunk in CHUNKS:
        while free_bytes() - room_bytes >= chunk:
            place = ctypes.c_uint64()
            driver("cuMemAlloc_v2", ctypes.byref(place), ctypes.c_size_t(chunk))
    return free_bytes()


def hold(room_bytes: int) -> None:
    """As `take`, by this process's driver; returns when stdin has ended."""
    library = ctypes.CDLL("libcuda.so.1")

    def driver(name: str, *arguments: object) -> None:
        code = getattr(library, name)(*arguments)
        if code != 0:
            raise WorkFailed(f"{name} answered {code}")

    def free_bytes() -> int:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        driver("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    device, context = ctypes.c_int(), ctypes.c_void_p()
    driver("cuInit", ctypes.c_uint(0))
    driver("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
    driver("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    driver("cuCtxSetCurrent", context)
    print(f"free {take(room_bytes, driver, free_bytes)}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    try:
        hold(int(sys.argv[1]))
    except (WorkFailed, OSError) as error:
        print(error, flush=True)
        sys.exit(1)
