"""What switching models costs and leaves behind, through the API of an engine of the benchmark's own.

The rows come in groups that share their runs. A group that fails says so in its rows, and the next
one goes on, with a fresh engine if that one has died.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from engine.errors import EngineError, InvalidRequest
from turbotui.bench.baseline import Baseline
from turbotui.bench.cycles import measure_cycles
from turbotui.bench.moving import (
    measure_both_experts,
    measure_cleanup,
    measure_cold_load,
    measure_first_load,
    measure_loads,
    measure_switches,
)
from turbotui.bench.roles import ROLES, Cast, Dtype, Role, write_image
from turbotui.bench.rows import TARGETS, Row, unmeasured
from turbotui.bench.run import Run, model_folder
from turbotui.bench.session import BenchEngine
from turbotui.bench.steps import measure_expert_swap, measure_first_step

Measure: TypeAlias = Callable[[Run], Iterator[Row]]

CYCLES = 5
ROUNDS = 3
AT_RANDOM = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Rows that are measured together."""

    name: str
    rows: tuple[str, ...]
    needs: tuple[Role, ...]
    measure: Measure
    plain: bool = False
    """Whether a row of it has the usual way beside it."""


GROUPS = (
    # First of all, before any other job of the worker has loaded its libraries.
    Group(
        name="cycles",
        rows=(
            "growth_first_jobs",
            "failures",
            "switch_peak",
            "drift_vram",
            "drift_rss",
            "weights_left",
            "outputs_changed",
            "outputs_alike",
        ),
        needs=(),
        measure=measure_cycles,
    ),
    Group(
        name="loads",
        rows=("unload", "load_registered"),
        needs=("large",),
        measure=measure_loads,
        plain=True,
    ),
    Group(
        name="first_load", rows=("load_page_cache",), needs=("large",), measure=measure_first_load, plain=True
    ),
    Group(name="cold_load", rows=("load_cold",), needs=("large",), measure=measure_cold_load),
    Group(
        name="switches",
        rows=("switch_small_large", "switch_large_small"),
        needs=("small", "large"),
        measure=measure_switches,
        plain=True,
    ),
    Group(
        name="both_experts",
        rows=("switch_large_two",),
        needs=("large", "two"),
        measure=measure_both_experts,
    ),
    Group(
        name="first_step",
        rows=("first_step_cached", "first_step_new"),
        needs=("large",),
        measure=measure_first_step,
    ),
    Group(name="cleanup", rows=("cleanup",), needs=("large",), measure=measure_cleanup, plain=True),
    Group(name="expert_swap", rows=("expert_swap",), needs=("two",), measure=measure_expert_swap),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How the command was called."""

    models: Path | None
    """Where the models lie; None: the demo models, made in the benchmark's own folder."""
    demo: bool = False
    dtype: Dtype = "bf16"
    cycles: int = CYCLES
    quick: bool = False
    only: tuple[str, ...] = ()
    """Names of rows or groups; none: all."""
    baseline_runs: int = 0
    """Of plain diffusers; 0: it is not measured."""


def chosen_rows(only: Sequence[str]) -> frozenset[str]:
    """The rows that these names of rows and groups mean.

    Raises:
        InvalidRequest: there is no such row or group.
    """
    by_name = {group.name: group.rows for group in GROUPS}
    found: set[str] = set()
    for name in only:
        if name not in TARGETS and name not in by_name:
            raise InvalidRequest(
                f"there is no row {name!r}; there are {', '.join(TARGETS)}, "
                f"and the groups {', '.join(by_name)}"
            )
        # A name of both is a group of that one row.
        found.update(by_name[name] if name in by_name else (name,))
    return frozenset(found or TARGETS)


def measure_switch(options: Options, *, say: Callable[[str], None]) -> Iterator[Row]:
    """Measure group by group; each row comes as soon as it is known. `say` gets what is being done.

    Raises:
        InvalidRequest: a name is wrong, or none of the models is there.
        EngineUnavailable: no engine could be started.
    """
    rows = chosen_rows(options.only)
    cast = Cast(demo=options.demo, dtype=options.dtype, image=Path())
    missing = _missing(cast, options.models)
    groups = [group for group in GROUPS if not rows.isdisjoint(group.rows)]
    with BenchEngine(options.models) as engine:
        cast = replace(cast, image=engine.home / "first frame.png")
        write_image(cast.image)
        if options.demo:
            say("making the demo models")
            engine.client.make_demo_models()
        cycles = 1 if options.quick else options.cycles
        run = Run(
            engine=engine,
            cast=cast,
            roles=tuple(role for role in ROLES if role not in missing),
            cycles=cycles,
            rounds=1 if options.quick else ROUNDS,
            at_random=10 if options.quick else AT_RANDOM * cycles // CYCLES,
            say=say,
        )
        _read_files(run, groups)
        say(f"{run.look_at_device()}, build {engine.client.hello().build}")
        plain_note = _prepare_baseline(run, options)
        for group in groups:
            for row in _measure(run, group):
                if row.name in rows:
                    without = group.plain and row.baseline is None
                    yield replace(row, baseline_note=plain_note) if without else row


def _missing(cast: Cast, models: Path | None) -> list[Role]:
    """The roles for which there is no model.

    Raises:
        InvalidRequest: there is none at all, or the folder cannot be used.
    """
    if models is None:
        return []
    if cast.demo:
        try:
            models.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequest(f"{models} cannot be made: {error.strerror}; name another folder") from error
    missing = cast.missing(models)
    if len(missing) == len(ROLES):
        commands = "; ".join(f"`{cast.maker(role)}`" for role in ROLES)
        raise InvalidRequest(
            f"{models} holds none of the models to measure with; make them with {commands}, "
            "or measure the demo models with --demo"
        )
    return missing


def _read_files(run: Run, groups: Sequence[Group]) -> None:
    """Load each model once that is needed: into the page cache, at the disk's rate if need be."""
    needed = {role for group in groups for role in group.needs or ROLES}
    for role in run.roles:
        if role in needed:
            run.say(f"reading {run.cast.name(role)}")
            try:
                run.switch(role)
            except EngineError as error:  # the rows that need it will say so
                run.say(str(error))


def _prepare_baseline(run: Run, options: Options) -> str:
    """Set the usual way up where it can be measured; why it cannot."""
    if not options.baseline_runs:
        return ""
    if options.dtype != "bf16":
        return "plain diffusers reads no int8 blocks"
    if not {"small", "large"} <= set(run.roles):
        return "plain diffusers needs the small and the large model"
    run.baseline = Baseline(
        model_folder(run, "large"),
        model_folder(run, "small"),
        runs=options.baseline_runs,
        say=run.say,
    )
    return ""


def _measure(run: Run, group: Group) -> Iterator[Row]:
    """The rows of one group, whatever it meets."""
    absent = [role for role in group.needs if role not in run.roles]
    if absent:
        commands = ", ".join(f"`{run.cast.maker(role)}`" for role in absent)
        for name in group.rows:
            yield unmeasured(name, f"a model is missing; make it with {commands}")
        return
    left = list(group.rows)
    run.say(group.name)
    try:
        run.engine.ensure()
        with suppress(EngineError):
            run.engine.client.resume_queue()
        for row in group.measure(run):
            left.remove(row.name)
            yield row
    except (EngineError, OSError, ValueError, LookupError, ArithmeticError) as error:
        # A row is told with its error, and the others are still worth measuring.
        for name in left:
            yield unmeasured(name, f"{type(error).__name__}: {error}", failed=True)
        with suppress(EngineError):
            run.engine.ensure()
            run.engine.client.park()
