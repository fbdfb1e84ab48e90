"""A way through the heap in words: module, attribute, closure, hook, traceback; with file and line."""

from __future__ import annotations

import ast
import contextvars
import functools
import itertools
import sys
import threading
import types
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

from engine.wire import Holder
from engine.worker.leaks.frames import locals_of
from engine.worker.leaks.graph import Heap
from engine.worker.leaks.libraries import is_library

Kind: TypeAlias = Literal[
    "global", "attribute", "closure", "hook", "traceback", "generator", "cycle", "cache", "none"
]
Place: TypeAlias = tuple[str | None, int | None]

MOST_HOPS = 24
HOOKS = frozenset(
    {
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
        "_state_dict_hooks",
        "_load_state_dict_pre_hooks",
        "_global_forward_hooks",
        "_global_forward_pre_hooks",
    }
)
"""Attributes of a torch module, and globals of torch, that hold functions which are called with it."""
GENERATORS = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)
TOLD = (
    types.ModuleType, type, types.FunctionType, functools.partial, types.MethodType, types.CellType,
    types.TracebackType, types.FrameType, *GENERATORS, functools._lru_cache_wrapper, threading.local,
    contextvars.Context, dict, list, tuple, deque, set, frozenset, BaseException,
)  # fmt: skip
"""What has words of its own. By type: a proxy that is asked for its class runs code of its own, which may
raise, such as that of a request that is not there."""


class Words:
    """Tells ways; reads each source file once."""

    def __init__(self, roots: Mapping[int, str], heap: Heap) -> None:
        """`roots` names objects by their id that are told by a name of their own."""
        self._roots = roots
        self._heap = heap
        self._sources: dict[str, ast.Module | None] = {}

    def close(self) -> None:
        """Forget the sources."""
        self._sources.clear()

    def told(self, way: list[Any], *, local: str | None = None) -> Holder:
        """The holder at the begin of `way`, whose end is what it holds.

        `local` is by which name a running frame, the first of them, holds the second.
        """
        told = _Told(self, way, local)
        told.run()
        return Holder(path=tuple(told.path), kind=told.kind, file=told.place[0], line=told.place[1])

    def locals_of(self, frame: types.FrameType) -> dict[str, Any]:
        return locals_of(frame, self._heap)

    def root_name(self, found: object) -> str | None:
        return self._roots.get(id(found))

    def assignment(self, file: str | None, name: str) -> Place:
        """The line of `file` at which the module's `name` is made, where its source is there."""
        tree = self._tree(file)
        if tree is None:
            return file, None
        for line in itertools.chain(_assigned(tree.body, name), _assigned_in_calls(tree, name)):
            return file, line
        return file, None

    def class_line(self, kind: type, name: str) -> Place:
        """The line that gives the class its `name`, or else the class's own."""
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        for node in ast.walk(self._tree(file) or ast.Module(body=[], type_ignores=[])):
            if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                return file, next(_assigned(node.body, name), node.lineno)
        return file, None

    def _tree(self, file: str | None) -> ast.Module | None:
        if file is None:
            return None
        if file not in self._sources:
            try:
                self._sources[file] = ast.parse(Path(file).read_bytes())
            except (OSError, SyntaxError, ValueError):
                self._sources[file] = None
        return self._sources[file]


