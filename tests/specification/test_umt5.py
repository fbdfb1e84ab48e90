"""The statement of umT5 against transformers, and the engine's encoder against the statement."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from engine.models.prompts import clean_prompt
from engine.worker.nets import umt5 as net
from engine.worker.nets.umt5 import TextEncoder
from engine.worker.text import encode_prompt
from tests.specification import umt5

HEADS = 4
CONFIG: dict[str, Any] = {
    "vocab_size": 40, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 3, "num_heads": HEADS,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip
RENAMED = (
    (r"token_embedding\.", "encoder.embed_tokens."),
    (r"norm\.", "encoder.final_layer_norm."),
    (r"blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"blocks\.(\d+)\.attn\.", r"encoder.block.\1.layer.0.SelfAttention."),
    (
        r"blocks\.(\d+)\.pos_embedding\.embedding\.",
        r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
    ),
    (r"blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
)  # fmt: skip


def filled(module: nn.Module, tensors: dict[str, Tensor]) -> Any:
    found = {"shared.weight": tensors["token_embedding.weight"]}
    for name, tensor in tensors.items():
        for pattern, by in RENAMED:
            renamed, changed = re.subn(f"^{pattern}", by, name)
            if changed:
                found[renamed] = tensor
                break
    module.load_state_dict(found, strict=True)
    return module.to(tensors["norm.weight"].dtype).requires_grad_(False).eval()


def inputs(length: int = 300) -> tuple[Tensor, Tensor]:
    """Long enough for every bucket; the second prompt is short."""
    tokens = torch.randint(0, 40, (2, length), generator=torch.Generator().manual_seed(3))
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, 7:] = 0
    return tokens, mask


def test_the_statement_is_transformers_in_fp32() -> None:
    tensors = umt5.random_checkpoint()
    tokens, mask = inputs()
    mine = umt5.encode(tensors, tokens, mask, HEADS)
    theirs = filled(UMT5EncoderModel(UMT5Config.from_dict(CONFIG)), tensors)
    expected = theirs(input_ids=tokens, attention_mask=mask).last_hidden_state
    for row, length in ((0, 300), (1, 7)):
        assert _relative(mine[row, :length], expected[row, :length]) < 1e-6


def test_the_encoder_is_the_statement_in_fp32() -> None:
    tensors = umt5.random_checkpoint()
    tokens, mask = inputs()
    found = filled(TextEncoder.build(CONFIG), tensors)(tokens, mask)
    assert _relative(found, umt5.encode(tensors, tokens, mask, HEADS)) < 1e-6


def test_the_encoder_rounds_where_the_statement_does() -> None:
    tensors = umt5.random_checkpoint(dtype=torch.bfloat16)
    tokens, mask = inputs()
    found = filled(TextEncoder.build(CONFIG), tensors)(tokens, mask)
    expected = umt5.encode(tensors, tokens, mask, HEADS)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
    theirs = filled(UMT5EncoderModel(UMT5Config.from_dict(CONFIG)), tensors)
    stock = theirs(input_ids=tokens, attention_mask=mask).last_hidden_state
    assert _relative(stock[0], expected[0]) > 1e-3, "transformers rounds elsewhere: this test would see that"


@pytest.mark.parametrize("length", [1, 9, 200, 512])
def test_distances_fall_into_the_statement_s_buckets(length: int) -> None:
    found = net.buckets(length, UMT5Config.from_dict(CONFIG), torch.device("cpu"))
    query = length // 2
    assert found[query].tolist() == [umt5.bucket(key - query) for key in range(length)]
    assert int(found.max()) < umt5.BUCKETS


def test_an_encoder_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="its feed-forward is 'relu', expected 'gated-gelu'"):
        TextEncoder.build({**CONFIG, "feed_forward_proj": "relu"})


@pytest.mark.parametrize(
    ("prompt", "seen"),
    [
        ("  two   words\t\n here ", "two words here"),
        ("&amp;lt;b&amp;gt; &amp; &quot;x&quot;", '<b> & "x"'),
        # Text without a tag is unescaped by ftfy too; with one twice, and no third time.
        ("<b>&amp;amp;lt;", "<b>&lt;"),
        ("donâ€™t", "don't"),
        ("schÃ¶n", "schön"),
        ("全角　空格 ＡＢＣ", "全角 空格 ABC"),
        ("\u00a0\u2028x\u3000", "x"),
    ],
)
def test_a_prompt_is_cleaned_as_stated(prompt: str, seen: str) -> None:
    assert umt5.cleaned(prompt) == seen
    assert clean_prompt(prompt) == seen


class _Tokens:
    """Every word a token, then the end's."""

    def __call__(self, prompts: list[str], **options: Any) -> dict[str, Tensor]:
        assert (options["padding"], options["truncation"], options["add_special_tokens"]) == (
            "max_length", True, True,
        )  # fmt: skip
        words = [3 + len(word) % 30 for word in prompts[0].split()][: options["max_length"] - 1]
        tokens = torch.zeros(1, options["max_length"], dtype=torch.long)
        tokens[0, : len(words) + 1] = torch.tensor([*words, 1])
        mask = torch.zeros_like(tokens)
        mask[0, : len(words) + 1] = 1
        return {"input_ids": tokens, "attention_mask": mask}


@pytest.mark.parametrize(("prompt", "count"), [("a  red\tkite", 4), ("", 1), ("word " * 600, 512)])
def test_an_embedding_has_512_rows_and_zeros_beyond_the_prompt(prompt: str, count: int) -> None:
    tensors = umt5.random_checkpoint(dtype=torch.bfloat16)
    encoder = filled(TextEncoder.build(CONFIG), tensors)
    found = encode_prompt(encoder, _Tokens(), prompt, torch.device("cpu"))
    given = _Tokens()(
        [umt5.cleaned(prompt)], padding="max_length", truncation=True, add_special_tokens=True, max_length=512
    )
    whole = umt5.encode(tensors, given["input_ids"], given["attention_mask"], HEADS)
    assert found.shape == (1, umt5.LENGTH, 64)
    assert torch.equal(found[0], umt5.padded(whole[0], count))
    assert bool(found[0, count - 1].any()) and not bool(found[0, count:].any())


def _relative(found: Tensor, expected: Tensor) -> float:
    return ((found.float() - expected.float()).norm() / expected.float().norm()).item()
