"""The device's context and the host pages that it knows, by the driver's own interface.

Through the runtime's a refusal to register would stay behind as "last error", and the next kernel
launch would be blamed for it.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

READ_ONLY = 0x08
"""CU_MEMHOSTREGISTER_READ_ONLY: pages of a file that was mapped for reading."""


def make_context() -> None:
    """Make the context of the first visible device, which torch will share.

    Through torch it would stop every other thread of Python for 0.2 s, and for as long as another
    process is ending on the device. A failure is left for torch to find and to explain.
    """
    with suppress(OSError):
        _retain_context(_load_driver())


class HostRegistrar:
    """Of the first visible device's context; used from any thread, once there is a context."""

    def __init__(self) -> None:
        self._driver: ctypes.CDLL | None = None
        self._context = ctypes.c_void_p()

    def register(self, address: int, num_bytes: int, *, read_only: bool = True) -> None:
        """Pin the pages from `address` on; those of a file can only be pinned read-only.

        Raises:
            OSError: the driver refuses; the text has its reason.
        """
        driver = self._bind()
        _check(
            driver,
            driver.cuMemHostRegister_v2(
                ctypes.c_void_p(address),
                ctypes.c_size_t(num_bytes),
                ctypes.c_uint(READ_ONLY if read_only else 0),
            ),
            f"register {num_bytes} bytes",
        )

    def unregister(self, address: int) -> None:
        """Let go of what was registered from `address` on; copies from it must have ended."""
        driver = self._bind()
        _check(driver, driver.cuMemHostUnregister(ctypes.c_void_p(address)), "unregister")

    def _bind(self) -> ctypes.CDLL:
        """The driver, with the context made current on this thread."""
        if self._driver is None:
            driver = _load_driver()
            self._context, self._driver = _retain_context(driver), driver
        _check(self._driver, self._driver.cuCtxSetCurrent(self._context), "use its context")
        return self._driver


def _load_driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _retain_context(driver: ctypes.CDLL) -> ctypes.c_void_p:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _check(driver, driver.cuInit(0), "start")
    _check(driver, driver.cuDeviceGet(ctypes.byref(device), 0), "find the device")
    _check(driver, driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "make a context")
    return context


def _check(driver: ctypes.CDLL, code: int, doing: str) -> None:
    if code == 0:
        return
    name = ctypes.c_char_p()
    driver.cuGetErrorName(code, ctypes.byref(name))
    raise OSError(f"the driver would not {doing}: {(name.value or b'?').decode()}")
