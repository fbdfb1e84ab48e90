"""The one program that may reset GPUs as root for a user who is not: its text, its place, its check.

Whoever may run it can reset GPUs and switch their persistence mode, and nothing else: it takes one of
four words and one identity of a GPU, both checked by itself, and runs fixed commands.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from engine.daemon.reset_program import find_program
from engine.wire import ResetHelper

HELPER = Path("/usr/local/libexec/turbotui-gpu-reset")
SUDOERS = "/etc/sudoers.d/turbotui-gpu-reset"

_SCRIPT = """\
#!/bin/sh
# turbotui's helper for GPU resets. Owned by root, 0755. Takes one of four words and one GPU, runs a fixed
# command (a reset, or persistence mode on or off), and nothing else. sudo's line for it has no wildcard:
# the arguments are checked here.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
unset IFS ENV BASH_ENV CDPATH LD_PRELOAD LD_LIBRARY_PATH

refuse() {
    printf 'turbotui-gpu-reset: %s\\n' "$1" >&2
    exit 2
}

[ "$#" -eq 2 ] || refuse 'give a verb and a GPU'
verb=$1
gpu=$2

# First the characters, so that no line break can hide from grep, then the whole shape.
case $gpu in
    *[!0-9A-Za-z:.-]* | '') refuse 'no GPU of that form' ;;
esac
uuid='GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'
bus='([0-9A-Fa-f]{4,8}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\\.[0-7]'
printf '%s\\n' "$gpu" | grep -Eqx "$uuid|$bus" || refuse 'no GPU of that form'

program=@PROGRAM@
[ -x "$program" ] || refuse "$program is not there"

case $verb in
    check) exit 0 ;;
    persistence-off) exec "$program" -pm 0 -i "$gpu" ;;
    persistence-on) exec "$program" -pm 1 -i "$gpu" ;;
    reset) exec "$program" --gpu-reset -i "$gpu" ;;
    *) refuse 'the verbs are check, persistence-off, persistence-on, reset' ;;
esac
"""


def helper_script(program: Path | str) -> str:
    """The helper's text, which runs `program`; its path must need no quotes.

    Raises:
        ValueError: it would.
    """
    path = str(program)
    if not path.startswith("/") or not all(c.isalnum() or c in "/._-" for c in path):
        raise ValueError(f"{path!r} cannot stand in the helper")
    return _SCRIPT.replace("@PROGRAM@", path)


def describe_helper(user: str, helper: Path) -> ResetHelper:
    """What to install for `user`, and whether it is there."""
    program = find_program(None) or "/usr/bin/nvidia-smi"
    problem = helper_problem(helper)
    return ResetHelper(
        path=str(helper),
        script=helper_script(program),
        sudoers_path=SUDOERS,
        sudoers=f"{user} ALL=(root) NOPASSWD: {helper}",
        installed=problem is None,
        problem=problem if helper.exists() else None,
    )


def helper_problem(helper: Path) -> str | None:
    """Why the helper may not be used, or None: only root may be able to change what root runs."""
    try:
        info = helper.lstat()
    except OSError:
        return f"the helper {helper} is not installed (`turbotui reset --print-helper`)"
    if not stat.S_ISREG(info.st_mode):
        return f"{helper} is no regular file, so it is not used"
    for path in (helper, *helper.parents):
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode):
            return f"{path} is a link, so the helper is not used; install it at its real place"
        if info.st_uid != 0 or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return (
                f"{path} can be changed by others than root, so the helper is not used; "
                f"`chown root:root {path} && chmod go-w {path}`"
            )
    if not os.access(helper, os.X_OK):
        return f"{helper} cannot be run; `chmod 0755 {helper}`"
    return None
