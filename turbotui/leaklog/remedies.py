"""Owns what gives memory back in the program that wrote a log: its own buttons, requests and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from engine.wire import Remedy, RemedyAction
from turbotui.leaklog.scan import Program

Trouble: TypeAlias = Literal["stayed", "growth", "cache", "component", "fragmented", "room", "others", "port"]

ACTIONS: Mapping[Trouble, RemedyAction] = {
    "stayed": "cleanup",
    "growth": "cleanup",
    "cache": "free",
    "component": "unload",
    "fragmented": "cleanup",
    "room": "unload",
    "others": "kill",
    "port": "kill",
}
"""What our own engine has for each."""

_RESTART = 'Press "restart application": only the end of its process gives this back.'
_SMALLER = "Take a smaller picture or resolution, or fewer frames: an 8K input alone took 11 GB in a VAE."
_EXPANDABLE = (
    "Start it with PYTORCH_ALLOC_CONF=expandable_segments:True (of old, "
    "PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:128), so that its cache fits what is asked for."
)
_OTHERS = "End the other program, or have its owner do so; one card holds one of them."
_PORT = (
    "Find who has the port, look at what it is, and end that one process; another start would only take "
    "a second share of the card."
)

TEXTS: Mapping[Program, Mapping[Trouble, str]] = {
    "webui": {
        "stayed": _RESTART,
        "growth": 'Press "restart application" between jobs until what grows is mended.',
        "cache": 'Press the soft unload\'s button, which empties the cache; "empty_cache" typed in another '
        "process does nothing here.",
        "component": "Unload it with its button, and load the UNet only where no other part is needed.",
        "fragmented": _EXPANDABLE,
        "room": _SMALLER,
        "others": _OTHERS,
        "port": 'Press "open application", which uses the one that runs; else find who has the port and end '
        "that one process.",
    },
    "comfyui": {
        "stayed": 'Press "Free model and node cache"; what is left after that goes with its process alone.',
        "growth": "Restart it between jobs until what grows is mended: custom nodes are the usual holders.",
        "cache": 'Press "Free model and node cache", or have its API do so.',
        "component": 'Press "Unload models", or start it with --disable-smart-memory, so that none stays.',
        "fragmented": _EXPANDABLE,
        "room": "Start it with --lowvram, or take a smaller resolution or fewer frames.",
        "others": _OTHERS,
        "port": _PORT,
    },
    "pytorch": {
        "stayed": "Drop the last names of the model in that process, then gc.collect() and "
        "torch.cuda.empty_cache() there; else end the process.",
        "growth": "Look for a list, a closure or an exception that keeps tensors from job to job; the end of "
        "the process gives all of it back.",
        "cache": "Call torch.cuda.empty_cache() in that process; in another it does nothing.",
        "component": "Delete the model and call torch.cuda.empty_cache() in that process.",
        "fragmented": _EXPANDABLE,
        "room": "Take a smaller batch or resolution, or move what is not in use to the CPU.",
        "others": _OTHERS,
        "port": _PORT,
    },
    "turbotui": {
        "stayed": "End the worker, which gives back all that it holds, and start a fresh one.",
        "growth": "End the worker between jobs; `turbotui leaks` names who holds it while it runs.",
        "cache": "Empty the cache; it is safe under a running job.",
        "component": "Unload it; it comes back in seconds when it is needed.",
        "fragmented": "End the worker: a fresh one has no cache in pieces.",
        "room": "Take a smaller resolution or fewer frames; `turbotui explain` tells the peak before.",
        "others": "End the other program, or give the engine a budget below what that one needs.",
        "port": _PORT,
    },
}
COMMANDS: Mapping[Program, Mapping[Trouble, str]] = {
    "webui": {},
    "comfyui": {
        "cache": "curl -X POST http://127.0.0.1:8188/free -H 'Content-Type: application/json' "
        """-d '{"unload_models": true, "free_memory": true}'""",
    },
    "pytorch": {},
    "turbotui": {
        "stayed": "turbotui cleanup",
        "growth": "turbotui cleanup",
        "cache": "turbotui free",
        "component": "turbotui unload",
        "fragmented": "turbotui cleanup",
    },
}


def remedy(
    trouble: Trouble, program: Program, num_bytes: int | None = None, *, command: str | None = None
) -> Remedy:
    """The cheapest there is in that program; `num_bytes` is what it should return."""
    return Remedy(
        action=ACTIONS[trouble],
        text=TEXTS[program][trouble],
        command=command or COMMANDS[program].get(trouble),
        predicted_bytes=num_bytes,
    )
