"""A component's weights: views in one region of device memory, there or not there as a whole.

Every parameter and persistent buffer of a module gets a place in one region, so a load is one
allocation and an unload gives back every byte, whatever still refers to them. While the weights
are absent each parameter is an empty tensor and every forward is refused in Python, since a
kernel that reads a released region ends the device context.

A region has a segment for each block of the net and one for all that lies outside them. They
arrive one after the other; a forward waits for each where it needs it. Nothing outside this
module keeps a tensor of weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from engine.errors import NotResident
from engine.models.layout import place
from engine.worker.backend import Backend, Mark
from engine.worker.region import Gate, Region

BLOCK = re.compile(r"^(?:.*?\.)?\w*blocks?\.\d+(?=\.)")
"""The block that a tensor's name lies in: `blocks.7`, `encoder.block.3`, `decoder.up_blocks.0`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """The place of one tensor in the arena. Tied parameters share one."""

    names: tuple[str, ...]
    """In the module, the first one registered first."""
    segment: int
    begin: int
    bytes: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where each tensor of a module lies. Equal layouts can take each other's place."""

    slots: tuple[Slot, ...]
    segments: tuple[str, ...]
    """Names of the module's blocks in the order in which a forward needs them; the first one, `""`,
    is all that lies outside them."""
    segment_bytes: tuple[int, ...]
    """Boundaries included, so they add up to `bytes`."""
    bytes: int


@dataclass(kw_only=True, slots=True, eq=False)
class _Held:
    """One tensor of the module and everywhere that it is registered."""

    names: list[str]
    tensor: Tensor
    owners: list[tuple[nn.Module, str]] = field(default_factory=list)


def _ignore_wait() -> None:
    """Where nobody asks a wait to end."""


