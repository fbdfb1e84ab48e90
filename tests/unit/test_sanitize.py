"""What reaches a terminal holds nothing that a terminal acts on."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turbotui.sanitize import clean, escape_json

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"
any_text = st.text(alphabet=st.characters(), max_size=200)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("一只猫在雪地里跑", "一只猫在雪地里跑"),
        ("é e\u0301", "é e\u0301"),
        ("\x1b]52;c;aGk=\x07", "␛]52;c;aGk=␇"),
        ("a\nb\r\nc\rd\te", "a↵b↵c␍d␉e"),
        ("\x7f\x9b31m", "␡\ufffd31m"),
        ("exe\u202etxt.piz", "exe\ufffdtxt.piz"),
        ("a\u200bb\u2028c\ud800d", "a\ufffdb\ufffdc\ufffdd"),
        ("❤\ufe0f", "❤"),
        ("👩\u200d🚀 👨\U0001f3fd\u200d👧\u200d👦", "👩🚀 👨\U0001f3fd👧👦"),
        ("🏳\ufe0f\u200d🌈 🏃\u200d♂\ufe0f", "🏳🌈 🏃♂"),
        ("🚀\u200dexe a\u200d🚀 \u200d", "🚀\ufffdexe a\ufffd🚀 \ufffd"),
        ("[/red] stays", "[/red] stays"),
    ],
)
def test_controls_become_visible_and_ordinary_text_stays(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(any_text)
@example("".join(map(chr, range(0xA0))) + BIDI + ZERO_WIDTH + "\u2028\u2029\ud800\udfff")
def test_nothing_hidden_is_left_of_any_text(text: str) -> None:
    shown = clean(text)
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in shown)
    assert not set(shown) & set(BIDI + ZERO_WIDTH + "\u200e\u200f\u061c\xad")
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")  # a lone surrogate would raise


@given(any_text)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(any_text, st.integers(min_value=0, max_value=50))
def test_a_text_is_never_longer_than_its_limit_and_says_that_it_was_cut(text: str, limit: int) -> None:
    shown = clean(text, limit=limit)
    assert len(shown) <= limit
    if len(text) > limit > 0:
        assert shown.endswith("…")


@given(st.recursive(any_text, lambda inner: st.lists(inner, max_size=4)))
@example("\x9b31m\x7f\u202e\u200b\ufeff\u2028")
def test_escaped_json_means_the_same_and_holds_no_control(value: object) -> None:
    document = escape_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(document) == value
    assert not any(0x7F <= ord(character) <= 0x9F for character in document)
    assert not set(document) & set(BIDI + ZERO_WIDTH + "\u2028\u2029")
    document.encode("utf-8")
