"""What the embedding of a prompt depends on: the prompt as it is cleaned, and the text encoder.

The worker keeps embeddings by it and the daemon looks for them by it, so both must come to the
same key. Imports no torch; ftfy takes 40 ms, so the daemon imports this when it is first needed.
"""

from __future__ import annotations

import hashlib
import html
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import ftfy

from engine.embeddings import embedding_key
from engine.planning.shapes import TEXT_TOKENS

CLEANING_VERSION = 2
"""Raised whenever `clean_prompt`, the worker's `encode_prompt` or its umT5 makes something else of a prompt,
so that no embedding from before is taken for its own. 2: umT5 rounds where the reference does."""
_VERSION = re.compile(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """A text encoder, as far as that decides what it makes of a prompt."""

    identity: str
    """Of its weights, as `ComponentIndex.identity`."""
    config: str
    """`config_digest` of its folder."""
    tokenizer: str
    """`digest_of` the tokenizer's folder."""
    dtype: str
    """In which it computes, such as `bfloat16`."""
    libraries: str
    """`libraries_text`: kernels of another torch add in another order, a manifest names the versions
    that made its video, and a configuration means what transformers makes of it."""


def prompt_key(prompt: str, encoder: Encoder, *, device_kind: str) -> str:
    """The key under which the embedding of `prompt` is kept, as `engine.embeddings` wants it."""
    return embedding_key(
        encoder=f"{encoder.identity} config {encoder.config} {encoder.libraries}",
        tokenizer=encoder.tokenizer,
        cleaning=CLEANING_VERSION,
        length=TEXT_TOKENS,
        dtype=encoder.dtype,
        device_kind=device_kind,
        # As the encoder sees it: spaces that cleaning takes away make no other embedding.
        prompt=clean_prompt(prompt),
    )


def clean_prompt(prompt: str) -> str:
    """`prompt` as the models were trained on it: repaired text, no HTML escapes, single spaces.

    Source: Wan2.1 wan/modules/tokenizers.py, as TurboDiffusion uses it.
    """
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text).strip()


def libraries_text(*, torch: str, transformers: str) -> str:
    """The versions of what computes an embedding."""
    return f"torch {torch} transformers {transformers}"


def installed_libraries() -> str | None:
    """`libraries_text` of what a worker would import, without importing it; None where nobody can tell.

    Not torch's metadata: that lacks the build's name, such as `+cu128`, which its own version has.
    """
    try:
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.origin is None:
            return None
        found = _VERSION.search(Path(spec.origin).with_name("version.py").read_text("utf-8"))
        transformers = importlib.metadata.version("transformers")
    except (OSError, UnicodeDecodeError, ValueError, importlib.metadata.PackageNotFoundError):
        return None
    return None if found is None else libraries_text(torch=found[1], transformers=transformers)


def config_digest(config: bytes) -> str:
    """`sha256:` of an encoder's config.json."""
    return f"sha256:{hashlib.sha256(config).hexdigest()}"


def digest_of(folder: Path) -> str | None:
    """`sha256:` of the names and bytes of the files in `folder`; None where one cannot be read."""
    digest = hashlib.sha256()
    try:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                digest.update(f"{path.name!r} {content}\n".encode("utf-8", "surrogateescape"))
    except OSError:
        return None
    return f"sha256:{digest.hexdigest()}"
