"""A worker that the kernel will not end with its engine, as one is whose tether came off."""

import ctypes

PR_SET_PDEATHSIG = 1


def denoise(*_: object) -> None:
    assert ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0) == 0
