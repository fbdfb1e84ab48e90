"""Owns every sentence of the console: catalogues by language, and `t` that looks one up.

Ids, JSON and the engine's own lines stay English in every language; only what the console itself
says is translated.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

LANGUAGES = ("en", "zh_CN")


class _Catalogue:
    def __init__(self) -> None:
        self.language = "en"
        self.texts: Mapping[str, str] = {}


_current = _Catalogue()


def texts_of(language: str) -> Mapping[str, str]:
    """The catalogue of `language`, one of LANGUAGES."""
    if language == "zh_CN":
        from turbotui.text import zh_cn

        return zh_cn.TEXTS
    from turbotui.text import en

    return en.TEXTS


def choose_language(setting: str, environ: Mapping[str, str] | None = None) -> str:
    """The language that a setting means; `auto` follows LC_ALL, LC_MESSAGES and LANG."""
    env = os.environ if environ is None else environ
    wanted = setting
    if setting == "auto":
        wanted = env.get("LC_ALL") or env.get("LC_MESSAGES") or env.get("LANG") or "en"
    return "zh_CN" if wanted.lower().startswith("zh") else "en"


def use_language(language: str) -> None:
    """Speak `language` from here on."""
    _current.language = language
    _current.texts = texts_of(language)


def language() -> str:
    return _current.language


def known(key: str, otherwise: str) -> str:
    """The sentence `key`, or `otherwise` where there is none: names that an engine may have made up since."""
    if not _current.texts:
        use_language(_current.language)
    return _current.texts.get(key, otherwise)


def t(key: str, **values: object) -> str:
    """The sentence `key` with its values filled in; `key.one` where there is one and the count is 1."""
    if not _current.texts:
        use_language(_current.language)
    text = _current.texts[key]
    if str(values.get("count", values.get("steps"))) == "1":
        text = _current.texts.get(f"{key}.one", text)
    return text.format(**values) if values else text
