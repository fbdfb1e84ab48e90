"""From a prompt to the text embedding that the DiT attends to.

Source: Wan2.1 wan/modules/t5.py, as TurboDiffusion uses it. Whoever changes what comes out raises
`engine.models.prompts.CLEANING_VERSION`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from engine.errors import ModelUnusable, WorkFailed
from engine.models.prompts import clean_prompt
from engine.planning.shapes import TEXT_TOKENS

Tokenizer: TypeAlias = Any
"""A transformers tokenizer; that library is not typed."""


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`; reads local files only.

    Raises:
        ModelUnusable: the folder is missing or holds no tokenizer.
    """
    if not folder.is_dir():
        raise ModelUnusable(
            f"{folder} is missing, so prompts cannot be read; fetch or convert the model again"
        )
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the libraries beneath raise whatever their parsers raise
        raise ModelUnusable(
            f"{folder} holds no usable tokenizer ({type(error).__name__}: {_first_line(error)}); "
            "fetch or convert the model again"
        ) from error


def encode_prompt(encoder: nn.Module, tokenizer: Tokenizer, prompt: str, device: torch.device) -> Tensor:
    """The embedding of `prompt`, [1, 512, D] in the encoder's dtype, zero beyond the prompt's tokens.

    Longer prompts are cut at 512 tokens. The rows of zeros are attended to like the others:
    the models were trained so.

    Raises:
        WorkFailed: the encoder returned a value that is not finite.
    """
    tokens = tokenizer(
        [clean_prompt(prompt)],
        padding="max_length",
        max_length=TEXT_TOKENS,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    mask_BL = tokens["attention_mask"].to(device)
    hidden_BLD: Tensor = encoder(tokens["input_ids"].to(device), mask_BL)
    if not bool(torch.isfinite(hidden_BLD).all()):
        raise WorkFailed(
            "the text encoder returned values that are not finite; its weight file may be damaged: "
            "fetch or convert the model again"
        )
    return hidden_BLD.masked_fill(mask_BL.unsqueeze(-1) == 0, 0)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