class _Told:
    """One way while it is told, step by step from its begin."""

    def __init__(self, words: Words, way: list[Any], local: str | None) -> None:
        self._words = words
        self._way = way
        self._local = local
        self._at = 0
        self.path: list[str] = []
        self.kind: Kind = "attribute"
        self.place: Place = (None, None)

    def run(self) -> None:
        while self._at < len(self._way) - 1:
            self._step(self._way[self._at], self._way[self._at + 1])
            self._at += 1
            if len(self.path) >= MOST_HOPS:
                self.path.append("...")
                return
        if not self.path:
            self.path.append(type_name(self._way[0]))

    def _step(self, holder: Any, held: Any) -> None:
        name = self._words.root_name(holder)
        if name is not None:
            self.path.append(name)
        if not issubclass(type(holder), TOLD):
            self._instance(holder, held, named=name is not None)
            return
        match holder:
            case types.ModuleType():
                self._module(holder, held)
            case type():
                self._class(holder, held)
            case types.FunctionType():
                self.path.append(f"function {holder.__qualname__}")
                self._written(holder)
                if holder.__defaults__ is held or holder.__kwdefaults__ is held:
                    self.path.append("default")
            case functools.partial() | types.MethodType():
                function = holder.func if isinstance(holder, functools.partial) else holder.__func__
                if type(function) is types.FunctionType:
                    self._written(function)
                self._instance(holder, held, named=name is not None)
            case types.CellType():
                self.path.append(f"closure cell {self._cell_name(holder)}")
                self.kind = "hook" if self.kind == "hook" else "closure"
            case types.TracebackType():
                frame = holder.tb_frame
                self.path.append(f"traceback in {frame.f_code.co_name}")
                self.kind, self.place = "traceback", (frame.f_code.co_filename, holder.tb_lineno)
            case types.FrameType():
                self._frame(holder, held)
            case types.GeneratorType() | types.CoroutineType() | types.AsyncGeneratorType():
                self._generator(holder, held)
            case functools._lru_cache_wrapper():
                self.path.append(f"cache of {getattr(holder, '__qualname__', type_name(holder))}")
                self.kind = "cache"
                code = getattr(getattr(holder, "__wrapped__", None), "__code__", None)
                if code is not None:
                    self.place = code.co_filename, code.co_firstlineno
            case threading.local():
                self.path.append("a thread's own data")
                self._skip_to_locals()
            case contextvars.Context():
                self._variable(holder)
            case dict():
                self.path.append(f"[{key_of(holder, held)}]")
            case list() | tuple() | deque():
                place = next((number for number, found in enumerate(holder) if found is held), None)
                self.path.append("[?]" if place is None else f"[{place}]")
            case set() | frozenset():
                self.path.append("[set]")
            case BaseException():
                self.path.append(f"exception {type_name(holder)}")
                self.kind = "traceback"
            case _:
                self._instance(holder, held, named=name is not None)

    def _written(self, function: types.FunctionType) -> None:
        """A hook's own line says more than that of the module it is registered on, unless a library's."""
        code = function.__code__
        if self.place[0] is None or is_library(self.place[0]) or not is_library(code.co_filename):
            self.place = code.co_filename, code.co_firstlineno

    def _module(self, holder: types.ModuleType, held: Any) -> None:
        self.path.append(f"module {holder.__name__}")
        if held is not vars(holder) or self._at + 2 >= len(self._way):
            return
        value = self._way[self._at + 2]
        name = key_of(vars(holder), value)
        self.path.append(name)
        self.kind = "hook" if name in HOOKS else "cache" if "cache" in name.lower() else "global"
        self.place = self._words.assignment(getattr(holder, "__file__", None), name)
        if self.place[1] is None:
            self.place = self._made_elsewhere(value) or self.place
        self._at += 1

    def _made_elsewhere(self, value: Any) -> Place | None:
        """Where a global is made that this module has imported from another."""
        for module in list(sys.modules.values()):
            if not issubclass(type(module), types.ModuleType):
                continue
            for name in [name for name, found in list(vars(module).items()) if found is value]:
                place = self._words.assignment(getattr(module, "__file__", None), name)
                if place[1] is not None:
                    return place
        return None

    def _class(self, holder: type, held: Any) -> None:
        self.path.append(f"class {type_name_of(holder)}")
        value = held
        if issubclass(type(held), dict) and self._at + 2 < len(self._way):
            # The class's own table, which Python shows through a proxy only.
            value = self._way[self._at + 2]
        name = next((str(name) for name, found in list(vars(holder).items()) if found is value), None)
        if name is None:
            return
        self.path.append(name)
        self.kind = "cache" if "cache" in name.lower() else "attribute"
        self.place = self._words.class_line(holder, name)
        if value is not held:
            self._at += 1

    def _cell_name(self, cell: types.CellType) -> str:
        functions = (step for step in reversed(self._way[: self._at]) if type(step) is types.FunctionType)
        owner = next(functions, None)
        if owner is not None:
            for name, found in zip(owner.__code__.co_freevars, owner.__closure__ or (), strict=False):
                if found is cell:
                    return f"{name} of {owner.__qualname__}"
        return "of a function"

    def _frame(self, holder: types.FrameType, held: Any) -> None:
        name = self._local if self._at == 0 and self._local else key_of(self._words.locals_of(holder), held)
        self.path.append(f"local {name} of {holder.f_code.co_qualname}")
        if self.kind not in ("traceback", "generator"):
            self.place = holder.f_code.co_filename, holder.f_lineno

    def _generator(self, holder: Any, held: Any) -> None:
        frame, code = _frame_and_code(holder)
        name = "?" if frame is None else key_of(self._words.locals_of(frame), held)
        self.path.append(f"generator {holder.__qualname__}, local {name}")
        line = code.co_firstlineno if frame is None else frame.f_lineno
        self.kind, self.place = "generator", (code.co_filename, line)

    def _variable(self, holder: contextvars.Context) -> None:
        """Past the tables that a context's variables lie in, to the one whose value it is."""
        after = {id(step): at for at, step in enumerate(self._way) if at > self._at}
        for variable, value in holder.items():
            if (at := after.get(id(value))) is not None:
                self.path.append(f"variable {variable.name}")
                self.kind, self.place = "global", self._made_elsewhere(variable) or (None, None)
                self._at = at - 1
                return

    def _skip_to_locals(self) -> None:
        """Past the tables that a thread's own data lies in, to the name that it has there."""
        while self._at + 2 < len(self._way):
            table, value = self._way[self._at + 1], self._way[self._at + 2]
            if type(table) is not dict:
                return
            name = key_of(table, value)
            self._at += 1
            if isinstance(next(iter(table), None), str):
                self.path.append(f".{name}")
                return

    def _instance(self, holder: Any, held: Any, *, named: bool) -> None:
        after = self._way[self._at + 2] if self._at + 2 < len(self._way) else None
        table = _table_of(holder)
        attribute = _attribute_of(holder, table, held, after)
        if attribute in HOOKS:
            self.path.append(f"hook of {type_name(holder)}")
            self.kind = "hook"
        elif attribute is not None:
            self.path.append(f".{attribute}" if named else f"{type_name(holder)}.{attribute}")
            if "cache" in attribute.lower():
                self.kind = "cache"
        elif not named:
            self.path.append(type_name(holder))
        if attribute is not None and table is held:
            self._at += 1


