"""Makes the int8 sibling of a model: the linear layers of its DiTs' blocks as int8 blocks, all else as it is.

A tensor is read, quantised and written in bands of rows, so that memory does not grow with the model.
The numbers are those of TurboDiffusion's quantised checkpoints (`engine.worker.nets.int8.quantise`).
On the processor alone: nobody who quantises wants their job's device memory taken.

    python -P -m engine.models.quantising MODELS NAME [--name NAME] [--out DIR] [--dry-run]

Says each thing as a line of JSON, {kind: fields}: `plan`, `progress`, then `done` or `error`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import msgspec
import torch

from engine.errors import EngineError, ModelUnusable, NotNow, StorageUnusable, WorkFailed
from engine.models.configs import INT8_BLOCK
from engine.models.dtypes import DTYPES
from engine.models.folders import DIT, FOLDERS, was_made_here
from engine.models.index import read_component_index
from engine.models.layout import FP32, INT8, INT8_BLOCK_SIZE, SCALE, int8_scale_shape, resident_dtype
from engine.models.making import only_maker, write_card
from engine.models.model import MODEL_INDEX, Model, read_model
from engine.models.quantised_files import (
    STATE,
    DoneFile,
    State,
    Sums,
    bring_rest,
    choose_folder,
    choose_source,
    clear_all_but,
    errors_of,
    making_folder,
    read_state,
    recipe_of,
    write_marker,
    write_state,
)
from engine.models.quantised_tensors import (
    Kept,
    Scales,
    Values,
    Weight,
    compare,
    is_quantised,
    remark_on,
    sha256_of,
)
from engine.models.siblings import weights_digest
from engine.models.weight_file import open_weight_file
from engine.models.weight_writer import FilePlan, TensorPlan, plan_shards, shard_table, write_files
from engine.units import size_text
from engine.wire import ErrorBody, Quantised, QuantiseError, QuantisePlan, QuantiseProgress

Message: TypeAlias = QuantisePlan | QuantiseProgress
Tell: TypeAlias = Callable[[Message], None]

KINDS: Mapping[type, str] = {
    QuantisePlan: "plan",
    QuantiseProgress: "progress",
    Quantised: "done",
    ErrorBody: "error",
}
"""What a message is called on its line."""

MAX_WRITERS = 8
"""Each holds a band in fp32 with its intermediate results, some 40 MiB."""
SHARD_BYTES = 2 * 10**9
"""The largest file: what a run that is stopped can lose."""
SMALL_FILES_BYTES = 64 * 2**20
"""Configurations, tokenizer, card and tables together: more than they take."""
DIT_STEM = "diffusion_pytorch_model"
PROGRESS_S = 1.0
SOURCES = ("BF16", "F16", "F32")
"""Formats of a weight that can be quantised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Dit:
    """One DiT in the making."""

    folder: str
    source: Path
    source_bytes: int
    weights: Mapping[str, Weight]
    """By name: those that become int8."""
    files: tuple[FilePlan, ...]


def quantise_model(
    models: Path,
    name: str,
    *,
    new_name: str | None = None,
    out: Path | None = None,
    tell: Tell = lambda message: None,
    dry_run: bool = False,
) -> QuantisePlan | Quantised:
    """Make the int8 sibling of the model called `name` in `models`, or with `dry_run` say what it would take.

    It appears all at once, in `out` if that is given, with a link to it in `models`. What is whole when
    a run is stopped is kept for the next one.

    Raises:
        NotFound, ModelUnusable, InvalidRequest: as `choose_source` and `choose_folder`.
        StorageUnusable: the disk has too little room.
        NotNow: another one is being made there.
        WorkFailed: what was written is not what was read.
        OSError: the disk cannot be written, or filled up.
    """
    models = models.absolute()
    source = choose_source(models, name)
    folder = choose_folder(models, source, new_name, None if out is None else out.absolute())
    with ExitStack() as stack:
        dits = [
            _plan_dit(source, part.folder, stack) for part in source.components if part.name.startswith("dit")
        ]
        making = making_folder(folder)
        paths = [(f"{dit.folder}/{file.name}", file) for dit in dits for file in dit.files]
        recipe = recipe_of(source, paths)
        state = read_state(making, recipe)
        plan = QuantisePlan(
            model=source.name,
            name=folder.name,
            path=str(folder),
            source_bytes=sum(dit.source_bytes for dit in dits),
            bytes=sum(file.bytes for _path, file in paths),
            kept_bytes=sum(done.bytes for done in state.files.values()),
            free_bytes=_free_bytes(folder.parent),
            layers=sum(len(dit.weights) for dit in dits),
        )
        tell(plan)
        if dry_run:
            return plan
        folder.parent.mkdir(parents=True, exist_ok=True)
        with only_maker(folder.parent, "quantise", on_wait=_refuse):
            if plan.bytes - plan.kept_bytes + SMALL_FILES_BYTES > plan.free_bytes + _left_bytes(
                making, state
            ):
                raise StorageUnusable(
                    f"{folder.name} needs {size_text(plan.bytes - plan.kept_bytes + SMALL_FILES_BYTES)} in "
                    f"{folder.parent}, whose disk has {size_text(plan.free_bytes)} free; make room, or write "
                    "it to another disk with --out"
                )
            made = _Making(source, folder, dits, plan, tell).run(state)
        if not folder.parent.samefile(models):
            (models / folder.name).symlink_to(folder)
        return made


