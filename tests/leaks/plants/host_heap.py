"""Memory of the C library that nobody frees, as a decoder's that leaks."""

import ctypes

BYTES = 8 * 2**20
_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p


def decode(*_: object) -> None:
    address = _libc.malloc(ctypes.c_size_t(BYTES))
    ctypes.memset(address, 1, BYTES)
