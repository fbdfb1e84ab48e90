"""What the reset program's exit code and words mean, and what to do next. Pure.

Source: the exit codes are nvidia-smi's documented ones; its words have no promise of staying as they
are, so they are matched loosely and always shown raw as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SUCCESS = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """One thing that the program said."""

    meaning: str
    then: str
    """What to do next."""


EXIT_CODES: dict[int, Meaning] = {
    0: Meaning(meaning="it succeeded", then="nothing; the health after it was looked at"),
    2: Meaning(
        meaning="an argument or flag is invalid",
        then="this driver's nvidia-smi knows another syntax; run the command by hand and see its --help",
    ),
    3: Meaning(
        meaning="the reset is not available on this device",
        then="this kind of GPU or its mode allows none: end the processes on it, or restart the host",
    ),
    4: Meaning(
        meaning="the permission is missing",
        then="a reset needs root: install the helper (`turbotui reset --print-helper`), or ask the admin",
    ),
    6: Meaning(
        meaning="the driver found no such GPU",
        then="see `nvidia-smi -L`; a GPU that is missing there has fallen off the bus: restart the host",
    ),
    9: Meaning(
        meaning="the driver is not loaded",
        then="load it (`modprobe nvidia`), or restart the host; a reset cannot help",
    ),
    10: Meaning(
        meaning="the kernel found an interrupt problem with a GPU",
        then="a reset cannot mend it: look into `dmesg`, then restart the host",
    ),
    12: Meaning(
        meaning="the NVML library was not found or cannot be loaded",
        then="install the driver's user-space libraries of the same version as its kernel module",
    ),
    13: Meaning(
        meaning="this NVML library does not have the function",
        then="the library and the program are of different driver versions: make them one",
    ),
    14: Meaning(
        meaning="the GPU's infoROM is corrupted",
        then="a reset cannot mend it; the vendor has to look at the card",
    ),
    15: Meaning(
        meaning="the GPU has fallen off the bus or is inaccessible",
        then="no reset by software reaches it: restart the host, with its power off where that is not enough",
    ),
    255: Meaning(
        meaning="another error or an internal driver error",
        then="its words say more; where they do not, look into `dmesg` and ask again once",
    ),
}
"""nvidia-smi's documented ones."""

MESSAGES: tuple[tuple[re.Pattern[str], Meaning], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), Meaning(meaning=meaning, then=then))
    for pattern, meaning, then in (
        (
            r"sudo: .*password is required|sudo: .*may not run|not in the sudoers|not allowed to execute",
            "sudo does not let us run the helper without a password",
            "its sudoers line is missing or names another user: `turbotui reset --print-helper` shows it",
        ),
        (
            r"couldn.t run because .*primary GPU|is the primary GPU",
            "the GPU drives the display, and the driver resets no primary GPU",
            "stop the display manager first (`systemctl isolate multi-user.target`), or restart the host",
        ),
        (
            r"in use by another client|being used by one or more other processes|in use by another process",
            "another process holds the GPU: a CUDA or graphics program, Fabric Manager, or a monitor such "
            "as another nvidia-smi",
            "look again who holds it (`turbotui reset GPU --plan`, as root to see everybody), end that, and "
            "ask again; monitors of containers and exporters count too",
        ),
        (
            r"nvlink|peer",
            "the GPU is linked with others, which have to be reset in the same command",
            "reset them together by hand, with nothing running on any of them, or restart the host",
        ),
        (
            r"insufficient permission|permission denied|must be root|not permitted",
            "the permission is missing",
            "a reset needs root: install the helper (`turbotui reset --print-helper`), or ask the admin",
        ),
        (
            r"GPU is lost|fallen off the bus",
            "the GPU is lost to the driver",
            "no reset by software reaches it: restart the host",
        ),
        (
            r"not supported|not available",
            "the driver supports no reset of this GPU in its present mode",
            "end the processes on it, or restart the host",
        ),
    )
)
"""The first that matches counts."""
WENT_WELL = re.compile(r"successfully reset", re.IGNORECASE)
FAILED = re.compile(r"could not be reset|couldn.t run|cannot be reset|unable to reset", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A reset's end in words."""

    ok: bool
    """By code and words together; whether the GPU is sound again only a look tells."""
    sentence: str


def explain(code: int, text: str) -> Told:
    """What exit code and output of a reset say together.

    A negative code is the number of the signal that ended the program.
    """
    failed = next((meaning for pattern, meaning in MESSAGES if pattern.search(text)), None)
    if code == SUCCESS:
        if FAILED.search(text):
            failed = failed or Meaning(meaning="its words say that it failed", then=EXIT_CODES[255].then)
            return Told(ok=False, sentence=f"exit code 0, but {failed.meaning}; {failed.then}")
        said = "and says that the GPU was reset" if WENT_WELL.search(text) else "without saying what it did"
        return Told(ok=True, sentence=f"exit code 0: it succeeded, {said}")
    if code < 0:
        return Told(
            ok=False,
            sentence=f"it was ended by signal {-code}; whether the GPU was reset is unknown: look at its "
            "health, and ask again",
        )
    by_code = EXIT_CODES.get(code)
    if failed is not None:
        also = f" ({by_code.meaning})" if by_code else ""
        return Told(ok=False, sentence=f"exit code {code}{also}: {failed.meaning}; {failed.then}")
    if by_code is not None:
        return Told(ok=False, sentence=f"exit code {code}: {by_code.meaning}; {by_code.then}")
    return Told(
        ok=False, sentence=f"exit code {code}, which is documented nowhere; its own words are all there is"
    )
