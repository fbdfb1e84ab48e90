"""Finds what the code says to people, by reading it: so that no list of sentences can be out of date.

A sentence is a string or f-string with words in it. It is given with each of its holes named, and once
for each of the ways that a choice inside it (`'encrypted' if flags else 'compressed'`) can go.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

WORDS = re.compile(
    r"[A-Za-z]{2,}[,;:]? [A-Za-z(`]|[a-z]{2,}[;:] ?\x00|\x00[,;]? [a-z]{3,}|[a-z]{3,}[:;]? \x00"
)
MOST_WAYS = 16


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence where it is written."""

    path: Path
    line: int
    callee: str
    """What is called with it; empty where it is returned, yielded or kept."""
    keyword: str
    form: str
    """With its holes named: `job {job} runs`."""

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line} {self.callee}({self.keyword}): {self.form}"


def sentences_in(path: Path, *, everything: bool = False) -> Iterator[Said]:
    """What `path` says, docstrings and comments left out; with `everything` also single words."""
    tree = ast.parse(path.read_text("utf-8"))
    yield from _Finder(path, everything).visit_all(tree)


def forms_of(node: ast.expr) -> list[str]:
    """Every form of a string expression; nothing of any other."""
    if isinstance(node, ast.Constant):
        return [_escaped(node.value)] if isinstance(node.value, str) else []
    if isinstance(node, ast.IfExp):
        return forms_of(node.body) + forms_of(node.orelse)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = forms_of(node.left) or ["{more}"], forms_of(node.right) or ["{more}"]
        return [a + b for a, b in product(left, right)]
    if not isinstance(node, ast.JoinedStr):
        return []
    pieces: list[list[str]] = []
    for value in node.values:
        if isinstance(value, ast.Constant):
            pieces.append([_escaped(str(value.value))])
        else:
            assert isinstance(value, ast.FormattedValue)
            pieces.append(_ways(value.value) or ["{" + _name(value.value) + "}"])
    return [_numbered("".join(way)) for way in list(product(*pieces))[:MOST_WAYS]]


def literal_of(form: str) -> str:
    """The form with a mark for each hole."""
    return re.sub(r"\{[^{}]*\}", "\x00", form)


def _ways(node: ast.expr) -> list[str]:
    """What a choice between texts can give; nothing where it is no choice between texts alone."""
    if isinstance(node, ast.IfExp):
        found = [_ways(node.body) or _text(node.body), _ways(node.orelse) or _text(node.orelse)]
        return [] if not all(found) else found[0] + found[1]
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
        last = _text(node.values[-1])
        return ["{" + _name(node.values[0]) + "}", *last] if last else []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "counted":
        nouns = [text for argument in node.args[1:] for text in _text(argument)]
        return ["{count} " + noun for noun in (nouns if len(nouns) > 1 else [nouns[0], nouns[0] + "s"])]
    return []


def _text(node: ast.expr) -> list[str]:
    return forms_of(node) if isinstance(node, ast.Constant | ast.JoinedStr) else []


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _name(node: ast.expr) -> str:
    """What a hole is called: the last name of its expression."""
    if isinstance(node, ast.Name):
        return node.id.strip("_").lower()
    if isinstance(node, ast.Attribute):
        return node.attr.strip("_")
    if isinstance(node, ast.Call):
        return _name(node.args[0]) if node.args else _name(node.func)
    if isinstance(node, ast.Subscript | ast.Starred | ast.Await):
        return _name(node.value)
    if isinstance(node, ast.BoolOp):
        return _name(node.values[0])
    if isinstance(node, ast.BinOp):
        return _name(node.left)
    if isinstance(node, ast.IfExp):
        return _name(node.body)
    if isinstance(node, ast.GeneratorExp | ast.ListComp):
        return _name(node.generators[0].iter)
    return "value"


def _numbered(form: str) -> str:
    """Holes side by side are one; names that come again get a number."""
    form = re.sub(r"(?<!\{)(\{\w+\})(\{\w+\})+", r"\1", form)
    seen: dict[str, int] = {}

    def name(match: re.Match[str]) -> str:
        found = match[1]
        seen[found] = seen.get(found, 0) + 1
        return "{" + found + ("" if seen[found] == 1 else str(seen[found])) + "}"

    return re.sub(r"(?<!\{)\{(\w+)\}", name, form)


class _Finder:
    def __init__(self, path: Path, everything: bool) -> None:
        self._path = path
        self._everything = everything

    def visit_all(self, tree: ast.Module) -> Iterator[Said]:
        yield from self._visit(tree, "", "")

    def _visit(self, node: ast.AST, callee: str, keyword: str) -> Iterator[Said]:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node, ast.JoinedStr | ast.Constant):
            yield from self._said(node, callee, keyword)
            for below in ast.iter_child_nodes(node):
                if isinstance(below, ast.FormattedValue):
                    yield from self._inside(below.value)
            return
        if isinstance(node, ast.Call):
            name = _called(node.func)
            yield from self._visit(node.func, callee, keyword)
            for argument in node.args:
                yield from self._visit(argument, name, "")
            for given in node.keywords:
                yield from self._visit(given.value, name, given.arg or "")
            return
        if isinstance(node, ast.Compare):
            return
        if isinstance(node, ast.Assert):
            yield from self._visit(node.test, callee, keyword)
            return
        for below in ast.iter_child_nodes(node):
            yield from self._visit(below, callee, keyword)

    def _inside(self, node: ast.expr) -> Iterator[Said]:
        """Sentences in a hole that is no choice between texts alone."""
        if not _ways(node):
            yield from self._visit(node, "", "")

    def _said(self, node: ast.expr, callee: str, keyword: str) -> Iterable[Said]:
        for form in forms_of(node):
            if self._everything or WORDS.search(literal_of(form)):
                yield Said(self._path, getattr(node, "lineno", 0), callee, keyword, form)


def _called(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