# --------------------------------------------------------------------------- names


def key_of(found: Mapping[Any, Any], held: object) -> str:
    """The key of `held` in `found`; of a key that is no name or number only its type."""
    with suppress(RuntimeError):  # another thread changes it: no copy is made of what may be a million
        for key, value in found.items():
            if value is held or key is held:
                plain = issubclass(type(key), str | int | float | bool)
                return str(key)[:60] if plain else type_name(key)
    return "?"


def type_name(found: object) -> str:
    return type_name_of(type(found))


def type_name_of(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _table_of(holder: object) -> dict[str, Any] | None:
    """Its own attributes, without running code of its class."""
    try:
        table = object.__getattribute__(holder, "__dict__")
    except AttributeError:
        return None
    return table if isinstance(table, dict) else None


def _attribute_of(holder: object, table: dict[str, Any] | None, held: object, after: object) -> str | None:
    """The attribute by which `holder` holds `held`, or, where that is its own table, `after`."""
    wanted = after if table is held else held
    for name, value in list((table or {}).items()):
        if value is wanted:
            return str(name)
    for kind in type(holder).__mro__:
        for name, member in list(vars(kind).items()):
            if type(member) is types.MemberDescriptorType:
                try:
                    if member.__get__(holder, type(holder)) is held:
                        return name
                except AttributeError:
                    continue
    return None


def _frame_and_code(generator: Any) -> tuple[types.FrameType | None, types.CodeType]:
    for kind in ("gi", "cr", "ag"):
        code = getattr(generator, f"{kind}_code", None)
        if isinstance(code, types.CodeType):
            return getattr(generator, f"{kind}_frame", None), code
    raise TypeError(f"{generator!r} is no generator")


def _assigned(body: list[ast.stmt], name: str) -> Iterator[int]:
    """Lines that bind `name` among these statements and those in their blocks."""
    for statement in body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
            targets = [statement.target]
        for target in targets:
            if any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(target)):
                yield statement.lineno
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if statement.name == name:
                yield statement.lineno
            continue
        for part in ("body", "orelse", "finalbody"):
            yield from _assigned(getattr(statement, part, None) or [], name)
        for handler in getattr(statement, "handlers", ()):
            yield from _assigned(handler.body, name)


def _assigned_in_calls(tree: ast.Module, name: str) -> Iterator[int]:
    """Lines of functions that bind `name` as a global."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            declared = any(isinstance(found, ast.Global) and name in found.names for found in ast.walk(node))
            if declared:
                yield from _assigned(node.body, name)
