"""Makes the model of a plan: tables of what lies elsewhere, or its weights copied as safetensors.

It appears all at once. A copy that was interrupted goes on where it stopped: what is whole stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from engine.errors import NotNow, StorageUnusable
from engine.models.dtypes import DTYPES
from engine.models.importing.copying import WIDE, copy_plan, missing_files
from engine.models.importing.plan import Component, Plan
from engine.models.importing.tokenizers import copy_tokenizer, files_of_tokenizer
from engine.models.in_place import IN_PLACE_FORMAT, Table, TableTensor, table_file, write_table
from engine.models.making import hidden_folder, only_maker, write_card, write_model_index
from engine.models.weight_writer import FilePlan, shard_table, write_files
from engine.units import size_text
from engine.wire import ImportPart, ImportPlan, ImportProgress

MARKER = "imported.json"
"""In every model that was imported: it may be made again, and nobody's own folder may be replaced."""
WRITERS = 4
SMALL_FILES_BYTES = 64 * 2**20
"""Tables, configurations, card and the tokenizer together: more than they take."""
TABLE_NAME = "diffusion_pytorch_model.safetensors.index.json"

Progress = Callable[[ImportProgress], None]


def describe(models: Path, plan: Plan) -> ImportPlan:
    """The plan for people and scripts, with what will be written.

    Raises:
        OSError: the models' disk cannot be looked at.
    """
    parts = []
    for component in plan.components:
        weights = component.mapped.weights
        copied = copy_plan(component, plan.request.kept) if _is_copied(plan, component) else ()
        parts.append(
            ImportPart(
                name=component.name,
                path=str(component.mapped.path),
                title=component.title,
                bytes=weights.bytes,
                files=len(weights.files),
                written_bytes=_bytes(copied),
                of_model=component.of_model,
            )
        )
    files = files_of_tokenizer(plan.tokenizer)
    size = sum(path.stat().st_size for path in files)
    tokenizer = ImportPart(
        name="tokenizer",
        path=str(plan.tokenizer),
        title="tokenizer",
        bytes=size,
        files=len(files),
        written_bytes=size,
    )
    return ImportPlan(
        name=plan.name,
        kind=plan.kind,
        path=str(models / plan.name),
        copy=plan.request.copy,
        parts=(*parts, tokenizer),
        written_bytes=sum(part.written_bytes for part in parts) + size,
        free_bytes=shutil.disk_usage(models).free,
        notes=(*plan.notes, *_kept_notes(plan)),
    )


def check_name(models: Path, plan: Plan, *, replace: bool) -> None:
    """Refuse a name that is taken.

    Raises:
        NotNow: there is a model of that name.
    """
    root = models / plan.name
    if os.path.lexists(root):
        if not (root / MARKER).is_file():
            raise NotNow(
                f"{root} is there and was not imported; give another name with --name, or take it away"
            )
        if not replace:
            raise NotNow(
                f"{plan.name} was imported already; --replace makes it again, --name calls it otherwise"
            )


def check_room(models: Path, plan: Plan, *, replace: bool) -> None:
    """Refuse what cannot be made there.

    Raises:
        NotNow: as `check_name`.
        StorageUnusable: the disk has too little room.
    """
    check_name(models, plan, replace=replace)
    needed = SMALL_FILES_BYTES
    kept = _unfinished(models, plan)
    for component in plan.components:
        if _is_copied(plan, component):
            files = copy_plan(component, plan.request.kept)
            needed += _bytes(missing_files(kept / component.folder, files))
    free = shutil.disk_usage(models).free
    if needed > free:
        raise StorageUnusable(
            f"{plan.name} needs {needed} bytes ({size_text(needed)}) in {models}, whose disk has {free} "
            f"({size_text(free)}) free; make room, or leave --copy out to use the files where they lie"
        )


def make(
    models: Path,
    plan: Plan,
    *,
    replace: bool,
    progress: Progress,
    on_wait: Callable[[], None] | None = None,
) -> Path:
    """Make the model in the folder `models`; its folder. `on_wait` is called where another import runs.

    Raises:
        NotNow, StorageUnusable: as `check_room`.
        ModelUnusable: a file changed meanwhile.
        OSError: `models` cannot be written, or its disk filled up.
    """
    root = models / plan.name
    with only_maker(models, "import", on_wait=on_wait) as alone:
        check_room(models, plan, replace=replace)
        with _folder(models, plan, alone=alone) as making:
            for component in plan.components:
                _write_component(making, plan, component, progress)
            shutil.rmtree(making / "tokenizer", ignore_errors=True)
            copy_tokenizer(plan.tokenizer, making / "tokenizer")
            write_model_index(making, plan.kind)
            write_card(making, plan.card)
            (making / MARKER).write_text(json.dumps({"format": 1, "again": plan.request.command}), "utf-8")
            with hidden_folder(models, "import-replaced", alone=alone) as aside:
                _put_in_place(making, root, aside / "before")
    return root


