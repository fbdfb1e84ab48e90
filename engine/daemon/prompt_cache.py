"""The embeddings of earlier prompts, as a person asks about them."""

from __future__ import annotations

import asyncio

from engine.daemon.logbook import LogBook
from engine.embeddings import EmbeddingStore
from engine.units import size_text
from engine.wire import CacheCleared, CacheStatus


class PromptCache:
    """What they take, and forgetting them.

    In threads: the home of many is on a network, where looking at a thousand files takes seconds.
    """

    def __init__(self, store: EmbeddingStore, logbook: LogBook) -> None:
        self._store = store
        self._logbook = logbook

    async def status(self) -> CacheStatus:
        usage = await asyncio.to_thread(self._store.usage)
        return CacheStatus(
            folder=str(self._store.folder),
            entries=usage.entries,
            bytes=usage.bytes,
            max_bytes=self._store.max_bytes,
        )

    async def clear(self) -> CacheCleared:
        """Forget all; a running job keeps the one it has."""
        removed = await asyncio.to_thread(self._store.clear)
        folder = str(self._store.folder)
        self._logbook.write(
            "cache",
            f"cleared: {removed.entries} prompt embeddings, {size_text(removed.bytes)}, from {folder}",
        )
        return CacheCleared(folder=folder, entries=removed.entries, bytes=removed.bytes)
