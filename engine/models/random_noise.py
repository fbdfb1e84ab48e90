"""Random numbers at the disk's rate: one pool of normal noise, of which every tensor takes a stretch.

Drawing 14 billion normal numbers takes minutes; copying them out of a pool takes as long as the
disk does. Where a tensor's stretch begins follows from its name, so no two of a model are alike,
and the same are made each time. A tensor longer than the pool goes round it.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

POOL_ELEMENTS = 2**26 - 5
"""A prime, so that going round the pool never meets the columns of a weight in the same place."""
WHOLE_BYTES = 3 * 2**29
"""The most that pools with a recipe applied may take together."""
AT_ONCE = 2**22
"""Elements that one call of torch draws or converts, which stay in the caches."""
SEED = 20260101
TORCH_DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32, "I8": torch.int8}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What becomes of the noise: `shift` + `scale` * noise, rounded to integers where they are wanted."""

    dtype: str
    """As headers spell it: `BF16`, `F32` or `I8`."""
    scale: float
    shift: float = 0.0


class NoisePool:
    """A pool of noise and what was made of it. Its stretches may be read from several threads."""

    def __init__(self, elements: int = POOL_ELEMENTS) -> None:
        self.elements = elements
        self._noise = _drawn(elements)
        self._wanted: Counter[Recipe] = Counter()
        self._whole: dict[Recipe, Tensor] = {}
        self._lock = threading.Lock()

    def stretch(self, recipe: Recipe, name: str, elements: int) -> Stretch:
        """The numbers of the tensor called `name`, which must be unique among all models."""
        self._wanted[recipe] += elements
        return Stretch(self, recipe, position_of(name, self.elements))

    def parts(self, recipe: Recipe, position: int, count: int) -> Sequence[memoryview]:
        """The bytes of `count` elements from `position` on, going round."""
        source, cooked = self._source(recipe)
        found: list[memoryview] = []
        while count:
            taken = min(count, self.elements - position)
            numbers = source[position : position + taken]
            found.append(bytes_of(numbers if cooked else _cook(numbers, recipe)))
            count -= taken
            position = 0
        return found

    def _source(self, recipe: Recipe) -> tuple[Tensor, bool]:
        """The pool by `recipe` where the tensors want more than a pool of it, else the plain noise."""
        if self._wanted[recipe] < self.elements:
            return self._noise, False
        with self._lock:
            whole = self._whole.pop(recipe, None)
            if whole is None:
                whole = torch.empty(self.elements, dtype=TORCH_DTYPES[recipe.dtype])
                self._forget(WHOLE_BYTES - whole.nbytes)
                for begin in range(0, self.elements, AT_ONCE):
                    piece = slice(begin, begin + AT_ONCE)
                    whole[piece] = _cook(self._noise[piece], recipe)
            self._whole[recipe] = whole  # the last used comes last
            return whole, True

    def _forget(self, left_bytes: int) -> None:
        """Drop those that were used the longest ago until no more than `left_bytes` are held."""
        while self._whole and sum(whole.nbytes for whole in self._whole.values()) > left_bytes:
            del self._whole[next(iter(self._whole))]


@dataclass(frozen=True, slots=True)
class Stretch:
    """The numbers of one tensor."""

    pool: NoisePool
    recipe: Recipe
    position: int

    def parts(self, first: int, count: int) -> Sequence[memoryview]:
        """The bytes of `count` elements from element `first` on."""
        return self.pool.parts(self.recipe, (self.position + first) % self.pool.elements, count)


def position_of(name: str, elements: int) -> int:
    """Where in a pool of `elements` the tensor called `name` begins."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") % elements


def _cook(noise: Tensor, recipe: Recipe) -> Tensor:
    dtype = TORCH_DTYPES[recipe.dtype]
    if dtype == noise.dtype and not recipe.shift:
        return noise * recipe.scale
    numbers = noise.float().mul_(recipe.scale).add_(recipe.shift)
    if dtype == torch.int8:
        numbers.round_().clamp_(-127, 127)
    return numbers.to(dtype)


def bytes_of(numbers: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, where they lie."""
    return numbers.view(torch.uint8).numpy().data


@functools.cache
def _drawn(elements: int) -> Tensor:
    """Standard normal bf16, drawn once in a process. Each piece has its own seed: no order matters."""
    pool = torch.empty(elements, dtype=torch.bfloat16)

    def draw(begin: int) -> None:
        piece = pool[begin : begin + AT_ONCE]
        piece.copy_(torch.randn(piece.shape, generator=torch.Generator().manual_seed(SEED + begin)))

    with ThreadPoolExecutor(4) as threads:
        for _ in threads.map(draw, range(0, elements, AT_ONCE)):
            pass  # what one raised is raised here
    return pool
