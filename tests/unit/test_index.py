"""Headers of safetensors files, whole and damaged."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ModelUnusable
from engine.models.index import TensorEntry, check_unchanged, read_component_index, read_index
from tests.unit.model_folders import write_json, write_safetensors

WEIGHTS = {"a": ("BF16", (3, 4)), "b": ("F32", (2,)), "scalar": ("F32", ())}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, WEIGHTS, metadata={"format": "pt"})
    return path


def with_header(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_entries_carry_absolute_offsets_dtypes_and_shapes(file: Path) -> None:
    index = read_index(file)
    begin = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert index.tensors == {
        "a": TensorEntry(dtype="BF16", shape=(3, 4), begin=begin, end=begin + 24),
        "b": TensorEntry(dtype="F32", shape=(2,), begin=begin + 24, end=begin + 32),
        "scalar": TensorEntry(dtype="F32", shape=(), begin=begin + 32, end=begin + 36),
    }
    assert index.metadata == {"format": "pt"}
    assert (index.bytes, index.data_begin, index.weights_bytes) == (begin + 36, begin, 36)


def test_tensors_come_in_the_order_of_the_file_whatever_the_header_says(tmp_path: Path) -> None:
    header = {
        "late": {"dtype": "U8", "shape": [1], "data_offsets": [2, 3]},
        "empty": {"dtype": "U8", "shape": [0], "data_offsets": [2, 2]},
        "early": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
    }
    index = read_index(with_header(tmp_path / "f", header, b"abc"))
    assert list(index.tensors) == ["early", "empty", "late"]


@pytest.mark.parametrize("lost", [1, 36, 37, 60])
def test_a_truncated_file_says_how_much_of_it_is_there(file: Path, lost: int) -> None:
    whole = file.stat().st_size
    os.truncate(file, whole - lost)
    with pytest.raises(
        ModelUnusable, match=rf"is truncated: it has {whole - lost} of .*{file.name}|truncated"
    ):
        read_index(file)
    if lost <= 36:
        with pytest.raises(ModelUnusable, match=f"has {whole - lost} of {whole} bytes; fetch"):
            read_index(file)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\x08\0\0", "is truncated"),
        (b"\0" * 8, "is truncated"),
        (b"\xff" * 9, "does not begin with a header"),
        (b"\x00" * 9, "does not begin with a header"),
        (b"PK\x03\x04" + b"\0" * 20, "does not begin with a header"),
        ((2).to_bytes(8, "little") + b"[]", "does not begin with a header"),
        ((9).to_bytes(8, "little") + b"{not json", "damaged header"),
        ((8).to_bytes(8, "little") + b'{"\xff\xfe"}', "is truncated"),
        ((7).to_bytes(8, "little") + b'{"\xff":1}', "damaged header"),
        ((2).to_bytes(8, "little") + b"{}", "holds no tensor"),
    ],
    ids=range(11),
)
def test_what_is_no_safetensors_file_is_named_as_such(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelUnusable, match=words) as error:
        read_index(path)
    assert str(path) in str(error.value)
    assert "fetch or convert" in str(error.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"dtype": "U8", "shape": [4], "data_offsets": [0, 3]}, "cannot have 3 bytes"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}, "where byte"),
        ({"dtype": "U8", "shape": [-4], "data_offsets": [0, 4]}, "has shape"),
        ({"dtype": "U8", "shape": [4], "data_offsets": [4, 0]}, "where byte"),
        ({"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}, "this build cannot read"),
        ({"dtype": "U8", "shape": "4", "data_offsets": [0, 4]}, "damaged header"),
        ({"dtype": "U8", "data_offsets": [0, 4]}, "damaged header"),
        ({"dtype": "U8", "shape": [4], "data_offsets": [0, 4], "more": 1}, "damaged header"),
        ({"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}, "describes"),
        ({"dtype": "F32", "shape": [10**30], "data_offsets": [0, 4]}, "cannot have"),
    ],
)
def test_entries_that_do_not_fit_the_file_are_refused(tmp_path: Path, entry: object, words: str) -> None:
    path = with_header(tmp_path / "f", {"w": entry}, b"1234")
    with pytest.raises(ModelUnusable, match=words):
        read_index(path)


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    with pytest.raises(ModelUnusable, match="where byte"):
        read_index(with_header(tmp_path / "f", {"a": entry, "b": entry}, b"1234"))


def test_a_missing_file_a_folder_and_a_pipe_are_refused_without_waiting(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="is missing"):
        read_index(tmp_path / "none.safetensors")
    with pytest.raises(ModelUnusable, match="not a regular file"):
        read_index(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelUnusable, match="not a regular file"):
        read_index(tmp_path / "pipe")


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_it_raise_anything_else(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with pytest.raises(ModelUnusable):
            read_index(Path(file.name))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["BF16", "F32", "U8", "XX"]),
        "shape": st.lists(st.integers(-1, 4), max_size=3),
        "data_offsets": st.lists(st.integers(-2, 40), min_size=2, max_size=2),
    }
)


@given(st.dictionaries(st.text(max_size=6), entries | json_values, max_size=4), st.binary(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_header_is_read_right_or_refused(header: dict[str, object], data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = with_header(Path(folder) / "f", header, data)
        try:
            index = read_index(path)
        except ModelUnusable:
            return
    end = index.data_begin
    for entry in index.tensors.values():
        assert entry.begin == end
        end = entry.end
    assert end == index.bytes


def test_a_deeply_nested_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="damaged header"):
        read_index(with_header(tmp_path / "f", b'{"a":' * 50_000))


def test_a_component_is_one_file_or_its_shards(tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    write_safetensors(one / "diffusion_pytorch_model.safetensors", WEIGHTS)
    write_safetensors(many / "w-1.safetensors", {"a": WEIGHTS["a"]})
    write_safetensors(many / "w-2.safetensors", {"b": WEIGHTS["b"], "scalar": WEIGHTS["scalar"]})
    table = {"a": "w-1.safetensors", "b": "w-2.safetensors", "scalar": "w-2.safetensors"}
    write_json(many / "w.safetensors.index.json", {"metadata": {"total_size": 36}, "weight_map": table})
    single, sharded = read_component_index(one), read_component_index(many)
    assert single.bytes == sharded.bytes == 36
    assert set(single.tensors) == set(sharded.tensors) == set(WEIGHTS)
    assert {name: path.name for name, path in sharded.file_of.items()} == table
    assert [file.path.name for file in sharded.files] == ["w-1.safetensors", "w-2.safetensors"]


def test_shards_and_their_table_must_agree(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "w-1.safetensors", {"a": WEIGHTS["a"]})
    write_safetensors(tmp_path / "w-2.safetensors", {"a": WEIGHTS["a"]})
    table = tmp_path / "w.safetensors.index.json"
    write_json(table, {"weight_map": {"a": "w-1.safetensors", "b": "w-1.safetensors"}})
    with pytest.raises(ModelUnusable, match="lacks the tensor 'b'"):
        read_component_index(tmp_path)
    write_json(table, {"weight_map": {"a": "w-1.safetensors", "b": "w-2.safetensors"}})
    with pytest.raises(ModelUnusable, match=r"holds 'a', which w-1.safetensors holds too"):
        read_component_index(tmp_path)
    write_json(table, {"weight_map": {"a": "w-3.safetensors"}})
    with pytest.raises(ModelUnusable, match=r"w-3.safetensors is missing"):
        read_component_index(tmp_path)
    write_json(table, {"weight_map": {"a": "../w-1.safetensors"}})
    with pytest.raises(ModelUnusable, match="no file beside it"):
        read_component_index(tmp_path)
    table.write_text("{")
    with pytest.raises(ModelUnusable, match="is damaged"):
        read_component_index(tmp_path)


@pytest.mark.parametrize("stem", ["diffusion_pytorch_model", "pytorch_model"])
@pytest.mark.parametrize("ending", [".bin", ".pth"])
def test_a_component_may_be_a_checkpoint_unless_safetensors_are_there_too(
    tmp_path: Path, stem: str, ending: str
) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / f"{stem}{ending}")
    index = read_component_index(tmp_path)
    assert (index.bytes, list(index.tensors), len(index.files)) == (12, ["a"], 1)
    write_safetensors(tmp_path / "s.safetensors", WEIGHTS)
    table = dict.fromkeys(WEIGHTS, "s.safetensors")
    write_json(tmp_path / "w.safetensors.index.json", {"weight_map": table})
    assert set(read_component_index(tmp_path).tensors) == set(WEIGHTS)


def test_shards_may_be_checkpoints(tmp_path: Path) -> None:
    tied = torch.ones(3)
    torch.save({"a": tied, "b": tied}, tmp_path / "w-1.bin")
    torch.save({"c": torch.ones(2)}, tmp_path / "w-2.bin")
    table = {"a": "w-1.bin", "b": "w-1.bin", "c": "w-2.bin"}
    write_json(tmp_path / "pytorch_model.bin.index.json", {"weight_map": table})
    index = read_component_index(tmp_path)
    assert {name: path.name for name, path in index.file_of.items()} == table
    assert index.bytes == 12 + 8


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="has no weights"):
        read_component_index(tmp_path)


def test_the_identity_tells_weights_of_one_layout_apart_and_not_their_place(tmp_path: Path) -> None:
    for name, fill in (("high", b"\1"), ("low", b"\2"), ("copy", b"\1")):
        write_safetensors(tmp_path / name / "model.safetensors", WEIGHTS, fill=fill)
    high, low, copy = (read_component_index(tmp_path / name).identity for name in ("high", "low", "copy"))
    assert high == copy
    assert high != low


def test_so_does_the_identity_of_checkpoints_and_it_sees_each_part(tmp_path: Path) -> None:
    for name, value in (("high", 1), ("low", 2), ("copy", 1)):
        (tmp_path / name).mkdir()
        torch.save({"a": torch.full((50_000,), value)}, tmp_path / name / "pytorch_model.bin")
    path = tmp_path / "copy" / "pytorch_model.bin"
    path.write_bytes((tmp_path / "high" / path.name).read_bytes())
    high, low, copy = (read_component_index(tmp_path / name).identity for name in ("high", "low", "copy"))
    assert high == copy
    assert high != low
    index = read_component_index(path.parent).files[0]
    for at in (index.data_begin, index.header[1].begin + 40):
        content = bytearray((tmp_path / "high" / path.name).read_bytes())
        content[at] ^= 1
        path.write_bytes(content)
        assert read_component_index(path.parent).identity != high


def _replace(file: Path) -> None:
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    info = file.stat()
    os.utime(copy, ns=(info.st_atime_ns, info.st_mtime_ns))
    copy.replace(file)


def _overwrite(file: Path, at: int) -> None:
    info = file.stat()
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    with open(file, "r+b") as handle:
        handle.write(content)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


def _lengthen(file: Path) -> None:
    info = file.stat()
    with open(file, "ab") as handle:
        handle.write(b"more")
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


def _move_time(file: Path) -> None:
    info = file.stat()
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.unlink(), "is missing; fetch or convert"),
        (_replace, "opened: it is another file under the same name; the model is read anew"),
        (_lengthen, r"opened: it has \d+ bytes and had \d+; the model is read anew"),
        (_move_time, "opened: it was written to; the model is read anew"),
        (lambda file: _overwrite(file, 20), "has another header .*; fetch or convert"),
    ],
    ids=["gone", "inode", "length", "time", "header"],
)
def test_a_file_that_is_no_longer_the_one_that_was_indexed_is_refused(
    file: Path, change: Callable[[Path], None], words: str
) -> None:
    index = read_index(file)
    info = file.stat()
    assert (index.inode, index.mtime_ns, index.bytes) == (info.st_ino, info.st_mtime_ns, info.st_size)
    check_unchanged(index)
    change(file)
    with pytest.raises(ModelUnusable, match=words) as error:
        check_unchanged(index)
    assert str(file) in str(error.value)


def test_all_that_changed_is_named_at_once(file: Path) -> None:
    index = read_index(file)
    file.with_name("copy").write_bytes(b"other")
    file.with_name("copy").replace(file)
    os.utime(file, ns=(0, 0))
    words = rf"another file under the same name, it has 5 bytes and had {index.bytes}, it was written to; "
    with pytest.raises(ModelUnusable, match=words):
        check_unchanged(index)


def test_looking_for_change_reads_no_weight(file: Path) -> None:
    index = read_index(file)
    _overwrite(file, index.data_begin)
    check_unchanged(index)
