"""Who holds a tensor: every kind of holder is told with its file and line."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import types
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from torch import Tensor, nn

from engine.wire import Holder
from engine.worker.leaks import graph
from engine.worker.leaks.graph import Heap
from engine.worker.leaks.owners import Held, Owners
from engine.worker.leaks.words import MOST_HOPS
from tests.unit.worker import leak_plants as plants


@pytest.fixture(autouse=True)
def _clear(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(graph, "MOST_FROZEN", 60_000)  # a tenth of what a suite has frozen, and of its time
    yield
    plants.clear()
    gc.collect()


def find(number: int, roots: dict[str, object] | None = None) -> Held:
    """The holder of the tensor of this id, which the caller does not hold."""
    with Heap() as heap, Owners(heap, roots=roots) as owners:
        target = next(found for found in heap.objects if id(found) == number)
        return owners.find([target])


def told(number: int) -> Holder:
    held = find(number)
    assert not held.running
    return held.holder


def place(holder: Holder) -> tuple[str | None, int | None]:
    return holder.file, holder.line


HERE = plants.__file__
MODULE = f"module {plants.__name__}"


def test_a_global_list() -> None:
    plants.KEPT.extend([plants.new(), plants.new()])
    holder = told(id(plants.KEPT[1]))
    assert (holder.kind, holder.path) == ("global", (MODULE, "KEPT", "[1]"))
    assert place(holder) == (HERE, plants.line_of("KEPT:"))


def test_a_global_that_a_function_sets_and_a_table_s_key() -> None:
    plants.BY_NAME["kite"] = {"red": plants.new()}
    holder = told(id(plants.BY_NAME["kite"]["red"]))
    assert (holder.kind, holder.path) == ("global", (MODULE, "BY_NAME", "[kite]", "[red]"))
    holder = told(id(plants.make_global()))
    assert (holder.kind, holder.path) == ("global", (MODULE, "MADE_LATE"))
    assert place(holder) == (HERE, plants.line_of("MADE_LATE:"))


def test_an_attribute_of_an_instance_a_slot_and_a_class() -> None:
    plants.HELD.append(plants.Keeper(plants.new()))
    holder = told(id(plants.HELD[0].kept))
    assert holder.path == (MODULE, "HELD", "[0]", f"{plants.__name__}.Keeper.kept")
    assert place(holder) == (HERE, plants.line_of("HELD:"))
    plants.HELD.append(plants.Slotted(plants.new()))
    assert told(id(plants.HELD[1].kept)).path[-1] == f"{plants.__name__}.Slotted.kept"
    plants.Keeper.TABLE[3] = plants.new()
    holder = told(id(plants.Keeper.TABLE[3]))
    assert (holder.kind, holder.path) == ("attribute", (f"class {plants.__name__}.Keeper", "TABLE", "[3]"))
    assert place(holder) == (HERE, plants.line_of("TABLE:"))


def test_a_closure_and_a_default() -> None:
    tensor = plants.new()
    plants.HELD.append(plants.closing_over(tensor))
    number = id(tensor)
    del tensor
    holder = told(number)
    assert (
        holder.kind == "closure" and holder.path[-1] == "closure cell tensor of closing_over.<locals>.inner"
    )
    assert place(holder) == (HERE, plants.line_of("def closing_over") + 1)
    plants.HELD.append(plants.default_of(plants.new()))
    holder = told(id(plants.HELD[1].__defaults__[0]))
    assert holder.path[-3:] == ("function default_of.<locals>.inner", "default", "[0]")


def test_a_hook() -> None:
    module = nn.Linear(2, 2)
    plants.HELD.append(module)
    tensor = plants.new()
    number = id(tensor)
    plants.hook_on(module, tensor)
    del tensor, module
    holder = told(number)
    assert holder.kind == "hook" and "hook of torch.nn.modules.linear.Linear" in holder.path
    assert place(holder) == (HERE, plants.line_of("def hook("))


@pytest.mark.parametrize(
    ("register", "attribute"),
    [
        ("register_forward_hook", "_forward_hooks"),
        ("register_forward_pre_hook", "_forward_pre_hooks"),
        ("register_full_backward_hook", "_backward_hooks"),
        ("register_full_backward_pre_hook", "_backward_pre_hooks"),
        ("register_state_dict_post_hook", "_state_dict_hooks"),
        ("register_load_state_dict_pre_hook", "_load_state_dict_pre_hooks"),
    ],
)
def test_each_kind_of_a_modules_hooks(register: str, attribute: str) -> None:
    module, tensor = nn.Linear(2, 2), plants.new()
    plants.HELD.append(module)
    number = id(tensor)
    plants.hook_as(module, register, tensor)
    assert len(getattr(module, attribute)) == 1
    del tensor, module
    holder = told(number)
    assert holder.kind == "hook" and "hook of torch.nn.modules.linear.Linear" in holder.path
    assert place(holder) == (HERE, plants.line_of("def any_hook("))


@pytest.mark.parametrize("which", ["forward_hook", "forward_pre_hook"])
def test_a_hook_of_all_modules(which: str) -> None:
    from torch.nn.modules import module as modules

    tensor = plants.new()
    number = id(tensor)
    plants.hook_as(modules, f"register_module_{which}", tensor)
    del tensor
    try:
        holder = told(number)
    finally:
        getattr(modules, f"_global_{which}s").clear()
    assert holder.kind == "hook" and f"_global_{which}s" in holder.path
    assert place(holder) == (HERE, plants.line_of("def any_hook("))


def test_a_hook_that_is_half_called() -> None:
    module = nn.Linear(2, 2)
    plants.HELD.append(module)
    tensor = plants.new()
    number = id(tensor)
    plants.partial_hook_on(module, tensor)
    del tensor, module
    holder = told(number)
    assert holder.kind == "hook" and "hook of torch.nn.modules.linear.Linear" in holder.path
    assert place(holder) == (HERE, plants.line_of("def half_hook("))


def test_a_traceback() -> None:
    tensor = plants.new()
    number = id(tensor)
    plants.HELD.append(plants.failed(tensor))
    del tensor
    holder = told(number)
    assert holder.kind == "traceback" and "exception RuntimeError" in holder.path, holder
    assert holder.path[-1].endswith(" of failing") or holder.path[-1].endswith(" of failed")
    assert holder.file == HERE
    assert holder.line in (plants.line_of("raise RuntimeError("), plants.line_of("failing(tensor)"))


def test_a_suspended_generator() -> None:
    walking = plants.yielding(plants.new())
    next(walking)
    plants.HELD.append(walking)
    number = id(walking.gi_frame.f_locals["local"])  # type: ignore[attr-defined]
    del walking
    holder = told(number)
    assert holder.kind == "generator" and holder.path[-1] == "generator yielding, local tensor"
    assert place(holder) == (HERE, plants.line_of("yield 1"))


def test_a_cache() -> None:
    holder = told(id(plants.cached(1)))
    assert holder.kind == "cache" and "cache of cached" in holder.path
    assert place(holder) == (HERE, plants.line_of("def cached(") - 1)


def test_a_memo_is_one_by_what_it_is_or_by_its_name() -> None:
    holder = told(id(plants.looked_up(1)))
    assert holder.kind == "cache" and holder.path == (MODULE, "looked_up", "cache of looked_up")
    plants.SHAPE_CACHE[1] = plants.new()
    of_module = told(id(plants.SHAPE_CACHE[1]))
    plants.Memo.CACHE[1] = plants.new()
    of_class = told(id(plants.Memo.CACHE[1]))
    plants.HELD.append(plants.Memo(plants.new()))
    of_instance = told(id(plants.HELD[0].grid_cache[0]))
    assert of_module.kind == of_class.kind == of_instance.kind == "cache"
    assert of_instance.path[-2:] == (f"{plants.__name__}.Memo.grid_cache", "[0]")


def test_a_default_by_name_a_bound_method_and_a_set() -> None:
    plants.HELD.append(plants.named_default_of(plants.new()))
    holder = told(id(plants.HELD[0].__kwdefaults__["found"]))
    assert holder.path[-2:] == ("default", "[found]")
    plants.HELD[0] = plants.Doing(plants.new()).method
    holder = told(id(plants.HELD[0].__self__.kept))
    assert holder.path[-1] == f"{plants.__name__}.Doing.kept"
    assert place(holder) == (HERE, plants.line_of("def method("))
    plants.HELD[0] = {plants.new()}
    holder = told(id(next(iter(plants.HELD[0]))))
    assert holder.path[-1] == "[set]"


def test_a_coroutine_and_an_asynchronous_generator_that_wait() -> None:
    plants.HELD.append(plants.awaiting(plants.new()))
    plants.HELD[0].send(None)
    number = id(plants.HELD[0].cr_frame.f_locals["local"])
    holder = told(number)
    assert holder.kind == "generator" and holder.path[-1] == "generator awaiting, local tensor"
    plants.HELD[0].close()
    plants.HELD[0] = plants.yielding_late(plants.new())
    plants.HELD.append(plants.HELD[0].__anext__())
    plants.HELD[1].send(None)
    number = id(plants.HELD[0].ag_frame.f_locals["local"])
    holder = told(number)
    assert holder.kind == "generator" and holder.path[-1] == "generator yielding_late, local tensor"


def test_a_thread_s_own_data() -> None:
    plants.LOCAL.kept = plants.new()
    holder = told(id(plants.LOCAL.kept))
    assert (holder.kind, holder.path) == ("global", (MODULE, "LOCAL", "a thread's own data", ".kept"))
    assert place(holder) == (HERE, plants.line_of("LOCAL ="))


def test_a_function_of_a_library_is_not_where_the_holder_is_written() -> None:
    stack = contextlib.ExitStack()
    stack.callback(print, plants.new())
    plants.HELD.append(stack)
    number = id(next(iter(stack._exit_callbacks))[1].__closure__[0].cell_contents[0])
    del stack
    holder = told(number)
    assert holder.kind == "closure" and place(holder) == (HERE, plants.line_of("HELD:"))
    plants.HELD.clear()


def test_an_array_that_was_made_of_a_tensor_holds_it() -> None:
    plants.HELD.append(plants.new().numpy()[2:])
    holder = told(id(plants.HELD[0].base.base))
    assert holder.path == (MODULE, "HELD", "[0]", "numpy.ndarray", "numpy.ndarray")
    # The first list was there before the collector was told to leave what is there, the one in it was not.
    plants.HELD[:] = [[plants.Keeper(plants.new().numpy())]]
    holder = told(id(plants.HELD[0][0].kept.base))
    assert holder.path == (
        MODULE, "HELD", "[0]", "[0]", f"{plants.__name__}.Keeper.kept", "numpy.ndarray",
    )  # fmt: skip


def test_a_cycle_is_told_as_one_and_a_cycle_that_is_held_is_not() -> None:
    gc.collect()
    gc.disable()
    try:
        ring = plants.Ring(plants.new())
        number = id(ring.tensor)
        plants.HELD.append(ring)
        del ring
        assert told(number).path[:2] == (MODULE, "HELD")
        plants.HELD.clear()
        holder = told(number)
    finally:
        gc.enable()
    assert holder.kind == "cycle" and "Ring" in holder.path[0]


def test_what_a_running_call_holds_is_in_use_and_what_lasts_beside_it_wins() -> None:
    tensor = plants.new()
    thread = plants.Waiting(tensor)
    number, watched = id(tensor), weakref.ref(tensor)
    thread.start()
    del tensor
    assert thread.ready.wait(10)
    try:
        held = find(number)
        plants.KEPT.append(next(found for found in gc.get_objects() if id(found) == number))
        kept = find(number)
        plants.KEPT.clear()
        thread.drop.set()
        assert thread.dropped.wait(10)
        still_there = watched() is not None  # the call runs on
    finally:
        thread.drop.set()
        thread.finish.set()
        thread.join()
    assert held.running and held.holder.path == ("local local of Waiting.run",)
    assert held.holder.file == HERE
    assert not kept.running and kept.holder.path == (MODULE, "KEPT", "[0]")
    assert not still_there, "a search must not keep what was a running call's local"


def test_a_root_that_the_caller_names_lasts() -> None:
    keeper = plants.Keeper(plants.new())
    assert find(id(keeper.kept)).running
    held = find(id(keeper.kept), {"the worker": keeper})
    assert not held.running and held.holder.path == ("the worker", ".kept")


def test_what_no_python_object_holds_has_no_owner() -> None:
    tensor = plants.new()
    number = id(tensor)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(tensor))
    del tensor
    holder = told(number)
    assert (holder.kind, holder.path) == ("none", ("no Python owner",))
    with Heap() as heap:
        found: Tensor = next(found for found in heap.objects if id(found) == number)
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(found))


def test_a_container_that_only_c_holds_is_no_cycle() -> None:
    box = [plants.new()]
    number = id(box[0])
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(box))
    del box
    holder = told(number)
    assert holder.kind == "none" and holder.path == ("no Python owner", "[0]")
    with Heap() as heap:
        found: list[Tensor] = next(
            found for found in heap.objects if type(found) is list and found and id(found[0]) == number
        )
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(found))


def test_what_a_module_holds_that_the_collector_does_not_list_is_found() -> None:
    """A worker is forked from a process whose objects are frozen; here the whole heap until now is."""
    plants.KEPT.append(plants.new())
    gc.collect()
    gc.freeze()
    plants.KEPT[0] = plants.new()  # a new one in an old list
    number = id(plants.KEPT[0])
    holder = told(number)
    assert (holder.kind, holder.path) == ("global", (MODULE, "KEPT", "[0]"))
    assert place(holder) == (HERE, plants.line_of("KEPT:"))


def test_what_a_call_was_given_by_locals_is_left_to_it() -> None:
    tensor = plants.new()
    names = locals()
    assert find(id(tensor)).running
    assert names["tensor"] is tensor


def test_a_global_is_written_where_it_is_made_in_a_function_or_in_another_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plants.make_undeclared()
    holder = told(id(plants.UNDECLARED))  # type: ignore[attr-defined]
    assert place(holder) == (HERE, plants.line_of("UNDECLARED ="))
    plants.MADE_LATE = [plants.new()]  # type: ignore[assignment]
    borrower: Any = types.ModuleType("borrower")
    borrower.BORROWED = plants.MADE_LATE
    monkeypatch.setitem(sys.modules, "borrower", borrower)
    number = id(borrower.BORROWED[0])
    del borrower
    holder = told(number)
    assert holder.path == ("module borrower", "BORROWED", "[0]")
    assert place(holder) == (HERE, plants.line_of("MADE_LATE:"))


def test_a_way_that_is_too_long_or_too_wide_is_told_as_far_as_it_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deep: list[Any] = [plants.new()]
    number = id(deep[0])
    for _ in range(40):
        deep = [deep]
    plants.HELD.append(deep)
    del deep
    holder = told(number)
    assert holder.path[0] == MODULE and holder.path[-1] == "..." and len(holder.path) == MOST_HOPS + 1
    monkeypatch.setattr("engine.worker.leaks.owners.MOST_VISITED", 20)
    assert told(number).path[0] == "farther than 20 objects"


def test_in_a_job_what_has_no_owner_may_be_a_value_on_its_way() -> None:
    tensor, box = plants.new(), [plants.new()]
    numbers = id(tensor), id(box[0])
    for found in (tensor, box):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(found))
    del tensor, box, found
    for number, beyond in zip(numbers, ((), ("[0]",)), strict=True):
        with Heap() as heap, Owners(heap, in_job=True) as owners:
            target = next(found for found in heap.objects if id(found) == number)
            held = owners.find([target])
            container = next(iter(heap.referrers(target)), target)
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(container))
            del target, container
        nobody = "a value on its way in a running call, or no Python owner"
        assert held.running and held.holder.path == (nobody, *beyond)


def test_an_error_that_is_being_handled_is_a_running_calls() -> None:
    tensor = plants.new()
    number = id(tensor)
    try:
        plants.failing(tensor)
    except RuntimeError:
        del tensor
        held = find(number)
    assert held.running
    assert held.holder.path[0].startswith("local the exception that is being handled of ")


def test_a_generator_that_only_c_holds_is_told_as_one() -> None:
    walking = plants.yielding(plants.new())
    next(walking)
    number = id(walking.gi_frame.f_locals["local"])  # type: ignore[attr-defined]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(walking))
    address = id(walking)
    del walking
    holder = told(number)
    with Heap() as heap:
        found: Any = next(found for found in heap.objects if id(found) == address)
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(found))
        del found
    assert (holder.kind, holder.path) == ("generator", ("generator yielding, local tensor",))