class _Making:
    """One run."""

    def __init__(
        self, source: Model, folder: Path, dits: Sequence[_Dit], plan: QuantisePlan, tell: Tell
    ) -> None:
        self._source = source
        self._folder = folder
        self._making = making_folder(folder)
        self._dits = dits
        self._plan = plan
        self._tell = tell
        self._began = time.monotonic()
        self._done_bytes = plan.kept_bytes

    def run(self, state: State) -> Quantised:
        """Make what `state` lacks, and let the model appear."""
        clear_all_but(self._making, state)
        for dit in self._dits:
            (self._making / dit.folder).mkdir(exist_ok=True)
            for file in dit.files:
                path = f"{dit.folder}/{file.name}"
                if path not in state.files:
                    done = self._make_file(dit, file, path)
                    state = State(recipe=state.recipe, files={**state.files, path: done})
                    write_state(self._making, state)
        self._finish(state)
        errors = errors_of(state.files.values())
        return Quantised(
            model=self._source.name,
            name=self._folder.name,
            path=str(self._folder),
            source_bytes=self._plan.source_bytes,
            bytes=self._plan.bytes,
            layers=self._plan.layers,
            elapsed_s=time.monotonic() - self._began,
            errors=tuple(
                QuantiseError(layer=layer, relative_l2=error) for layer, error in sorted(errors.items())
            ),
            remark=remark_on(errors),
            sha256={path: done.sha256 for path, done in sorted(state.files.items())},
        )

    def _make_file(self, dit: _Dit, file: FilePlan, path: str) -> DoneFile:
        """Write it, and read it back."""
        before = self._done_bytes

        def progress(num_bytes: int) -> None:
            self._progress("write", path, before + num_bytes)

        progress(0)
        target = self._making / path
        try:
            write_files(
                [(target.parent, file)],
                writers=min(MAX_WRITERS, len(os.sched_getaffinity(0))),
                on_progress=progress,
                progress_s=PROGRESS_S,
            )
        except BaseException:
            target.with_name(f"{target.name}.part").unlink(missing_ok=True)
            raise
        with open(target, "rb") as handle:
            os.fsync(handle.fileno())
        self._done_bytes = before + file.bytes
        self._progress("check", path, self._done_bytes)
        with open_weight_file(target) as written:
            sums: dict[str, Sums] = {}
            for name in (tensor.name for tensor in file.tensors if tensor.name in dit.weights):
                kind = name.removesuffix(".weight").split(".", 2)[2]
                more = compare(dit.weights[name], written, file)
                old = sums.get(kind, Sums(difference=0.0, weight=0.0))
                sums[kind] = Sums(
                    difference=old.difference + more.difference, weight=old.weight + more.weight
                )
            return DoneFile(bytes=file.bytes, sha256=sha256_of(written), sums=sums)

    def _progress(self, stage: str, path: str, done_bytes: int) -> None:
        self._tell(
            QuantiseProgress(
                name=self._folder.name,
                stage="check" if stage == "check" else "write",
                file=path,
                done_bytes=done_bytes,
                bytes=self._plan.bytes,
                elapsed_s=time.monotonic() - self._began,
            )
        )

    def _finish(self, state: State) -> None:
        """The small files, then the name that everybody sees."""
        source, made = self._source, self._making
        ours = {dit.folder for dit in self._dits}
        parts = msgspec.json.decode((source.path / MODEL_INDEX).read_bytes(), type=dict[str, object])
        rest = [
            name
            for name, part in parts.items()
            if isinstance(part, list) and name not in ours and (source.path / name).is_dir()
        ]
        bring_rest(source.path, made, rest)
        for dit in self._dits:
            config = json.loads((dit.source / "config.json").read_text("utf-8"))
            config["quantization_config"] = {"quant_method": INT8_BLOCK, "block_size": INT8_BLOCK_SIZE}
            text = json.dumps(config, indent=2, sort_keys=True) + "\n"
            (made / dit.folder / "config.json").write_text(text, "utf-8")
            if len(dit.files) > 1:
                table = made / dit.folder / f"{DIT_STEM}.safetensors.index.json"
                table.write_bytes(shard_table(dit.files))
        card = msgspec.structs.replace(
            source.card,
            title=" ".join((source.card.title[:190], "int8")),
            random=source.card.random or was_made_here(source.path),
            quantised_from=source.name,
            quantised_weights=weights_digest(source),
        )
        write_card(made, card)
        write_marker(made, source, state)
        problem = read_model(made).problem
        if problem is not None:
            raise WorkFailed(f"the quantised model cannot be used: {problem}")
        (made / STATE).unlink()
        made.rename(self._folder)


