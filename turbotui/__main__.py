"""Where the command `turbotui` begins."""

from __future__ import annotations

import sys

from turbotui import garbage


def main() -> None:
    garbage.hold()
    arguments = sys.argv[1:]
    if arguments in ([], ["--demo"]):
        # Straight to the console: the commands and what they import would cost its first picture 0.1 s.
        from turbotui.console import open_console

        sys.exit(open_console(demo=bool(arguments), look_for_host=True))
    from turbotui.cli import main as run_command

    garbage.go_on()
    sys.exit(run_command())


if __name__ == "__main__":
    main()
