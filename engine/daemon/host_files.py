"""Weight files in host memory, where the daemon itself lets go of them: no worker has them open."""

from __future__ import annotations

import time
from collections.abc import Sequence

from engine.models import page_cache
from engine.models.model import ModelComponent
from engine.wire import Receipt


def drop_files(target: str, components: Sequence[ModelComponent]) -> Receipt:
    """Let these components' files leave the page cache; for a thread, since the kernel writes first.

    The kernel's word on the files is the proof. Nothing else of ours holds them: pages are registered
    by workers only.
    """
    began = time.monotonic()
    files = page_cache.one_name_each(path for component in components for path in component.files)
    before = page_cache.cached_bytes(files)
    page_cache.drop(files)
    after = page_cache.cached_bytes(files)
    returned = None if before is None or after is None else max(0, before - after)
    left = None if before is None or returned is None else before - returned
    return Receipt(
        action="drop_warm",
        target=target,
        ok=True,
        expected_bytes=before or 0,
        returned_bytes=returned,
        residue_bytes=left,
        residue=("pages that others map or use",) if left else (),
        elapsed_s=time.monotonic() - began,
        proof="page-cache",
        proof_reason=None if returned is not None else "the files are not ours: nobody tells us",
    )
