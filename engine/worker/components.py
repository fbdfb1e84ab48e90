"""The components of a model in diffusers layout, each with its module, its files and its arena.

A module is built on the meta device from its configuration, and its place in memory follows from
that and from the headers of its files; no weight is read here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from engine.errors import ModelUnusable, NotFound
from engine.models.configs import read_dit_config
from engine.models.content import content_of
from engine.models.folders import DIT, DIT_HIGH, DIT_LOW, FOLDERS, TEXT, TOKENIZER, VAE
from engine.models.in_place import stamps_in_place
from engine.models.index import FETCH_AGAIN, ComponentIndex, read_component_index
from engine.models.layout import has_proj_l, kept_dtype, resident_dtype
from engine.models.prompts import config_digest, digest_of
from engine.wire import VaePrecision
from engine.worker.arena import Arena
from engine.worker.backend import Backend
from engine.worker.channel import ModelFiles
from engine.worker.loading import Loading, Vacancy
from engine.worker.nets.int8 import replace_linears
from engine.worker.nets.umt5 import TextEncoder
from engine.worker.nets.wan import WanNet, add_proj_l
from engine.worker.region import Gate
from engine.worker.stream import TORCH_DTYPES, Transfer, order_of, plan_transfers
from engine.worker.text import Tokenizer, open_tokenizer
from engine.worker.warm import WarmTier

OnEnd: TypeAlias = Callable[[Loading], None]
FolderStamp: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Name, inode, length and time of change of each file that opening a component reads."""
STAMPED = (".json", ".safetensors", ".bin", ".pth", ".model")
"""Endings of such files: configurations, tables, weights, tokenizers."""


@dataclass(kw_only=True, slots=True, eq=False)
class Component:
    """One loadable part of a model."""

    model: str
    name: str
    index: ComponentIndex
    module: nn.Module
    arena: Arena
    transfers: tuple[Transfer, ...]
    stamp: FolderStamp
    """Of its folder, from before anything in it was read."""
    config: str
    """`config_digest` of its configuration, as it was read."""
    content: str
    """What its weights and configuration are, wherever they lie."""
    leases: int = 0
    last_used: float = 0.0
    loading: Loading | None = None
    """The load that filled the region, or does so now; None while it is absent."""

    @property
    def label(self) -> str:
        return f"{self.model}/{self.name}"

    @property
    def bytes(self) -> int:
        return self.arena.bytes

    @property
    def resident(self) -> bool:
        """Whether all its weights are there."""
        return self.arena.attached and (self.loading is None or self.loading.ok)

    @property
    def broken(self) -> bool:
        """Whether its load has failed, so that the region only takes room."""
        return self.arena.attached and self.loading is not None and self.loading.failure is not None

    def same_weights(self, other: Component) -> bool:
        """Whether the other one's device memory would serve as this one's."""
        return (
            self.name == other.name
            and self.content == other.content
            and self.arena.layout == other.arena.layout
        )

    def adopt(self, twin: Component) -> None:
        """Take over the device memory of `twin`, which has the same weights and is absent after."""
        self.arena.attach_to(twin.arena)
        mark = self.arena.mark_compute()
        for segment in range(len(self.arena.layout.segments)):
            self.arena.take_segment(segment).arrive(mark)
        twin.arena.hand_over(self.arena)
        twin.loading, self.loading = None, twin.loading
        self.last_used = max(self.last_used, twin.last_used)

    def begin_load(self, backend: Backend, warm: WarmTier | None, began: float, on_end: OnEnd) -> Loading:
        """Attach the arena and make the load that fills it; `Loading.run` does the rest.

        Raises:
            what the device answers when it has no room; nothing stays allocated.
        """
        memory, gates = self.arena.attach()
        return self._loading(memory, gates, backend, warm, began, on_end)

    def begin_load_into(
        self,
        other: Component,
        vacancies: Sequence[Vacancy],
        backend: Backend,
        warm: WarmTier | None,
        began: float,
        on_end: OnEnd,
    ) -> Loading:
        """Attach to the region of `other` and make the load that takes it over, segment by segment."""
        memory = self.arena.attach_to(other.arena)
        return self._loading(memory, vacancies, backend, warm, began, on_end)

    def _loading(
        self,
        memory: Tensor,
        gates: Sequence[Gate] | Sequence[Vacancy],
        backend: Backend,
        warm: WarmTier | None,
        began: float,
        on_end: OnEnd,
    ) -> Loading:
        self.loading = Loading(
            self.label,
            self.index,
            self.transfers,
            memory,
            gates,
            backend,
            warm,
            total_bytes=self.bytes,
            began=began,
            on_end=on_end,
        )
        return self.loading

    def unload(self) -> None:
        """Give every byte back, whatever still travels; harmless when absent."""
        if self.loading is not None:
            self.loading.cancel()
        self.arena.unload()
        self.loading = None


