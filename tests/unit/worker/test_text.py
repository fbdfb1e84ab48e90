"""From a prompt to its embedding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from engine.worker.channel import ModelFiles
from engine.worker.store import ComponentStore
from engine.worker.text import clean_prompt, encode_prompt

from .conftest import BUDGET, SMALL


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("  a\tcat \n on   a mat ", "a cat on a mat"),
        ("tom &amp;amp; jerry", "tom & jerry"),
        ("the cafÃ©", "the café"),
        ("一只猫　在跑", "一只猫 在跑"),
        ("   ", ""),
    ],
)
def test_prompts_are_cleaned_as_in_training(prompt: str, cleaned: str) -> None:
    assert clean_prompt(prompt) == cleaned


def test_rows_beyond_the_prompt_are_zero_and_the_others_see_only_the_prompt(
    store: ComponentStore, files: Callable[[str], ModelFiles]
) -> None:
    model = store.open(files(SMALL))
    lease = store.lease(model, ("text",), stage="text", stage_bytes=0, budget_bytes=BUDGET)
    with lease as modules, torch.inference_mode():
        encoder, cpu = modules["text"], torch.device("cpu")
        embedding = encode_prompt(encoder, model.tokenizer, "a red kite", cpu)
        tokens = model.tokenizer("a red kite")["input_ids"]
        alone = encoder(torch.tensor([tokens]), torch.ones(1, len(tokens)))
        long = encode_prompt(encoder, model.tokenizer, "word " * 3000, cpu)
        empty = encode_prompt(encoder, model.tokenizer, "", cpu)
    assert tokens[-1] == model.tokenizer.eos_token_id
    assert embedding.shape == (1, 512, encoder.config.d_model)
    assert embedding[0, len(tokens) :].eq(0).all()
    seen = torch.cosine_similarity(embedding[0, : len(tokens)].float(), alone[0].float())
    assert seen.min() > 0.999
    assert long.shape == embedding.shape
    assert long[0, 511].abs().sum() > 0
    assert empty[0, 1:].eq(0).all()
