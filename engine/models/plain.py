"""What loading and switching cost with plain diffusers, in a process of its own: the benchmark's other side.

Goes once through what people do today and prints one JSON line for each thing as it ends,
{"name": ..., "seconds": ..., "bytes": ...}. Weights are expected in the page cache, as for ours.

    python -P -m engine.models.plain LARGE SMALL cuda|cpu      (folders of transformers)
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

BEGAN = time.perf_counter()

import torch  # noqa: E402  # what importing takes is measured too
from diffusers import WanTransformer3DModel  # noqa: E402


def run(large_folder: str, small_folder: str, device: str) -> None:
    """Load the large net, put the small one in its place, and put it back."""
    _tell("import", time.perf_counter() - BEGAN)
    large = _timed("load", lambda: _load(large_folder).to(device))
    if device == "cpu":
        return
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in large.state_dict().values())
    small = _load(small_folder)

    began = time.perf_counter()
    _timed("to_cpu", lambda: _leave(large), num_bytes)
    small.to(device)
    torch.cuda.synchronize()
    _tell("switch_large_small", time.perf_counter() - began)

    began = time.perf_counter()
    _leave(small)
    _timed("to_cuda", lambda: large.to(device), num_bytes)
    _tell("switch_small_large", time.perf_counter() - began)


def _load(folder: str) -> Any:
    return WanTransformer3DModel.from_pretrained(folder, torch_dtype=torch.bfloat16)


def _leave(net: Any) -> None:
    net.to("cpu")
    gc.collect()
    torch.cuda.empty_cache()


def _timed(name: str, act: Callable[[], Any], num_bytes: int | None = None) -> Any:
    began = time.perf_counter()
    result = act()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    taken = time.perf_counter() - began
    if num_bytes is None and result is not None:
        num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in result.state_dict().values())
    _tell(name, taken, num_bytes)
    return result


def _tell(name: str, seconds: float, num_bytes: int | None = None) -> None:
    print(json.dumps({"name": name, "seconds": seconds, "bytes": num_bytes}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[3] not in ("cuda", "cpu"):
        print("usage: python -P -m engine.models.plain LARGE SMALL cuda|cpu", file=sys.stderr)
        sys.exit(2)
    run(*sys.argv[1:])