class Arena:
    """One module's weights in a region, or none.

    The module is built on the meta device and belongs to the arena from then on. Attached and
    detached by one thread at a time; the store's lock sees to it.

    Raises:
        ValueError: a non-persistent buffer is on the meta device, so nobody computed it.
    """

    def __init__(
        self,
        module: nn.Module,
        backend: Backend,
        *,
        label: str,
        dtypes: Mapping[str, torch.dtype],
        order: Mapping[str, int] | None = None,
    ) -> None:
        """`dtypes` gives the dtype of a tensor by its first name; absent ones keep the module's.

        `order` ranks names as they lie in the component's files: tensors of a block that follow
        each other there do so here, and travel in one copy.
        """
        self.label = label
        self.module = module
        self.poll: Callable[[], None] = _ignore_wait
        """Runs while a forward waits for weights; what it raises ends the forward."""
        self._backend = backend
        self._region: Region | None = None
        held = _in_order(list(_weights(module)), order or {})
        self._outside = list(_outside(module, label))
        self.layout = _place(held, dtypes)
        # On the host, so that a model can be opened before there is a device context.
        self._empties = [torch.empty(0, dtype=slot.dtype) for slot in self.layout.slots]
        self._parameters: list[tuple[int, nn.Parameter]] = []
        self._buffers: list[tuple[int, nn.Module, str]] = []
        for number, item in enumerate(held):
            self._adopt(number, item)
        self._home = Region(backend, self.layout.bytes, len(self.layout.segments))
        self._guard(module)

    @property
    def bytes(self) -> int:
        """Of the region when attached."""
        return self.layout.bytes

    @property
    def held_bytes(self) -> int:
        """Of the segments that are this component's, arrived or on their way."""
        region = self._region
        if region is None:
            return 0
        sizes = zip(region.holders, self.layout.segment_bytes, strict=True)
        return sum(size for holder, size in sizes if holder == self.label)

    @property
    def outside_bytes(self) -> int:
        """Non-persistent buffers that lie on the device beside the region while attached."""
        if self._region is None or self._backend.kind == "cpu":
            return 0
        return sum(master.nbytes for _, _, master in self._outside)

    @property
    def attached(self) -> bool:
        """Whether a region belongs to it, whose weights are there or on their way."""
        return self._region is not None

    @torch.inference_mode(False)
    @torch.no_grad()
    def attach(self) -> tuple[Tensor, list[Gate]]:
        """Allocate the region and give the module its views, whose weights are still to come.

        Returns the region's bytes, to be written slot by slot, and the gate of each segment, to be
        opened once that is done.

        Raises:
            what the device answers when it has no room; not a byte stays allocated then.
        """
        assert self._region is None, f"{self.label} is attached already"
        region = self._home
        try:
            memory = self._view(region)
        except BaseException:
            self._region = region
            self.detach()
            raise
        self._region = region
        return memory, [region.expect(segment, self.label) for segment in range(len(self.layout.segments))]

    @torch.inference_mode(False)
    @torch.no_grad()
    def attach_to(self, other: Arena) -> Tensor:
        """Give the module views in the region of `other`, to take its segments one by one.

        Returns the region's bytes as `attach` does. Until `other.hand_over` ends it, both
        are attached to the same bytes, and each refuses to compute with the other's segments.
        """
        assert self._region is None and other._region is not None, "one gives, one gets"
        assert self.layout == other.layout, "only equals can take each other's place"
        memory = self._view(other._region)
        self._region = other._region
        return memory

    def take_segment(self, segment: int) -> Gate:
        """The segment is this component's from now on; its gate."""
        assert self._region is not None, "attach_to comes first"
        return self._region.expect(segment, self.label)

    @torch.inference_mode(False)
    @torch.no_grad()
    def hand_over(self, taker: Arena) -> None:
        """Leave the region to `taker`, which is attached to it: this one is absent, no byte is freed."""
        assert taker._region is self._region, "attach_to comes first"
        self._home, taker._home = taker._home, self._home
        self._forget_views()
        self._region = None

    @torch.inference_mode(False)
    @torch.no_grad()
    def detach(self) -> None:
        """Give every byte back; harmless when absent. Nothing may be copying into it any more."""
        region = self._region
        if region is None:
            return
        self._forget_views()
        self._region = None
        region.release()
        self._backend.free_cache()

    def mark_compute(self) -> Mark:
        """The end of what this thread has queued on the arena's device."""
        return self._backend.mark_compute()

    def unload(self) -> None:
        """Give every byte back once the device has finished with them; harmless when absent."""
        if self.attached:
            self._backend.synchronize()
            self.detach()

    def _view(self, region: Region) -> Tensor:
        memory = region.commit()
        if not region.views:
            region.views = [
                memory[slot.begin : slot.begin + slot.bytes].view(slot.dtype).view(slot.shape)
                for slot in self.layout.slots
            ]
        views = region.views
        for number, parameter in self._parameters:
            parameter.data = views[number]
        for number, owner, name in self._buffers:
            owner._buffers[name] = views[number]
        for owner, name, master in self._outside:
            owner._buffers[name] = master.to(self._backend.device)
        return memory

    def views(self) -> Iterator[Tensor]:
        """Tensors over all memory that it keeps, attached or not: one of each region, and those beside."""
        for region in (self._home, self._region):
            if region is not None:
                yield from region.views[:1]
        for owner, name, master in self._outside:
            yield master
            current = owner._buffers[name]
            if current is not None and current is not master:
                yield current

    def _forget_views(self) -> None:
        for number, parameter in self._parameters:
            parameter.data = self._empties[number]
        for number, owner, name in self._buffers:
            owner._buffers[name] = self._empties[number]
        for owner, name, master in self._outside:
            owner._buffers[name] = master

    def _adopt(self, number: int, held: _Held) -> None:
        """Replace a meta tensor by one that can be emptied and filled, at every place it has."""
        if isinstance(held.tensor, nn.Parameter):
            parameter = nn.Parameter(self._empties[number], requires_grad=False)
            self._parameters.append((number, parameter))
            for owner, name in held.owners:
                owner._parameters[name] = parameter
            return
        for owner, name in held.owners:
            self._buffers.append((number, owner, name))
            owner._buffers[name] = self._empties[number]

    def _guard(self, module: nn.Module) -> None:
        """Let every part that owns weights ask for its segment before it computes."""
        numbers = {name: number for number, name in enumerate(self.layout.segments)}
        for name, part in module.named_modules():
            if part is module or part._parameters or part._buffers:
                segment = numbers.get(block_of(f"{name}.") or "", 0)
                part.register_forward_pre_hook(self._entering(segment))

    def _entering(self, segment: int) -> Callable[[nn.Module, object], None]:
        label = self.label

        def enter(module: nn.Module, args: object) -> None:
            region = self._region
            if region is None:
                raise NotResident(f"{label} was used while it is not loaded; lease it first")
            if region.entered[segment] != label:
                region.enter(segment, label, self.poll)

        return enter


