"""Where a command begins."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_that_a_command_imports_is_looked_through_for_garbage() -> None:
    code = (
        "import gc, sys; sys.argv = ['turbotui', '--help']; from turbotui.__main__ import main\n"
        "before = gc.get_stats()\n"
        "try: main()\n"
        "except SystemExit as ended: print(ended.code, gc.get_stats() == before)\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 10_000)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines()[-2:] == ["0 True", "True True"]
