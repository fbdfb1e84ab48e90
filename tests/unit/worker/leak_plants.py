"""Tensors that are kept where they should not be, each in another way."""

from __future__ import annotations

import contextvars
import functools
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

SHAPE = (64, 1024)
KEPT: list[Tensor] = []
BY_NAME: dict[str, Any] = {}
MADE_LATE: Tensor
LOCAL = threading.local()
VARIABLE = contextvars.ContextVar[tuple[Tensor, ...]]("plant", default=())
HELD: list[Any] = []
SHAPE_CACHE: dict[int, Tensor] = {}


class Keeper:
    """Holds in a class, an instance and a slot."""

    TABLE: ClassVar[dict[int, Tensor]] = {}

    def __init__(self, tensor: Tensor) -> None:
        self.kept = tensor


class Memo:
    """Keeps what it was asked for, in itself and for all of its kind."""

    CACHE: ClassVar[dict[int, Tensor]] = {}

    def __init__(self, tensor: Tensor) -> None:
        self.grid_cache = {0: tensor}


class Doing:
    """Holds by the method of an instance."""

    def __init__(self, tensor: Tensor) -> None:
        self.kept = tensor

    def method(self) -> Tensor:
        return self.kept


class Proxy:
    """Answers for something that is not there, as of a request that has ended."""

    def __init__(self, tensor: Tensor) -> None:
        self.kept = tensor

    @property
    def __class__(self) -> type:
        raise LookupError("outside of a request")

    @__class__.setter
    def __class__(self, kind: type) -> None:
        raise LookupError("outside of a request")


class Refusing(Tensor):
    """Takes part in no operation that it does not know."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise TypeError(f"no implementation for {func}")


class Slotted:
    __slots__ = ("kept",)

    def __init__(self, tensor: Tensor) -> None:
        self.kept = tensor


def new() -> Tensor:
    return torch.ones(SHAPE)


def new_on(device: str, count: int) -> Tensor:
    return torch.ones(count, device=device)


def make_global() -> Tensor:
    global MADE_LATE
    MADE_LATE = new()
    return MADE_LATE


def make_undeclared() -> None:
    global UNDECLARED  # made by this function alone
    UNDECLARED = new()


def closing_over(tensor: Tensor) -> Callable[[], Tensor]:
    def inner() -> Tensor:
        return tensor

    return inner


def default_of(tensor: Tensor) -> Callable[[], Tensor]:
    def inner(found: Tensor = tensor) -> Tensor:
        return found

    return inner


def hook_on(module: nn.Module, tensor: Tensor) -> None:
    def hook(module: nn.Module, args: object) -> None:
        tensor.sum()

    module.register_forward_pre_hook(hook)


def partial_hook_on(module: nn.Module, tensor: Tensor) -> None:
    def half_hook(kept: Tensor, module: nn.Module, args: object) -> None:
        pass

    module.register_forward_pre_hook(functools.partial(half_hook, tensor))


def failing(tensor: Tensor) -> None:
    raise RuntimeError(f"planted {tuple(tensor.shape)}")  # the traceback's line


def failed(tensor: Tensor) -> BaseException:
    try:
        failing(tensor)
    except RuntimeError as error:
        return error
    raise AssertionError


def yielding(tensor: Tensor) -> Iterator[int]:
    local = tensor
    yield 1  # the generator's line
    local.sum()


def named_default_of(tensor: Tensor) -> Callable[[], Tensor]:
    def inner(*, found: Tensor = tensor) -> Tensor:
        return found

    return inner


def hook_as(module: nn.Module, register: str, tensor: Tensor) -> None:
    def any_hook(*_: object) -> None:
        tensor.sum()

    getattr(module, register)(any_hook)


async def awaiting(tensor: Tensor) -> None:
    local = tensor
    await Never()
    local.sum()


async def yielding_late(tensor: Tensor) -> AsyncIterator[int]:
    local = tensor
    await Never()
    yield local.numel()


class Never:
    """What is awaited and does not come."""

    def __await__(self) -> Iterator[None]:
        yield


@functools.lru_cache
def looked_up(number: int) -> Tensor:
    return new()


@functools.lru_cache
def cached(number: int) -> Tensor:
    return new()


class Ring:
    """Refers to itself."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.own = self


def line_of(text: str) -> int:
    """The line of this file that begins with `text`, but for blanks."""
    with open(__file__, encoding="utf-8") as lines:
        return next(number for number, line in enumerate(lines, 1) if line.strip().startswith(text))


class Waiting(threading.Thread):
    """Runs a call that holds a tensor until told to drop it, and runs on until told to end."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.box = [tensor]
        self.ready, self.drop = threading.Event(), threading.Event()
        self.dropped, self.finish = threading.Event(), threading.Event()

    def run(self) -> None:
        local = self.box.pop()
        self.ready.set()
        self.drop.wait(10)
        del local
        self.dropped.set()
        self.finish.wait(10)


def clear() -> None:
    """Keep nothing any more."""
    global MADE_LATE
    KEPT.clear()
    BY_NAME.clear()
    HELD.clear()
    Keeper.TABLE.clear()
    Memo.CACHE.clear()
    SHAPE_CACHE.clear()
    cached.cache_clear()
    looked_up.cache_clear()
    LOCAL.__dict__.clear()
    globals().pop("MADE_LATE", None)
    globals().pop("UNDECLARED", None)
    sys.__dict__.pop("last_exc", None)
