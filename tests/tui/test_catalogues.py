"""Texts, themes, keys and drafts: what is written down beside the code."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import get_args

import pytest

import turbotui
from engine.errors import InvalidRequest
from engine.wire.receipts import Proof
from turbotui.actions import ACTIONS, BY_ID, KEY_LINE_HEAD, KEY_LINE_HERE, KEY_LINE_TAIL, bound_keys, twins_of
from turbotui.draft import Draft, load_draft, save_draft
from turbotui.keymap import is_key, keymap
from turbotui.subcommands import receipts
from turbotui.text import choose_language, texts_of
from turbotui.theme import Paint, read_palette, theme_files, theme_folders
from turbotui.widgets import bottom


def fields_of(text: str) -> set[str]:
    return {name for _text, name, _spec, _conversion in string.Formatter().parse(text) if name}


def test_both_languages_say_the_same_things_with_the_same_values() -> None:
    english, chinese = texts_of("en"), texts_of("zh_CN")
    assert set(english) == set(chinese)
    differing = [key for key in english if fields_of(english[key]) != fields_of(chinese[key])]
    assert not differing


def test_every_text_that_the_code_names_exists() -> None:
    named = set()
    for source in Path(turbotui.__file__).parent.rglob("*.py"):
        named |= set(re.findall(r'\bt\(\s*"([^"]+)"', source.read_text("utf-8")))
    assert named and named <= set(texts_of("en"))


def test_every_action_has_its_texts() -> None:
    english = texts_of("en")
    for action in ACTIONS:
        assert f"help.{action.id}" in english or action.id.startswith("panel_")
        assert not action.in_palette or f"action.{action.id}" in english
    hinted = {*KEY_LINE_HEAD, *KEY_LINE_TAIL, *(name for names in KEY_LINE_HERE.values() for name in names)}
    assert hinted <= set(BY_ID)
    assert {f"key.{name}" for name in hinted} <= set(english)


def test_no_key_is_bound_twice() -> None:
    keys = [key for action in ACTIONS for key in bound_keys(action).split(",")]
    assert len(keys) == len(set(keys))


def test_keys_left_to_terminals_and_multiplexers_are_not_bound() -> None:
    keys = {key for action in ACTIONS for key in action.keys}
    assert not keys & {"ctrl+a", "ctrl+b", "ctrl+s", "ctrl+j", "ctrl+enter", "f1", "f10"}


def test_full_width_twins_are_bound_with_their_keys() -> None:
    assert "？" in bound_keys(BY_ID["help"]) and "：" in bound_keys(BY_ID["palette"])
    assert "／" in bound_keys(BY_ID["filter"])


def test_a_key_for_an_unknown_action_is_named_and_the_rest_holds() -> None:
    found = keymap({"swich": "s", "free": "F5"})
    assert found.own == {"free": "F5"} and "swich" in found.problems[0] and len(found.problems) == 1


def test_every_key_in_use_is_a_key_and_every_punctuation_mark_has_its_twins() -> None:
    keys = [key for action in ACTIONS for key in action.keys]
    assert all(is_key(key) for key in keys)
    marks = [key for key in keys if len(key) == 1 and not key.isalnum()]
    assert marks and all(twins_of(mark) for mark in marks)
    assert not is_key("ctrl+") and not is_key("hyper+nonsense") and not is_key("") and not is_key("ab")
    assert is_key("ctrl+x") and is_key("F5") and is_key("？") and is_key("exclamation_mark")


@pytest.mark.parametrize("setting", ["zh_CN", "zh_CN.UTF-8", "zh"])
def test_chinese_is_found_by_setting_and_by_environment(setting: str) -> None:
    assert choose_language(setting) == "zh_CN"
    assert choose_language("auto", {"LANG": setting}) == "zh_CN"
    assert choose_language("auto", {"LANG": setting, "LC_ALL": "de_DE.UTF-8"}) == "en"


@pytest.mark.parametrize("name", ["dark", "light", "high-contrast", "terminal16"])
def test_a_shipped_theme_gives_every_part_its_own_look(name: str) -> None:
    palette = read_palette(theme_files(theme_folders())[name])
    paint = Paint(palette)
    looks = {(style.color, style.bgcolor) for part, style in paint.part.items() if part != "free"}
    assert palette.name == name
    # Two parts may share a colour where there are only 16, since each has its own pattern.
    assert len(looks) >= (7 if palette.ansi else 8)


def test_a_theme_of_the_person_replaces_the_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / "themes" / "dark.toml"
    own.parent.mkdir()
    shipped = theme_files(theme_folders())["dark"]
    own.write_text(shipped.read_text("utf-8"), "utf-8")
    assert theme_files(theme_folders(tmp_path))["dark"] == own


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (('text = "#d6dce4"', 'text = "pink"'), "colours.text"),
        (('text = "#d6dce4"', ""), "lacks colours.text"),
        (('text = "#d6dce4"', 'text = "#d6dce4"\nshine = "#ffffff"'), "unknown colours.shine"),
        (("[parts]", "[parts"), "cannot be read"),
    ],
)
def test_a_broken_theme_is_refused_by_file_and_colour(
    tmp_path: Path, change: tuple[str, str], named: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(theme_files(theme_folders())["dark"].read_text("utf-8").replace(*change), "utf-8")
    with pytest.raises(InvalidRequest, match=named) as refusal:
        read_palette(path)
    assert "mine.toml" in str(refusal.value)


def test_a_draft_comes_back_as_it_was(tmp_path: Path) -> None:
    draft = Draft(
        prompt="一只猫\nsecond line", model="m", resolution="480p 16:9", frames="17", steps=3, seed="7"
    )
    save_draft(tmp_path / "state" / "draft.json", draft)
    assert load_draft(tmp_path / "state" / "draft.json") == draft


@pytest.mark.parametrize("text", ["", "[]", "{", '{"prompt": 5, "steps": "x", "unknown": 1}', "\x00"])
def test_a_damaged_draft_is_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "draft.json").write_text(text)
    assert load_draft(tmp_path / "draft.json") == Draft()


def test_a_draft_that_cannot_be_kept_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    save_draft(tmp_path / "file" / "draft.json", Draft(prompt="x"))


@pytest.mark.parametrize("names", [receipts.PROOFS, bottom.PROOFS], ids=["commands", "console"])
def test_every_proof_has_its_words(names: dict[str, str]) -> None:
    assert set(names) == set(get_args(Proof))
