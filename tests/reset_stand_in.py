"""A program that a test writes in the place of the one that resets GPUs. It touches no GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

UUID = "GPU-0a1b2c3d-1111-2222-3333-444455556666"
BUS_ID = "00000000:1A:00.0"

_PROGRAM = """\
#!{python}
import json, os, sys, time
place = {place!r}
state = json.load(open(place))
args = sys.argv[1:]
with open(place + ".calls", "a") as calls:
    print(json.dumps({{"args": args, "env": sorted(os.environ)}}), file=calls)

def end(code, text="", sleep=0.0):
    print(text, flush=True)
    time.sleep(sleep)
    sys.exit(code)

if args[0].startswith("--query-gpu="):
    if state["query_code"]:
        end(state["query_code"], state["query_text"])
    fields = args[0].partition("=")[2].split(",")
    unknown = [field for field in fields if field not in state["gpu"]]
    if unknown:
        end(2, 'Field "%s" is not a valid field to query.' % unknown[0])
    end(0, ", ".join(str(state["gpu"][field]) for field in fields))
if args[0] == "nvlink":
    end(state["nvlink_code"], state["nvlink_text"])
if args[0] == "-pm":
    code = state["pm_codes"].get(args[1], 0)
    if code == 0:
        state["gpu"]["persistence_mode"] = "Enabled" if args[1] == "1" else "Disabled"
        json.dump(state, open(place, "w"))
    end(code, state["pm_text"])
if args[0] == "--gpu-reset":
    if state["reset_code"] == 0:
        state["gpu"]["memory.used"] = state["used_after"]
        json.dump(state, open(place, "w"))
    end(state["reset_code"], state["reset_text"], state["reset_sleep"])
end(2, "what is " + args[0])
"""


class ResetStandIn:
    """Its answers are in `state`, which a test changes before it is asked."""

    def __init__(self, folder: Path, **gpu: Any) -> None:
        self.path = folder / "reset-stand-in"
        self._place = folder / "reset-stand-in.json"
        self.state: dict[str, Any] = {
            "gpu": {
                "uuid": UUID,
                "index": 3,
                "name": "Fake 80GB",
                "pci.bus_id": BUS_ID,
                "persistence_mode": "Disabled",
                "display_active": "Disabled",
                "mig.mode.current": "Disabled",
                "compute_cap": 9.0,
                "memory.used": 40 * 1024,
                "gpu_recovery_action": "None",
                **gpu,
            },
            "query_code": 0,
            "query_text": "",
            "nvlink_code": 0,
            "nvlink_text": "GPU 0: Fake",
            "pm_codes": {},
            "pm_text": "All done.",
            "reset_code": 0,
            "reset_text": f"GPU {BUS_ID} was successfully reset.",
            "reset_sleep": 0.0,
            "used_after": 1,
        }
        self.path.write_text(_PROGRAM.format(python=sys.executable, place=str(self._place)))
        self.path.chmod(0o755)
        self.set()

    def set(self, **changes: Any) -> None:
        """Answer otherwise from now on; `gpu` is merged."""
        if self._place.exists():
            self.state = json.loads(self._place.read_text())
        gpu = {**self.state["gpu"], **changes.pop("gpu", {})}
        self.state = {**self.state, **changes, "gpu": gpu}
        self._place.write_text(json.dumps(self.state))

    def forget(self, *fields: str) -> None:
        """Be of an old driver, which does not know these."""
        for field in fields:
            del self.state["gpu"][field]
        self._place.write_text(json.dumps(self.state))

    def calls(self) -> list[list[str]]:
        """The arguments of every run so far."""
        return [call["args"] for call in self._calls()]

    def deeds(self) -> list[list[str]]:
        """Those of the runs that were no mere question."""
        return [args for args in self.calls() if args[0] in ("-pm", "--gpu-reset")]

    def environments(self) -> list[list[str]]:
        """The names of the variables that each run had."""
        return [call["env"] for call in self._calls()]

    def _calls(self) -> list[dict[str, Any]]:
        place = Path(f"{self._place}.calls")
        return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []
