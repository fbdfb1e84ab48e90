"""Says English sentences in the person's language: those of the commands, and those of an engine.

A sentence is its own stable code: the catalogue is keyed by its English form, `job {job} runs; cancel it`,
whose holes are named. `tr` is for what this side says itself. `spoken` is for what an engine has said,
which stays English on the wire, in the job store and in recordings: the values are read back out of it by
its form, so that also what an older engine wrote years ago is understood, and what only a newer one says
stays English. Nothing that a person wrote goes through either but as a value.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from turbotui.text import language

LONGEST = 4000
"""Characters of a sentence that is still read; what is longer holds a log or worse."""
DEEPEST = 4
"""A sentence may hold another as a value, and that a third."""
MOST_PARTS = 8
LEAST_WEIGHT = 12
MOST_WORDS = 4
SURE_BEGINNING = 4


@dataclass(frozen=True, slots=True)
class Form:
    """A sentence with holes: one literal more than there are names."""

    literals: tuple[str, ...]
    names: tuple[str, ...]
    text: str
    """In the other language, with the same names."""
    weight: int
    """How much of a sentence it vouches for."""

    def values(self, sentence: str) -> list[str] | None:
        """What stands in the holes, each at least a character; None where the sentence is another.

        Goes from left to right and never back, so its time is that of the sentence's length.
        """
        first, last = self.literals[0], self.literals[-1]
        if not self.names:
            return [] if sentence == first else None
        if not sentence.startswith(first) or not sentence.endswith(last):
            return None
        at, end, found = len(first), len(sentence) - len(last), []
        for literal in self.literals[1:-1]:
            begin = sentence.find(literal, at + 1, end)
            if begin < 0:
                return None
            found.append(sentence[at:begin])
            at = begin + len(literal)
        if at >= end:
            return None
        found.append(sentence[at:end])
        return found if self._vouches(found) else None

    def _vouches(self, values: Sequence[str]) -> bool:
        """A form of few letters stands for names and figures alone, or it would take any sentence."""
        return self.weight >= LEAST_WEIGHT or all(value.count(" ") < MOST_WORDS for value in values)


def tr(english: str, **values: object) -> str:
    """A sentence of the commands by its English form, with its values filled in."""
    text = english if language() == "en" else _texts(language()).get(english, english)
    return text.format(**values) if values else text


def spoken(sentence: str) -> str:
    """What an engine said, in the person's language; itself where that is English or it is not known."""
    if language() == "en" or not sentence or len(sentence) > LONGEST:
        return sentence
    return _spoken(language(), sentence)


def word(name: str) -> str:
    """A name out of a small set, such as a state, in the person's language; else as `spoken` has it."""
    return name if language() == "en" else _words(language()).get(name) or spoken(name)


def listed(parts: Iterable[str]) -> str:
    """Parts of a sentence one after the other."""
    return tr(", ").join(parts)


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 video`, `3 videos`; `plural` where it is not the noun and an s. The engine's own: engine.units."""
    return tr(f"{{count}} {noun if count == 1 else plural or noun + 's'}", count=count)


def form_of(english: str, text: str) -> Form:
    """The form that a catalogue writes as `there is no job {id}`."""
    literals, names = [""], []
    for literal, name, _spec, _conversion in string.Formatter().parse(english):
        literals[-1] += literal
        if name is not None:
            names.append(name)
            literals.append("")
    return Form(tuple(literals), tuple(names), text, _weight(literals))


def _weight(literals: Sequence[str]) -> int:
    """Its letters, and its marks, which are rarer; a sentence that begins with words of its own is surer."""
    letters = sum(map(str.isalpha, "".join(literals)))
    marks = sum(map("".join(literals).count, ":;,."))
    begins = sum(map(str.isalpha, literals[0])) >= SURE_BEGINNING
    return letters + 5 * marks + (10 if begins and letters + 5 * marks >= LEAST_WEIGHT else 0)


@lru_cache(maxsize=2048)
def _spoken(wanted: str, sentence: str) -> str:
    return _read(wanted, sentence, DEEPEST) or sentence


def _read(wanted: str, sentence: str, depth: int) -> str | None:
    """The sentence in the language `wanted`; None where no form is its own."""
    if not depth:
        return None
    best = _best(wanted, sentence)
    # A value that reaches over a semicolon may be the rest of one sentence and the beginning of the next.
    values = [] if best is None else [value for value in best[1] if "; " in value]
    across = any(_best(wanted, value) is None for value in values)
    if best is None or across:
        told = _read_parts(wanted, sentence.split("; "), depth, all_of_them=across)
        if told is not None or best is None:
            return told
    return _filled(wanted, best[0], best[1], depth)


def _best(wanted: str, sentence: str) -> tuple[Form, list[str]] | None:
    """The form that vouches for most of it, with its values."""
    best: tuple[Form, list[str]] | None = None
    for form in _candidates(wanted, sentence):
        if best is None or form.weight > best[0].weight:
            values = form.values(sentence)
            if values is not None:
                best = (form, values)
    return best


def _read_parts(wanted: str, parts: Sequence[str], depth: int, *, all_of_them: bool) -> str | None:
    """Several sentences in one, each read by itself; None unless one is known, or all are."""
    if not 1 < len(parts) <= MOST_PARTS:
        return None
    told = [_words(wanted).get(part) or _read(wanted, part, depth - 1) for part in parts]
    if not any(told) or (all_of_them and not all(told)):
        return None
    return "；".join(known or part for known, part in zip(told, parts, strict=True))


def _filled(wanted: str, form: Form, values: Sequence[str], depth: int) -> str:
    by_name = dict(zip(form.names, values, strict=True))
    pieces = []
    for literal, name, spec, _conversion in string.Formatter().parse(form.text):
        pieces.append(literal)
        if name is not None:
            value = by_name[name]
            if spec == "s":
                value = _replaced(wanted, value)
            elif spec == "l":
                value = "，".join(_item(wanted, item) for item in value.split(", "))
            elif spec == "w" and value in _words(wanted):
                value = _words(wanted)[value]
            elif " " in value:
                value = _read(wanted, value, depth - 1) or value
            pieces.append(value)
    return "".join(pieces)


def _item(wanted: str, item: str) -> str:
    """One of a list: a sentence, or `others 1.21 GiB`."""
    if told := _read(wanted, item, 1):
        return told
    name, space, rest = item.partition(" ")
    return _words(wanted).get(name, name) + space + rest


def _replaced(wanted: str, text: str) -> str:
    from turbotui.text.zh_spoken.words import PHRASES

    for english, told in PHRASES if wanted == "zh_CN" else ():
        text = text.replace(english, told)
    return text


def _candidates(wanted: str, sentence: str) -> Iterator[Form]:
    index = _index(wanted)
    yield from index.get(("begins", sentence[:2]), ())
    yield from index.get(("ends", sentence[-2:]), ())
    yield from index.get(("", ""), ())


@cache
def _index(wanted: str) -> Mapping[tuple[str, str], Sequence[Form]]:
    """Forms by their first two letters, else by their last, else none."""
    found: dict[tuple[str, str], list[Form]] = {}
    for english, text in _texts(wanted, read=True).items():
        form = form_of(english, text)
        first, last = form.literals[0], form.literals[-1]
        key = ("", "")
        if len(first) > 1:
            key = ("begins", first[:2])
        elif len(last) > 1:
            key = ("ends", last[-2:])
        found.setdefault(key, []).append(form)
    return found


def _texts(wanted: str, *, read: bool = False) -> Mapping[str, str]:
    """The catalogue by English forms; with `read` only those that are read back out of sentences."""
    if wanted != "zh_CN":
        return {}
    from turbotui.text import zh_spoken

    return zh_spoken.forms(zh_spoken.READ) if read else zh_spoken.forms()


def _words(wanted: str) -> Mapping[str, str]:
    from turbotui.text.zh_spoken.words import WORDS

    return WORDS if wanted == "zh_CN" else {}
