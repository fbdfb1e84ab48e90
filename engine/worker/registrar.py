"""Registers host pages with the driver, by the driver's own interface.

Through the runtime's a refusal would stay behind as "last error", and the next kernel launch would
be blamed for it.
"""

from __future__ import annotations

import ctypes

READ_ONLY = 0x08
"""CU_MEMHOSTREGISTER_READ_ONLY: pages of a file that was mapped for reading."""


class HostRegistrar:
    """Made on a thread that has a CUDA context; used from any."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._context = ctypes.c_void_p()
        self._check(self._driver.cuCtxGetCurrent(ctypes.byref(self._context)), "find its context")
        if not self._context.value:
            # torch's own context is current only once something has used it.
            device = ctypes.c_int()
            self._check(self._driver.cuDeviceGet(ctypes.byref(device), 0), "find the device")
            self._check(
                self._driver.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), device), "find its context"
            )

    def register(self, address: int, num_bytes: int) -> None:
        """Pin the pages from `address` on, read-only.

        Raises:
            OSError: the driver refuses; the text has its reason.
        """
        self._check(self._driver.cuCtxSetCurrent(self._context), "use its context")
        self._check(
            self._driver.cuMemHostRegister_v2(
                ctypes.c_void_p(address), ctypes.c_size_t(num_bytes), ctypes.c_uint(READ_ONLY)
            ),
            f"register {num_bytes} bytes",
        )

    def unregister(self, address: int) -> None:
        """Let go of what was registered from `address` on; copies from it must have ended."""
        self._check(self._driver.cuCtxSetCurrent(self._context), "use its context")
        self._check(self._driver.cuMemHostUnregister(ctypes.c_void_p(address)), "unregister")

    def _check(self, code: int, doing: str) -> None:
        if code == 0:
            return
        name = ctypes.c_char_p()
        self._driver.cuGetErrorName(code, ctypes.byref(name))
        raise OSError(f"the driver would not {doing}: {(name.value or b'?').decode()}")