@dataclass(kw_only=True, slots=True, eq=False)
class Model:
    """An opened model: its components, none of them loaded by opening."""

    files: ModelFiles
    components: dict[str, Component]
    tokenizer: Tokenizer = field(repr=False)
    tokenizer_stamp: FolderStamp
    """Of its folder, from before anything in it was read."""
    tokenizer_digest: str | None
    """`sha256:` of the files that it was read from; None where they cannot be told for sure."""

    @property
    def name(self) -> str:
        return self.files.name


def open_model(files: ModelFiles, backend: Backend, vae_precision: VaePrecision = "auto") -> Model:
    """Read a model's configurations and file headers and lay out its arenas; loads nothing.

    Raises:
        ModelUnusable: something in its folder is missing, damaged or of another kind.
    """
    folders = FOLDERS.get(files.kind)
    if folders is None:
        raise ModelUnusable(
            f"{files.name} is of kind {files.kind!r}; this build runs {' and '.join(FOLDERS)} models"
        )
    root = Path(files.path)
    tokenizer, stamp, digest = _open_tokenizer(root / TOKENIZER)
    components: dict[str, Component] = {}
    for name, folder in folders.items():
        like = components.get(DIT_HIGH) if name == DIT_LOW else None
        components[name] = open_component(files.name, name, root / folder, backend, vae_precision, like=like)
    return Model(
        files=files,
        components=components,
        tokenizer=tokenizer,
        tokenizer_stamp=stamp,
        tokenizer_digest=digest,
    )


def reopen_changed(
    model: Model, backend: Backend, vae_precision: VaePrecision = "auto"
) -> dict[str, Component]:
    """Components opened anew whose files are others than those of `model`'s, by name; also its tokenizer.

    `model` gets the new tokenizer; its components stay for the caller to replace.

    Raises:
        ModelUnusable: a changed part is missing or damaged; `model` is as it was.
    """
    root = Path(model.files.path)
    changed: dict[str, Component] = {}
    for name, component in model.components.items():
        like = changed.get(DIT_HIGH) or model.components.get(DIT_HIGH) if name == DIT_LOW else None
        # One that was laid out as a high-noise expert that is gone.
        unlike = like is not None and DIT_HIGH in changed and like.arena.layout != component.arena.layout
        if unlike or folder_stamp(component.index.folder) != component.stamp:
            folder = component.index.folder
            changed[name] = open_component(model.name, name, folder, backend, vae_precision, like=like)
    if folder_stamp(root / TOKENIZER) != model.tokenizer_stamp:
        model.tokenizer, model.tokenizer_stamp, model.tokenizer_digest = _open_tokenizer(root / TOKENIZER)
    return changed


@torch.inference_mode(False)  # a parameter made in that mode can never be given its weights
def open_component(
    model: str,
    name: str,
    folder: Path,
    backend: Backend,
    vae_precision: VaePrecision = "auto",
    *,
    like: Component | None = None,
) -> Component:
    """Build one component on the meta device and lay out its arena as its files have their tensors.

    Or as those of `like` have them: two experts take each other's place only where they lie alike.

    Raises:
        ModelUnusable: as `open_model`.
    """
    stamp = folder_stamp(folder)
    config, config_bytes = _read_config(folder)
    int8 = name.startswith(DIT) and read_dit_config(folder).int8
    index = read_component_index(folder)
    try:
        module = _build(name, config, int8=int8, sla=name.startswith(DIT) and has_proj_l(index))
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ModelUnusable(
            f"{folder / 'config.json'} describes no {name} that this build knows ({error}); {FETCH_AGAIN}"
        ) from error
    try:
        content = content_of(folder / "config.json", [file.path for file in index.files])
    except OSError as error:
        raise ModelUnusable(f"{folder} cannot be read: {error.strerror}; {FETCH_AGAIN}") from error
    arena = Arena(
        module,
        backend,
        label=f"{model}/{name}",
        dtypes=_dtypes(name, module, index, vae_precision),
        order=order_of(index if like is None else like.index),
    )
    return Component(
        model=model,
        name=name,
        index=index,
        module=module,
        arena=arena,
        transfers=plan_transfers(arena.layout, index),
        stamp=stamp,
        config=config_digest(config_bytes),
        content=content,
    )


