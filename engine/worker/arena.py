"""A component's weights: views in one region of device memory, there or not there as a whole.

Every parameter and persistent buffer of a module gets a place in one `DeviceMemory`, so a load
is one allocation and an unload gives back every byte, whatever still refers to them. While the
weights are absent each parameter is an empty tensor and every forward is refused in Python,
since a kernel that reads a released region ends the device context.

Nothing outside this module keeps a tensor of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from engine.errors import NotResident
from engine.models.layout import place
from engine.worker.backend import Backend


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """The place of one tensor in the arena. Tied parameters share one."""

    names: tuple[str, ...]
    """In the module, the first one registered first."""
    begin: int
    bytes: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where each tensor of a module lies."""

    slots: tuple[Slot, ...]
    bytes: int


@dataclass(kw_only=True, slots=True, eq=False)
class _Held:
    """One tensor of the module and everywhere that it is registered."""

    names: list[str]
    tensor: Tensor
    owners: list[tuple[nn.Module, str]] = field(default_factory=list)


class Arena:
    """Loads and unloads one module's weights as a whole.

    The module is built on the meta device and belongs to the arena from then on. Used by one
    thread at a time; the store's lock sees to it.

    Raises:
        ValueError: a non-persistent buffer is on the meta device, so nobody computed it.
    """

    def __init__(
        self, module: nn.Module, backend: Backend, *, label: str, dtypes: Mapping[str, torch.dtype]
    ) -> None:
        """`dtypes` gives the dtype of a tensor by its first name; absent ones keep the module's."""
        self.label = label
        self._backend = backend
        self._resident = False
        held = list(_weights(module))
        self._outside = list(_outside(module, label))
        self.layout = _place(held, dtypes)
        self._empties = [
            torch.empty(0, dtype=slot.dtype, device=backend.device) for slot in self.layout.slots
        ]
        self._parameters: list[tuple[int, nn.Parameter]] = []
        self._buffers: list[tuple[int, nn.Module, str]] = []
        for number, item in enumerate(held):
            self._adopt(number, item)
        self._memory = backend.new_memory(self.layout.bytes)
        for part in module.modules():
            if part is module or part._parameters or part._buffers:
                part.register_forward_pre_hook(self._refuse_when_absent)

    @property
    def bytes(self) -> int:
        """Of the region when resident."""
        return self.layout.bytes

    @property
    def outside_bytes(self) -> int:
        """Non-persistent buffers that lie on the device beside the region while resident."""
        if not self._resident or self._backend.kind == "cpu":
            return 0
        return sum(master.nbytes for _, _, master in self._outside)

    @property
    def resident(self) -> bool:
        return self._resident

    @torch.inference_mode(False)
    @torch.no_grad()
    def load(self, fill: Callable[[Mapping[str, Tensor]], None]) -> None:
        """Allocate the region, let `fill` write it, and give the module its weights.

        `fill` gets the flat 1-D view of each slot by its first name. If it raises, not a byte
        stays allocated and the module is as absent as before.
        """
        if self._resident:
            return
        try:
            region = self._memory.commit()
            flat = {
                slot.names[0]: region[slot.begin : slot.begin + slot.bytes].view(slot.dtype)
                for slot in self.layout.slots
            }
            fill(flat)
            views = [flat[slot.names[0]].view(slot.shape) for slot in self.layout.slots]
            for number, parameter in self._parameters:
                parameter.data = views[number]
            for number, owner, name in self._buffers:
                owner._buffers[name] = views[number]
            for owner, name, master in self._outside:
                owner._buffers[name] = master.to(self._backend.device)
        except BaseException:
            self._drop()
            raise
        self._resident = True

    @torch.inference_mode(False)
    @torch.no_grad()
    def unload(self) -> None:
        """Give every byte back. Waits for the device to finish with them; harmless when absent."""
        if self._resident:
            self._backend.synchronize()
            self._drop()

    def _drop(self) -> None:
        self._resident = False
        for number, parameter in self._parameters:
            parameter.data = self._empties[number]
        for number, owner, name in self._buffers:
            owner._buffers[name] = self._empties[number]
        for owner, name, master in self._outside:
            owner._buffers[name] = master
        self._memory.release()
        self._backend.free_cache()

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

    def _refuse_when_absent(self, module: nn.Module, args: object) -> None:
        if not self._resident:
            raise NotResident(f"{self.label} was used while it is not loaded; lease it first")


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


def _place(held: list[_Held], dtypes: Mapping[str, torch.dtype]) -> Layout:
    kept = [dtypes.get(item.names[0], item.tensor.dtype) for item in held]
    sizes = [item.tensor.numel() * dtype.itemsize for item, dtype in zip(held, kept, strict=True)]
    begins, total = place(sizes)
    slots = tuple(
        Slot(names=tuple(item.names), begin=begin, bytes=size, shape=tuple(item.tensor.shape), dtype=dtype)
        for item, begin, size, dtype in zip(held, begins, sizes, kept, strict=True)
    )
    return Layout(slots=slots, bytes=total)
