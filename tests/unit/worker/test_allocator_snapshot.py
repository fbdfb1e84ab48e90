"""What the allocator's snapshot says: live, awaiting, fragmented, releasable, pools, and what nobody owns."""

from __future__ import annotations

from typing import Any

from engine.worker.leaks import allocator_snapshot
from engine.worker.leaks.allocator_snapshot import AllocatorSnapshot, Block, workspace_of, workspaces
from engine.worker.leaks.look import PRIVATE_POOL, unowned
from engine.worker.leaks.tracing import BY_LIBRARIES, OLDER, UNTRACED, Tracer

MIB = 2**20
LIBRARY = {"filename": "/usr/lib/python3/site-packages/torch/nn/modules/linear.py", "line": 3, "name": "f"}
OURS = {"filename": "/home/me/plugin.py", "line": 41, "name": "keep"}


def block(size: int, state: str, **more: Any) -> dict[str, Any]:
    return {"size": size, "requested_size": size, "state": state, "frames": [], **more}


def segment(address: int, blocks: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    total = sum(item["size"] for item in blocks)
    return {
        "address": address,
        "total_size": total,
        "stream": 0,
        "segment_type": "large",
        "blocks": blocks,
    } | more


SEGMENTS = [
    segment(
        1000 * MIB,
        [
            block(4 * MIB, "active_allocated", frames=[LIBRARY, OURS]),
            block(1 * MIB, "inactive"),
            block(3 * MIB, "active_allocated", frames=[LIBRARY]),
        ],
    ),
    segment(2000 * MIB, [block(20 * MIB, "inactive")], segment_type="small"),
    segment(
        3000 * MIB,
        [
            block(2 * MIB, "active_awaiting_free"),
            block(5 * MIB, "active_pending_free"),
            block(MIB, "inactive"),
        ],
        stream=77,
        is_expandable=True,
    ),
    segment(4000 * MIB, [block(6 * MIB, "active_allocated")], segment_pool_id=(0, 3)),
    segment(5000 * MIB, [block(32 * MIB, "active_allocated")]),
]


def test_the_parts_add_up_and_each_is_what_may_become_of_it() -> None:
    told = AllocatorSnapshot(SEGMENTS).told()
    assert told.reserved_bytes == 74 * MIB
    assert told.live_bytes == 45 * MIB
    assert told.awaiting == {"77": 7 * MIB}
    assert told.fragmented_bytes == 2 * MIB  # beside what is live, and beside what another stream uses
    assert told.releasable_bytes == 20 * MIB
    assert told.private_pools == {"0.3": 6 * MIB}
    parts = told.live_bytes + sum(told.awaiting.values()) + told.fragmented_bytes + told.releasable_bytes
    assert parts == told.reserved_bytes
    assert told.beside_weights_bytes == 0
    weights = AllocatorSnapshot(SEGMENTS).told(lambda address: address == 1000 * MIB)
    assert (weights.beside_weights_bytes, weights.fragmented_bytes) == (MIB, 2 * MIB)


def test_segments_are_told_largest_first_with_their_blocks_in_order() -> None:
    found = AllocatorSnapshot(SEGMENTS).segments()
    assert [item.bytes // MIB for item in found] == [32, 20, 8, 8, 6]
    assert {item.pool for item in found} == {"large", "small", "expandable"}
    first = next(item for item in found if item.blocks[0] == ("live", 4 * MIB))
    assert first.blocks == (("live", 4 * MIB), ("free", MIB), ("live", 3 * MIB))
    assert next(item for item in found if item.stream == "77").blocks[1] == ("awaiting", 5 * MIB)


def test_a_segment_of_thousands_of_blocks_is_told_in_few(monkeypatch: Any) -> None:
    monkeypatch.setattr(allocator_snapshot, "MOST_BLOCKS", 3)
    blocks = [block(MIB, "active_allocated") for _ in range(4)] + [block(MIB, "inactive")]
    (found,) = AllocatorSnapshot([segment(0, blocks)]).segments()
    assert found.blocks == (("live", 4 * MIB), ("free", MIB))


def test_an_address_belongs_to_the_live_block_that_it_lies_in() -> None:
    snapshot = AllocatorSnapshot(SEGMENTS)
    inside = snapshot.block_at(1000 * MIB + 5 * MIB)
    assert inside is not None and inside.bytes == 3 * MIB
    assert snapshot.block_at(1000 * MIB + 4 * MIB) is None  # free
    assert snapshot.block_at(1000 * MIB + 8 * MIB) is None  # beyond its segment
    assert snapshot.block_at(5) is None


def test_blocks_without_a_python_tensor_are_told_with_what_may_hold_them() -> None:
    tracer = Tracer("cuda")
    tracer._was_on = True
    found = unowned(AllocatorSnapshot(SEGMENTS), {1000 * MIB + 4096}, tracer)
    assert [item.bytes // MIB for item in found] == [32, 6, 3]
    workspace, pool, library = found
    assert workspace.library == "cuBLAS" and "cuBLAS" in workspace.suspects[0]
    assert pool.suspects[0] == PRIVATE_POOL and pool.site_reason == OLDER
    assert library.library is None and library.site_reason == BY_LIBRARIES
    every = unowned(AllocatorSnapshot(SEGMENTS), set(), tracer)
    site = next(item.site for item in every if item.bytes == 4 * MIB)
    assert site is not None and (site.file, site.line, site.function) == ("/home/me/plugin.py", 41, "keep")


def test_what_was_never_traced_says_so() -> None:
    assert Tracer("cuda").site_of_frames([]) == (None, UNTRACED)


def test_a_workspace_has_the_size_that_torch_gives_its_library() -> None:
    assert workspace_of(32 * MIB, {}) == workspace_of(8320 * 1024, {}) == "cuBLAS"
    assert workspace_of(MIB, {}) == "cuBLASLt"
    assert workspace_of(32 * MIB + 512, {}) is workspace_of(2 * MIB, {}) is None
    own = {"CUBLAS_WORKSPACE_CONFIG": ":16:2", "CUBLASLT_WORKSPACE_SIZE": "2048"}
    assert workspace_of(2 * 16 * 1024, own) == "cuBLAS" and workspace_of(2 * MIB, own) == "cuBLASLt"
    assert workspace_of(32 * MIB, own) is workspace_of(MIB, own) is None


def test_a_stream_has_one_workspace_and_what_else_is_of_its_size_is_none() -> None:
    def block(address: int, stream: str, traced: bool) -> Block:
        frames = ({"filename": "/home/me/plugin.py", "line": 41, "name": "keep"},) if traced else ()
        return Block(
            address=address, bytes=32 * MIB, requested_bytes=32 * MIB, state="live", stream=stream,
            private_pool=False, frames=frames,
        )  # fmt: skip

    blocks = [block(1, "0", True), block(2, "0", False), block(3, "0", False), block(4, "7", True)]
    assert workspaces(blocks) == {2: "cuBLAS", 4: "cuBLAS"}