# --------------------------------------------------------------------------- planning


def _plan_dit(source: Model, folder: Path, stack: ExitStack) -> _Dit:
    index = read_component_index(folder)
    opened = {file.path: stack.enter_context(open_weight_file(file.path)) for file in index.files}
    tensors: list[TensorPlan] = []
    weights: dict[str, Weight] = {}
    for name, entry in index.tensors.items():
        file = opened[index.file_of[name]]
        if not is_quantised(name, entry.shape):
            dtype = entry.dtype
            if index.kept is not None and DTYPES[dtype].floating:
                dtype = resident_dtype(DIT, name, index.kept)
            kept = Kept(file=file, entry=entry, dtype=dtype)
            tensors.append(TensorPlan(name=name, dtype=dtype, shape=entry.shape, content=kept))
            continue
        if entry.dtype not in SOURCES:
            raise ModelUnusable(
                f"{file.path} holds {name!r} as {entry.dtype}, which cannot be quantised; it must be one of "
                f"{', '.join(SOURCES)}"
            )
        weight = Weight(name=name, file=file, entry=entry)
        weights[name] = weight
        rows, columns = entry.shape
        tensors += [
            TensorPlan(name=name, dtype=INT8, shape=(rows, columns), content=Values(weight=weight)),
            TensorPlan(
                name=name.removesuffix(".weight") + SCALE,
                dtype=FP32,
                shape=int8_scale_shape(rows, columns),
                content=Scales(weight=weight),
            ),
        ]
    if not weights:
        raise ModelUnusable(f"{folder} holds no linear layer in a block, so there is nothing to quantise")
    return _Dit(
        folder={part.folder: FOLDERS[source.kind][part.name] for part in source.components}[folder],
        source=folder,
        source_bytes=index.bytes,
        weights=weights,
        files=plan_shards(DIT_STEM, tensors, SHARD_BYTES),
    )


def _free_bytes(folder: Path) -> int:
    """Of the disk on which `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _left_bytes(making: Path, state: State) -> int:
    """What is taken away of an earlier run before this one writes."""
    if not making.is_dir():
        return 0
    paths = (path for path in making.rglob("*") if path.is_file())
    return sum(
        path.stat().st_blocks * 512
        for path in paths
        if path.relative_to(making).as_posix() not in state.files and path.stat().st_nlink == 1
    )


def _refuse() -> None:
    raise NotNow("another model is being quantised there; wait for its end")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -P -m engine.models.quantising", description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("model")
    parser.add_argument("--name")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args(arguments)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    torch.set_num_threads(1)  # the writers are the threads

    def tell(message: Message | Quantised | ErrorBody) -> None:
        line = msgspec.json.encode({KINDS[type(message)]: message})
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()

    try:
        made = quantise_model(
            given.models,
            given.model,
            new_name=given.name,
            out=given.out,
            tell=tell,
            dry_run=given.dry_run,
        )
    except EngineError as error:
        tell(ErrorBody(code=error.code, message=str(error)))
        return error.exit_code
    except OSError as error:
        text = f"{given.model} could not be quantised: {error}"
        tell(ErrorBody(code=StorageUnusable.code, message=text))
        return StorageUnusable.exit_code
    except KeyboardInterrupt:
        return 130
    if isinstance(made, Quantised):
        tell(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