def component_named(model: Model, name: str) -> Component:
    """The component called `name`.

    Raises:
        NotFound: the model has none of that name.
    """
    try:
        return model.components[name]
    except KeyError:
        raise NotFound(
            f"{model.name} has no component {name!r}; it has {', '.join(model.components)}"
        ) from None


def folder_stamp(folder: Path) -> FolderStamp:
    """What tells a folder whose files were edited or replaced from the one that was opened.

    A folder or a file that cannot be looked at has a stamp too; opening says what is wrong with it.
    """
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(STAMPED):
                # Repositories from a download cache are links: what they lead to counts.
                with suppress(OSError):
                    info = os.stat(entry.path)
                    found.append((entry.name, info.st_ino, info.st_size, info.st_mtime_ns))
    found += stamps_in_place(folder)
    return tuple(sorted(found))


def _open_tokenizer(folder: Path) -> tuple[Tokenizer, FolderStamp, str | None]:
    """The tokenizer in `folder`, the stamp from before it was read, and the digest of its files.

    Raises:
        ModelUnusable: as `open_tokenizer`.
    """
    stamp = folder_stamp(folder)
    tokenizer = open_tokenizer(folder)
    digest = digest_of(folder)
    # Files that were replaced meanwhile are not those that it came from, or not all.
    return tokenizer, stamp, digest if folder_stamp(folder) == stamp else None


def _build(name: str, config: dict[str, Any], *, int8: bool, sla: bool) -> nn.Module:
    """The module on the meta device but for its computed buffers, in evaluation mode."""
    with torch.device("meta"), _without_init():
        if name == TEXT:
            module: Any = TextEncoder.build(config)
        elif name == VAE:
            module = AutoencoderKLWan.from_config(config)
        else:
            # The class has no such setting, and its library would look for a quantiser of that name.
            config.pop("quantization_config", None)
            module = WanNet.build(config)
            if int8:
                replace_linears(module)
            if sla:
                add_proj_l(module)
    built: nn.Module = module.requires_grad_(False).eval()
    return built


@contextmanager
def _without_init() -> Iterator[None]:
    """Let layers skip the random numbers that no meta tensor keeps: two fifths of building a net."""
    kept = {name: found for name, found in vars(nn.init).items() if name.endswith("_") and callable(found)}

    def leave(tensor: Tensor, *args: object, **settings: object) -> Tensor:
        return tensor

    for name in kept:
        setattr(nn.init, name, leave)
    try:
        yield
    finally:
        for name, found in kept.items():
            setattr(nn.init, name, found)


def _dtypes(
    component: str, module: nn.Module, index: ComponentIndex, vae_precision: VaePrecision
) -> dict[str, torch.dtype]:
    """The dtype in which each floating tensor is kept on the device."""
    main = kept_dtype(component, index, vae_precision)
    return {
        name: TORCH_DTYPES[resident_dtype(component, name, main)]
        for name, tensor in [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]
        if tensor.is_floating_point()
    }


def _read_config(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The component's configuration, and the bytes that it was read from."""
    path = folder / "config.json"
    try:
        content = path.read_bytes()
        config = json.loads(content.decode("utf-8"))
    except FileNotFoundError as error:
        raise ModelUnusable(f"{path} is missing; {FETCH_AGAIN}") from error
    except OSError as error:
        raise ModelUnusable(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelUnusable(f"{path} is damaged ({error}); {FETCH_AGAIN}") from error
    if not isinstance(config, dict):
        raise ModelUnusable(f"{path} holds no table of settings; {FETCH_AGAIN}")
    return config, content
