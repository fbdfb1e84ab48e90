"""Owns every sentence of the console: catalogues by language, and `t` that looks one up.

Ids, JSON and the log's lines stay English in every language. The console's sentences lie in `en` and `zh_cn`
by the same keys. What commands say, and what an engine says to a person, has its English where it is said;
`spoken` looks up its Chinese in `zh_spoken` by that English.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from engine.errors import InvalidRequest

LANGUAGES = ("en", "zh_CN")
KEY_NAMES = (
    ("↵", "Enter"), ("← →", "left/right"), ("↑ ↓", "up/down"), ("↑↓", "up/down"),
    ("←", "left"), ("→", "right"),
)  # fmt: skip
"""The signs of keys in sentences, and their names."""


class _Catalogue:
    def __init__(self) -> None:
        self.language = "en"
        self.texts: Mapping[str, str] = {}
        self.asked: str | None = None
        self.settle: Callable[[], str] | None = None
        self.spelled = False


_current = _Catalogue()


def texts_of(language: str) -> Mapping[str, str]:
    """The catalogue of `language`, one of LANGUAGES."""
    if language == "zh_CN":
        from turbotui.text import zh_cn

        return zh_cn.TEXTS
    from turbotui.text import en

    return en.TEXTS


def choose_language(setting: str, environ: Mapping[str, str] | None = None) -> str:
    """The language asked for, else that a setting means; `auto` follows LC_ALL, LC_MESSAGES and LANG."""
    if _current.asked is not None:
        return _current.asked
    env = os.environ if environ is None else environ
    wanted = setting
    if setting == "auto":
        wanted = env.get("LC_ALL") or env.get("LC_MESSAGES") or env.get("LANG") or "en"
    return "zh_CN" if wanted.lower().startswith("zh") else "en"


def ask_language(name: str | None, *, otherwise: Callable[[], str]) -> None:
    """Speak the language of the option `--lang` whatever the settings say.

    Without one `otherwise` gives the setting, which is read when the first sentence is said and not
    before: a command that prints JSON reads no settings.

    Raises:
        InvalidRequest: it is no language of ours.
    """
    _current.asked = None
    if name is not None:
        key = name.replace("-", "_").partition(".")[0]
        if key not in ("en", "zh", "zh_CN"):
            raise InvalidRequest(f"there is no language {name!r}; there are en and zh")
        _current.asked = choose_language(key)
    _current.settle = lambda: choose_language(otherwise())


def use_language(language: str) -> None:
    """Speak `language` from here on."""
    _current.settle = None
    if language != _current.language:
        _current.texts = {}
    _current.language = language


def spell_keys(spelled: bool) -> None:
    """Whether keys have names in place of signs, which a terminal without them would show as other keys."""
    if spelled != _current.spelled:
        _current.spelled, _current.texts = spelled, {}


def key_names(text: str) -> str:
    """`text` with its keys as they are called now."""
    if _current.spelled:
        for sign, name in KEY_NAMES:
            text = text.replace(sign, name)
    return text


def language() -> str:
    """The language that is spoken."""
    if _current.settle is not None:
        use_language(_current.settle())
    return _current.language


def _load() -> None:
    """Have the catalogue at hand: the first sentence loads it, as a command may need none."""
    wanted = language()
    if not _current.texts:
        texts = texts_of(wanted)
        _current.texts = {key: key_names(text) for key, text in texts.items()} if _current.spelled else texts


def known(key: str, otherwise: str) -> str:
    """The sentence `key`, or `otherwise` where there is none: names that an engine may have made up since."""
    _load()
    return _current.texts.get(key, otherwise)


def t(key: str, **values: object) -> str:
    """The sentence `key` with its values filled in; `key.one` where there is one and the count is 1."""
    _load()
    text = _current.texts[key]
    if str(values.get("count", values.get("steps"))) == "1":
        text = _current.texts.get(f"{key}.one", text)
    return text.format(**values) if values else text
