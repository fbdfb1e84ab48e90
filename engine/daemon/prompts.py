"""Whether a prompt was encoded before, so that a job with it needs no text encoder."""

from __future__ import annotations

import asyncio

from engine.embeddings import EmbeddingStore
from engine.models.model import Model


class KeptPrompts:
    """Looks for embeddings by the key that the worker keeps them under."""

    def __init__(self, store: EmbeddingStore) -> None:
        self._store = store

    async def has(self, model: Model, prompt: str, *, device_kind: str) -> bool | None:
        """Whether the worker would find the embedding of `prompt`; None where that cannot be known here.

        In a thread: the tokenizer's 20 MB are read for the key, 15 ms where they are cached.
        """
        return await asyncio.to_thread(self._look, model, prompt, device_kind)

    def _look(self, model: Model, prompt: str, device_kind: str) -> bool | None:
        if self._store.max_bytes == 0:
            return False
        from engine.models.prompts import Encoder, config_digest, digest_of, installed_libraries, prompt_key

        text = model.component("text")
        try:
            config = config_digest((text.folder / "config.json").read_bytes())
        except OSError:
            return None
        tokenizer, libraries = digest_of(model.path / "tokenizer"), installed_libraries()
        if tokenizer is None or libraries is None:
            return None
        encoder = Encoder(
            identity=text.identity, config=config, tokenizer=tokenizer, dtype=text.dtype, libraries=libraries
        )
        return self._store.holds(prompt_key(prompt, encoder, device_kind=device_kind))