def block_of(tensor: str) -> str | None:
    """The block that a tensor of this name lies in, or None: `blocks.7.ffn.net.2.bias` -> `blocks.7`."""
    found = BLOCK.match(tensor)
    return found.group() if found else None


def _weights(module: nn.Module) -> Iterator[_Held]:
    """The parameters and persistent buffers of `module`, tied ones once, in their order."""
    found: dict[int, _Held] = {}
    for prefix, owner in module.named_modules(remove_duplicate=True):
        named: list[tuple[str, Tensor | None]] = list(owner._parameters.items())
        named += [item for item in owner._buffers.items() if item[0] not in owner._non_persistent_buffers_set]
        for name, tensor in named:
            if tensor is None:
                continue
            held = found.setdefault(id(tensor), _Held(names=[], tensor=tensor))
            held.names.append(f"{prefix}.{name}" if prefix else name)
            held.owners.append((owner, name))
    yield from found.values()


def _outside(module: nn.Module, label: str) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """The non-persistent buffers: computed once on the host, not part of any file."""
    for prefix, owner in module.named_modules():
        for name in sorted(owner._non_persistent_buffers_set):
            tensor = owner._buffers[name]
            if tensor is None:
                continue
            if tensor.is_meta:
                raise ValueError(
                    f"{label} has a buffer {prefix}.{name} that no file holds and nobody computed"
                )
            yield owner, name, tensor


def _block_of(held: _Held) -> str:
    """The segment of a tensor; a tied one belongs to the outside if any of its names does."""
    if any(block_of(name) is None for name in held.names):
        return ""
    return block_of(held.names[0]) or ""


def _in_order(held: list[_Held], order: Mapping[str, int]) -> list[_Held]:
    """By segment, as a forward needs them, and within each as the files have them."""
    segments = list(dict.fromkeys(["", *map(_block_of, held)]))
    rank = {segment: number for number, segment in enumerate(segments)}

    def place_of(item: tuple[int, _Held]) -> tuple[int, int, int]:
        number, tensor = item
        in_file = min((order[name] for name in tensor.names if name in order), default=number)
        return rank[_block_of(tensor)], in_file, number

    return [tensor for _, tensor in sorted(enumerate(held), key=place_of)]


def _place(held: list[_Held], dtypes: Mapping[str, torch.dtype]) -> Layout:
    kept = [dtypes.get(item.names[0], item.tensor.dtype) for item in held]
    sizes = [item.tensor.numel() * dtype.itemsize for item, dtype in zip(held, kept, strict=True)]
    begins, total = place(sizes)
    blocks = [_block_of(item) for item in held]
    segments = tuple(dict.fromkeys(["", *blocks]))
    numbers = {segment: number for number, segment in enumerate(segments)}
    segment_bytes = [0] * len(segments)
    for number, block in enumerate(blocks):
        end = begins[number + 1] if number + 1 < len(begins) else total
        segment_bytes[numbers[block]] += end - begins[number]
    slots = tuple(
        Slot(
            names=tuple(item.names),
            segment=numbers[block],
            begin=begin,
            bytes=size,
            shape=tuple(item.tensor.shape),
            dtype=dtype,
        )
        for item, block, begin, size, dtype in zip(held, blocks, begins, sizes, kept, strict=True)
    )
    return Layout(slots=slots, segments=segments, segment_bytes=tuple(segment_bytes), bytes=total)
