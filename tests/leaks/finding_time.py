"""How long finding takes beside 100,000 live objects of Python; prints it.

python -m tests.leaks.finding_time [cpu|auto]      # the device; the emptiest GPU with auto
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.leaks.field import Field

LOOKS = 5


def main(device: str) -> None:
    """Run one job that leaves the objects and a tensor behind, and look some times."""
    with tempfile.TemporaryDirectory() as home:
        field = Field(Path(home), TURBOTUI_ENGINE_DEVICE=device)
        try:
            field.start()
            for name, grown in (("clean", ()), ("many", ("many_objects", "global_list"))):
                field.grow(*grown)
                for _ in range(LOOKS):
                    report = field.report()
                    look = field.facts().look
                    inside = "no look" if look is None else f"{look.elapsed_s:.3f} s in the worker"
                    told = [verdict.kind for verdict in report.verdicts if verdict.leak]
                    print(f"{name}: {report.objects} objects, {report.elapsed_s:.3f} s, {inside}, {told}")
        finally:
            field.live.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cpu")
