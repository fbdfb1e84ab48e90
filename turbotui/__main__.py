"""Where the command `turbotui` begins."""

from __future__ import annotations

import sys

from turbotui.cli import main as run_command


def main() -> None:
    sys.exit(run_command())


if __name__ == "__main__":
    main()
