"""The embeddings of prompts that were encoded before, as the tensors that the encoder gave.

Turns tensors into what `engine.embeddings` keeps.
"""

from __future__ import annotations

from typing import Protocol

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from engine.embeddings import EmbeddingStore
from engine.models.dtypes import DTYPES
from engine.models.folders import TEXT
from engine.models.layout import main_dtype
from engine.models.prompts import Encoder, libraries_text, prompt_key
from engine.planning.shapes import TEXT_TOKENS
from engine.worker.backend import Backend
from engine.worker.components import Model

ROWS = "rows"
"""The one tensor of an entry: [n, D], the embedding up to its last row that is not zero."""


class Embeddings(Protocol):
    """Prompts that were encoded before."""

    def find(self, model: Model, prompt: str, backend: Backend) -> Tensor | None: ...
    def keep(self, model: Model, prompt: str, tensor: Tensor) -> str | None: ...


class _NoEmbeddings:
    """Every prompt is new."""

    def find(self, model: Model, prompt: str, backend: Backend) -> Tensor | None:
        return None

    def keep(self, model: Model, prompt: str, tensor: Tensor) -> str | None:
        return None


NO_EMBEDDINGS: Embeddings = _NoEmbeddings()


class EmbeddingCache:
    """Finds and keeps what `engine.worker.text.encode_prompt` gives. For one thread."""

    def __init__(self, store: EmbeddingStore) -> None:
        self._store = store

    def find(self, model: Model, prompt: str, backend: Backend) -> Tensor | None:
        """The embedding of `prompt` as it was kept, on the backend's device; None where it was not.

        Bit for bit what encoding gave: dtype, [1, 512, D], and zeros beyond the prompt's tokens.
        """
        key = self._key(model, prompt, backend.kind)
        data = None if key is None else self._store.get(key)
        rows_ND = None if data is None else unpack(data)
        if rows_ND is None:
            return None
        count, width = rows_ND.shape
        embedding_BLD = torch.zeros((1, TEXT_TOKENS, width), dtype=rows_ND.dtype, device=backend.device)
        embedding_BLD[0, :count].copy_(rows_ND)
        return embedding_BLD

    def keep(self, model: Model, prompt: str, tensor: Tensor) -> str | None:
        """Keep `tensor`, the embedding of `prompt` by the text encoder of `model`.

        Where nothing can be written, that is returned as one sentence, once.
        """
        key = self._key(model, prompt, tensor.device.type)
        return None if key is None else self._store.put(key, pack(tensor))

    def _key(self, model: Model, prompt: str, device_kind: str) -> str | None:
        """None where the store is off, or nobody knows what the tokenizer was read from."""
        if self._store.max_bytes == 0 or model.tokenizer_digest is None:
            return None
        text = model.components[TEXT]
        encoder = Encoder(
            identity=text.index.identity,
            config=text.config,
            tokenizer=model.tokenizer_digest,
            dtype=DTYPES[main_dtype(text.index)].name,
            libraries=libraries_text(torch=torch.__version__, transformers=transformers.__version__),
        )
        return prompt_key(prompt, encoder, device_kind=device_kind)


def pack(embedding_BLD: Tensor) -> bytes:
    """The rows of an embedding [1, 512, D] up to the last that is not zero, as safetensors."""
    rows_LD = embedding_BLD.detach()[0].cpu().contiguous()
    # Bytes, not values: a row of negative zeros is kept as it is.
    written = rows_LD.view(torch.uint8).any(dim=1).nonzero()
    count = int(written[-1]) + 1 if len(written) else 0
    packed: bytes = save({ROWS: rows_LD[:count].contiguous()})
    return packed


def unpack(data: bytes) -> Tensor | None:
    """The rows [n, D] in `data`, on the host; None where it is nothing that `pack` wrote."""
    try:
        rows: Tensor | None = load(data).get(ROWS)
    except (SafetensorError, ValueError, KeyError):
        return None
    return rows if rows is not None and rows.dim() == 2 and len(rows) <= TEXT_TOKENS else None