def _put_in_place(making: Path, root: Path, before: Path) -> None:
    """Give the model in `making` the name `root`; what had it becomes `before`, and is back if that fails.

    Raises:
        OSError: it cannot be renamed.
    """
    try:
        if os.path.lexists(root):
            root.rename(before)
        making.rename(root)
    except BaseException:  # also a signal between the two
        if os.path.lexists(before) and not os.path.lexists(root):
            before.rename(root)
        raise


def _write_component(making: Path, plan: Plan, component: Component, progress: Progress) -> None:
    folder = making / component.folder
    folder.mkdir(exist_ok=True)
    config = component.mapped.net.config()
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    if not _is_copied(plan, component):
        write_table(folder, _table(plan, component))
        return
    files = copy_plan(component, plan.request.kept)
    total = _bytes(files)
    left = missing_files(folder, files)
    done = total - _bytes(left)

    def on_progress(num_bytes: int) -> None:
        progress(ImportProgress(component=component.name, done_bytes=done + num_bytes, total_bytes=total))

    on_progress(0)
    write_files([(folder, file) for file in left], writers=WRITERS, on_progress=on_progress)
    for file in left:
        _sync(folder / file.name)
    if len(files) > 1:
        (folder / TABLE_NAME).write_bytes(shard_table(files))
    progress(ImportProgress(component=component.name, done_bytes=total, total_bytes=total))


def _table(plan: Plan, component: Component) -> Table:
    mapped = component.mapped
    files = tuple(table_file(file) for file in mapped.weights.files)
    number = {file.path: index for index, file in enumerate(mapped.weights.files)}
    return Table(
        format=IN_PLACE_FORMAT,
        again=plan.request.command,
        kept=_kept(plan, component),
        files=files,
        tensors={
            name: TableTensor(
                file=number[placed.source.path],
                source=placed.source.name,
                begin=placed.entry.begin,
                end=placed.entry.end,
                dtype=placed.entry.dtype,
                shape=placed.shape,
            )
            for name, placed in mapped.tensors.items()
        },
    )


def _kept(plan: Plan, component: Component) -> str | None:
    """In which format the component is kept; None where its files have that."""
    if plan.request.kept == "stored":
        return None
    found = {placed.entry.dtype for placed in component.mapped.tensors.values()}
    floating = {dtype for dtype in found if DTYPES[dtype].floating}
    return None if floating == {"BF16"} else "BF16"


def _kept_notes(plan: Plan) -> list[str]:
    """What is said of components that are kept in another format than most of their bytes have."""
    names = [
        component.name
        for component in plan.components
        if _kept(plan, component) is not None and component.mapped.weights.dtype in WIDE
    ]
    if not names:
        return []
    return [
        f"{', '.join(names)}: kept as bfloat16, as the reference computes; --dtype stored keeps what the "
        "files have"
    ]


def _is_copied(plan: Plan, component: Component) -> bool:
    """A part that another model lends lies in the models' folder already."""
    return plan.request.copy and component.of_model is None


def _bytes(files: tuple[FilePlan, ...] | list[FilePlan]) -> int:
    return sum(file.bytes for file in files)


def _unfinished(models: Path, plan: Plan) -> Path:
    """Where a copy is made; the same for the same plan, so that it is found again."""
    sources = [
        [component.name, *(msgspec.to_builtins(table_file(file)) for file in component.mapped.weights.files)]
        for component in plan.components
    ]
    recipe = json.dumps([plan.name, plan.request.kept, sources], sort_keys=True)
    return models / f".import-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"


@contextmanager
def _folder(models: Path, plan: Plan, *, alone: bool) -> Iterator[Path]:
    """The hidden folder that the model is made in; one of a copy stays where it is interrupted."""
    if not plan.request.copy:
        with hidden_folder(models, "import", alone=alone) as making:
            made = making / plan.name
            made.mkdir()
            yield made
        return
    making = _unfinished(models, plan)
    for other in models.glob(".import-*") if alone else ():
        # Of a copy that was given up for another one of other files.
        if other != making and other.is_dir() and _name_in(other) == plan.name:
            shutil.rmtree(other, ignore_errors=True)
    making.mkdir(exist_ok=True)
    (making / MARKER).write_text(json.dumps({"format": 0, "name": plan.name}), "utf-8")
    yield making


def _name_in(folder: Path) -> str | None:
    """The name of the model whose copy `folder` holds."""
    try:
        found = json.loads((folder / MARKER).read_text("utf-8")).get("name")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
