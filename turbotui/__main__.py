"""Where the command `turbotui` begins."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    arguments = sys.argv[1:]
    if arguments in ([], ["--demo"]):
        # Straight to the console: the commands and what they import would cost its first picture 0.1 s.
        from turbotui.console import open_console

        sys.exit(open_console(demo=bool(arguments), look_for_host=True))
    # What is imported stays. To look through it for garbage, over and over and once more at the
    # end of the process, took 12 of a command's 161 ms.
    gc.disable()
    from turbotui.cli import main as run_command

    gc.freeze()
    gc.enable()
    sys.exit(run_command())


if __name__ == "__main__":
    main()
