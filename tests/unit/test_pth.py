"""Checkpoints of torch.save read without torch: whole, unusual, damaged and hostile."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from engine.errors import ModelUnusable
from engine.models import pickles, pth
from engine.models.dtypes import DTYPES
from engine.models.index import FileIndex, TensorEntry, check_unchanged, read_component_index, read_index
from engine.models.layout import main_dtype


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def stored(index: FileIndex, name: str) -> bytes:
    entry = index.tensors[name]
    return index.path.read_bytes()[entry.begin : entry.end]


def rewrite(source: Path, target: Path, change: Callable[[str, bytes], bytes | None], **how: Any) -> Path:
    """`source` once more by zipfile, without torch's padding; `change` gives each record's new bytes."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **how) as new:
        for info in old.infolist():
            content = change(info.filename, old.read(info))
            if content is not None:
                new.writestr(info.filename, content)
    return target


def with_pickle(tmp_path: Path, data: bytes) -> Path:
    """A checkpoint of one tensor whose pickle is `data`."""
    source = save(tmp_path / "source.pth", {"w": torch.ones(4)})
    return rewrite(
        source, tmp_path / "w.pth", lambda name, content: data if name.endswith("data.pkl") else content
    )


def assert_refused(path: Path, words: str) -> None:
    with pytest.raises(ModelUnusable, match=words) as error:
        read_index(path)
    said = str(error.value)
    assert said.startswith(str(path))
    assert "\n" not in said


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "bf16": torch.randn(3, 4).bfloat16(),
        "fp32": torch.randn(5),
        "int8": torch.arange(-3, 3, dtype=torch.int8).view(2, 3),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 6)[:, ::2],
        "parameter": torch.nn.Parameter(torch.randn(2, 1, 2)),
    }


# --------------------------------------------------------------------------- what torch writes


def test_every_tensor_lies_where_its_entry_says(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    path = save(tmp_path / "w.pth", weights)
    index = read_index(path)
    assert set(index.tensors) == set(weights)
    for name, tensor in weights.items():
        assert index.tensors[name].shape == tuple(tensor.shape)
        assert stored(index, name) == bytes_of(tensor.detach())
    assert [index.tensors[name].dtype for name in ("bf16", "fp32", "int8")] == ["BF16", "F32", "I8"]
    info = path.stat()
    assert (index.bytes, index.inode, index.mtime_ns) == (info.st_size, info.st_ino, info.st_mtime_ns)
    assert index.weights_bytes == sum(tensor.nbytes for tensor in weights.values())


def test_tensors_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    base = torch.arange(8.0)
    index = read_index(
        save(tmp_path / "w.pth", {"late": base[4:], "other": torch.ones(2), "early": base[:4]})
    )
    assert list(index.tensors) == ["early", "late", "other"]
    assert index.data_begin == index.tensors["early"].begin
    assert index.data_end == index.tensors["other"].end
    assert index.data_end - index.data_begin > index.weights_bytes  # torch leaves gaps


@pytest.mark.parametrize("spelling", DTYPES)
def test_each_dtype_keeps_its_spelling(tmp_path: Path, spelling: str) -> None:
    dtype = getattr(torch, DTYPES[spelling].name)
    index = read_index(save(tmp_path / "w.pth", {"w": torch.ones(3).to(dtype)}))
    entry = index.tensors["w"]
    assert (entry.dtype, entry.bytes) == (spelling, 3 * DTYPES[spelling].bytes)
    assert stored(index, "w") == bytes_of(torch.ones(3).to(dtype))


def test_tied_tensors_share_their_place_and_count_once(tmp_path: Path) -> None:
    shared = torch.randn(4, 4)
    index = read_index(
        save(tmp_path / "w.pth", {"a": shared, "b": shared, "row": shared[1], "c": torch.ones(1)})
    )
    assert index.tensors["a"] == index.tensors["b"]
    assert index.tensors["row"] == TensorEntry(
        dtype="F32", shape=(4,), begin=index.tensors["a"].begin + 16, end=index.tensors["a"].begin + 32
    )
    assert stored(index, "row") == bytes_of(shared[1])
    assert index.weights_bytes == 64 + 16 + 4


def test_the_dtype_of_most_bytes_counts_tied_tensors_once(tmp_path: Path) -> None:
    shared = torch.ones(6)
    save(tmp_path / "pytorch_model.bin", {"a": shared, "b": shared, "c": torch.ones(16).bfloat16()})
    assert main_dtype(read_component_index(tmp_path)) == "BF16"


def test_a_view_with_strides_of_its_own_is_refused(tmp_path: Path) -> None:
    for number, view in enumerate(
        (torch.randn(3, 4).t(), torch.randn(8)[::2], torch.randn(3, 1).expand(3, 2))
    ):
        assert_refused(save(tmp_path / f"{number}.pth", {"w": view}), "'w' of shape .* make it contiguous")


def test_strides_of_axes_of_one_element_do_not_matter(tmp_path: Path) -> None:
    view = torch.randn(2, 6).as_strided((1, 3, 1), (77, 1, 5))
    assert stored(read_index(save(tmp_path / "w.pth", {"w": view})), "w") == bytes_of(view)


def test_a_module_s_state_dict_with_its_metadata_is_plain(tmp_path: Path) -> None:
    index = read_index(save(tmp_path / "w.bin", torch.nn.Linear(3, 2).state_dict()))
    assert list(index.tensors) == ["weight", "bias"]


@pytest.mark.parametrize("key", ["state_dict", "model", "module"])
def test_a_state_dict_may_lie_under_a_known_key_beside_plain_metadata(tmp_path: Path, key: str) -> None:
    content = {"epoch": 3, "args": {"lr": [0.1, None, ("a", True)]}, key: OrderedDict(w=torch.ones(2))}
    assert list(read_index(save(tmp_path / "w.pth", content)).tensors) == ["w"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"model": {"w": torch.ones(1)}, "optimizer": {"m": torch.ones(1)}},
            "'optimizer' beside the weights",
        ),
        ({"model": {"w": torch.ones(1)}, "w": torch.ones(1)}, "'w' beside the weights"),
        ({"model": {"w": torch.ones(1)}, "module": {"w": torch.ones(1)}}, "as 'model' and as 'module'"),
        ({"w": torch.ones(1), "more": {"v": torch.ones(1)}}, "'more' beside the weights"),
        ({"w": torch.ones(1), 5: torch.ones(1)}, "5 beside the weights"),
        ({"ema": {"w": torch.ones(1)}}, "'ema' beside the weights"),
        ({"step": 3}, "holds no tensor"),
        ({"model": {}}, "holds no tensor"),
        ([torch.ones(1)], "no table of tensors"),
        (torch.ones(1), "no table of tensors"),
        ({"w": torch.ones(1), "dtype": torch.float32.to_complex()}, "'torch.complex64'"),
        ({"w": torch.ones(1, dtype=torch.complex64)}, "'torch.ComplexFloatStorage'"),
        ({"w": torch.ones(1), "size": torch.Size([1])}, "'torch.Size'"),
        ({"w": torch.ones(2).to_sparse()}, "'torch._utils._rebuild_sparse_tensor'"),
        ({"w": torch.ones(1), "set": {1}}, "asks for '__builtin__.set'"),
    ],
    ids=range(15),
)
def test_what_is_not_one_table_of_plain_tensors_is_refused(
    tmp_path: Path, content: object, words: str
) -> None:
    assert_refused(save(tmp_path / "w.pth", content), words)


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    assert_refused(save(tmp_path / "w.pth", torch.nn.Linear(2, 2)), r"'torch\.nn\.modules\.linear\.Linear'")


# --------------------------------------------------------------------------- hostile pickles


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_runs_a_command_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = save(tmp_path / "w.pth", {"w": torch.ones(1), "x": _Hostile(marker)})
    assert_refused(path, "asks for 'posix.system', which .* never run")
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the test itself is harmless, so it proves nothing"


PROTO = b"\x80\x02"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
HOOKS = b"ccollections\nOrderedDict\n)R"


def one_tensor(
    *,
    offset: bytes = b"K\0",
    shape: bytes = b"K\x04\x85",
    stride: bytes = b"K\x01\x85",
    storage: bytes = STORAGE,
    flags: bytes = b"",
) -> bytes:
    tensor = TENSOR + b"(" + storage + offset + shape + stride + b"\x89" + HOOKS + flags + b"tR"
    return PROTO + b"}X\x01\0\0\0w" + tensor + b"s."


def test_the_pickle_made_by_hand_is_right(tmp_path: Path) -> None:
    path = with_pickle(tmp_path, one_tensor())
    assert stored(read_index(path), "w") == bytes_of(torch.ones(4))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "truncated"),
        (PROTO, "truncated"),
        (one_tensor()[:-1], "truncated"),
        (one_tensor()[:40], "truncated"),
        (b"\x80\x04" + one_tensor()[2:], "protocol 4"),
        (PROTO + b"}}.", "ends in the middle"),
        (PROTO + b"(}.", "ends in the middle"),
        (PROTO + b"}.", "holds no tensor"),
        (PROTO + b"i", "opcode 0x69"),
        (PROTO + b"}N\x93.", "opcode 0x93"),
        (PROTO + b"}h\x05s.", "takes what is not there"),
        (PROTO + b"t.", "takes what is not there"),
        (PROTO + b"\x87.", "takes what is not there"),
        (PROTO + b"R.", "takes what is not there"),
        (PROTO + b"N" + b"(" * 200, "nests more than 100"),
        (PROTO + b"}" + b")" + b"\x85" * 200_000 + b"Ns.", "neither text nor number"),
        (PROTO + b"Nr\xff\xff\xff\xff.", "no table of tensors"),
        (PROTO + b"}X\xff\xff\xff\xffw", "truncated"),
        (PROTO + b"}X\x01\0\0\0\xffNs.", "utf-8"),
        (PROTO + b"cos\nsystem\n.", "'os.system'"),
        (PROTO + b"c\x1b[31m\n" + b"n" * 999 + b"\n.", r"'\\x1b\[31m\.n+…'"),
        (PROTO + TENSOR + b")R.", "makes a tensor of what is none"),
        (PROTO + b"ctorch\nFloatStorage\n)R.", "makes a tensor of what is none"),
        (PROTO + b"]}b.", "gives a state"),
        (PROTO + TENSOR + b"}b.", "gives a state"),
        (PROTO + b"}Na.", "appends to what is no list"),
        (PROTO + b"](Ne(NNu.", "no dictionary"),
        (PROTO + b"NQ.", "refers to what is no storage"),
        (one_tensor(shape=b"J\xff\xff\xff\xff\x85"), "impossible size"),
        (one_tensor(shape=b"\x8a\x09" + b"\xff" * 8 + b"\0\x85"), "impossible size"),
        (one_tensor(shape=b"\x88\x85"), "impossible size"),
        (one_tensor(shape=b"N"), "without a shape"),
        (one_tensor(shape=b"(" + b"K\x01" * 65 + b"t"), "without a shape"),
        (one_tensor(shape=b"K\x04K\x01\x86"), "more axes than strides"),
        (one_tensor(shape=b"K\x05\x85"), "is damaged: its tensor 'w'"),
        (one_tensor(offset=b"K\x01"), "is damaged: its tensor 'w'"),
        (one_tensor(offset=b"K\x05", shape=b"K\0\x85"), "is damaged: its tensor 'w'"),
        (one_tensor(storage=STORAGE.replace(b"K\x04", b"K\x03")), "is damaged: its tensor 'w'"),
        (one_tensor(storage=STORAGE.replace(b"K\x04", b"K\x09"), shape=b"K\x05\x85"), "is damaged"),
        (one_tensor(storage=STORAGE.replace(b"\x000X", b"\x009X")), "lacks the record '9'"),
        (one_tensor(flags=b"}X\x04\0\0\0conj\x88s"), "computed from its bytes"),
    ],
    ids=range(41),
)
def test_a_pickle_that_torch_never_wrote_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    assert_refused(with_pickle(tmp_path, data), words)


def test_metadata_that_multiplies_or_holds_itself_is_looked_at_once(tmp_path: Path) -> None:
    laughs: list[object] = []
    for _ in range(60):
        laughs = [laughs, laughs]
    laughs.append(laughs)
    index = read_index(save(tmp_path / "w.pth", {"w": torch.ones(1), "laughs": laughs}))
    assert list(index.tensors) == ["w"]


def test_a_pickle_without_an_end_in_sight_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "OPERATION_LIMIT", 50)
    assert_refused(with_pickle(tmp_path, PROTO + b"N" * 60 + b"."), "more than 50 operations")
    monkeypatch.setattr(pth, "HEADER_LIMIT", 100)
    assert_refused(with_pickle(tmp_path, PROTO + b"N" * 100), "a pickle of 102 bytes")


def test_reading_one_loads_no_torch_and_no_pickle(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", {"w": torch.ones(1)})
    code = (
        "import sys; from pathlib import Path; from engine.models.index import read_index\n"
        "before = 'pickle' in sys.modules\n"
        "read_index(Path(sys.argv[1])); print('torch' in sys.modules, 'pickle' in sys.modules and not before)"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


# --------------------------------------------------------------------------- the zip around it


def test_records_without_torch_s_padding_are_found(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    source = save(tmp_path / "source.pth", weights)
    index = read_index(rewrite(source, tmp_path / "w.pth", lambda _, content: content))
    assert all(stored(index, name) == bytes_of(tensor.detach()) for name, tensor in weights.items())


def test_zip64_is_read(
    tmp_path: Path, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "source.pth", weights)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 3)  # every length and offset above goes to 64 bits
    path = rewrite(source, tmp_path / "w.pth", lambda _, content: content)
    monkeypatch.undo()
    assert b"PK\6\6" in path.read_bytes()
    index = read_index(path)
    assert all(stored(index, name) == bytes_of(tensor.detach()) for name, tensor in weights.items())


def test_offsets_beyond_4_gib_are_those_that_torch_uses(tmp_path: Path) -> None:
    """A file of holes, since torch can leave the bytes out."""
    path = tmp_path / "w.pth"
    with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({"a": torch.empty(5 * 2**30, dtype=torch.int8), "b": torch.empty(8)}, path)
    index = read_index(path)
    reader = torch._C.PyTorchFileReader(str(path))
    assert [entry.begin for entry in index.tensors.values()] == [
        reader.get_record_offset("data/0"),
        reader.get_record_offset("data/1"),
    ]
    assert index.weights_bytes == 5 * 2**30 + 32


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    source = save(tmp_path / "source.pth", {"w": torch.ones(4)})
    path = rewrite(source, tmp_path / "w.pth", lambda _, content: content, compression=zipfile.ZIP_DEFLATED)
    assert_refused(path, "'source/data.pkl' compressed")


def test_an_encrypted_record_is_refused(tmp_path: Path) -> None:
    content = bytearray(save(tmp_path / "w.pth", {"w": torch.ones(4)}).read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "w.pth").write_bytes(content)
    assert_refused(tmp_path / "w.pth", "'w/data.pkl' encrypted")


def test_another_byte_order_is_refused_and_none_is_little(tmp_path: Path) -> None:
    source = save(tmp_path / "source.pth", {"w": torch.ones(4)})

    def order(value: bytes | None) -> Callable[[str, bytes], bytes | None]:
        return lambda name, content: value if name.endswith("byteorder") else content

    assert_refused(rewrite(source, tmp_path / "big.pth", order(b"big")), "byte order 'big'")
    index = read_index(rewrite(source, tmp_path / "old.pth", order(None)))
    assert stored(index, "w") == bytes_of(torch.ones(4))


def test_the_format_before_torch_1_6_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    torch.save({"w": torch.ones(4)}, path, _use_new_zipfile_serialization=False)
    assert_refused(path, "the format of torch before 1.6; save the model's state dict again")


def test_a_file_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.pth", {"a": torch.randn(40), "b": torch.randn(9)}).read_bytes()
    path = tmp_path / "w.pth"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        words = (
            "is empty" if length == 0 else "is no zip" if length < 4 else f"truncated: it has {length} bytes"
        )
        assert_refused(path, words)


def test_bytes_after_the_end_or_missing_before_it_are_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "w.pth", {"w": torch.randn(40)}).read_bytes()
    begin = read_index(tmp_path / "w.pth").data_begin
    (tmp_path / "w.pth").write_bytes(whole + b"\0")
    assert_refused(tmp_path / "w.pth", f"has {len(whole) + 1} bytes where its table of contents ends")
    (tmp_path / "w.pth").write_bytes(whole[:begin] + whole[begin + 8 :])
    assert_refused(tmp_path / "w.pth", "is damaged: what its end says")


def test_a_record_that_is_not_where_the_table_has_it_is_refused(tmp_path: Path) -> None:
    content = save(tmp_path / "w.pth", {"w": torch.ones(4)}).read_bytes()
    header = content.rindex(b"PK\3\4", 0, content.index(b"w/data/0"))
    for at, change in (
        (header, b"PK\3\5"),
        (header + 30, b"w/data/9"),
        (header + 8, b"\x08"),
        (header + 6, b"\1"),
    ):
        (tmp_path / "w.pth").write_bytes(content[:at] + change + content[at + len(change) :])
        assert_refused(tmp_path / "w.pth", "'w/data/0' at byte .* where it is not")


def test_a_record_longer_than_what_is_left_of_the_file_is_refused(tmp_path: Path) -> None:
    content = bytearray(save(tmp_path / "w.pth", {"w": torch.ones(4)}).read_bytes())
    entry = content.rindex(b"PK\1\2", 0, content.rindex(b"w/data/0"))
    struct.pack_into("<II", content, entry + 20, 2**20, 2**20)
    (tmp_path / "w.pth").write_bytes(content)
    assert_refused(tmp_path / "w.pth", "'w/data/0' at byte .* where it is not")


def test_two_records_of_one_name_or_two_pickles_are_refused(tmp_path: Path) -> None:
    for name, words in (("w/data.pkl", "is there twice"), ("v/data.pkl", "holds 2 records called")):
        path = save(tmp_path / "w.pth", {"w": torch.ones(4)})
        with pytest.warns(UserWarning) if name == "w/data.pkl" else tempfile.TemporaryFile():
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(name, b"")
        assert_refused(path, words)
    with zipfile.ZipFile(tmp_path / "v.pth", "w") as archive:
        archive.writestr("v/data/0", b"")
    assert_refused(tmp_path / "v.pth", "holds 0 records called")


def test_a_table_that_claims_more_than_the_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    whole = bytearray(save(tmp_path / "w.pth", {"w": torch.ones(4)}).read_bytes())
    end_64 = whole.rindex(b"PK\6\6")
    for field, value in ((40, 2**40), (48, 2**40), (32, 2**40), (24 - 4, 7)):
        changed = bytearray(whole)
        struct.pack_into("<Q" if field >= 24 else "<I", changed, end_64 + field, value)
        (tmp_path / "w.pth").write_bytes(changed)
        assert_refused(tmp_path / "w.pth", "is damaged: what its end says")
    struct.pack_into("<Q", whole, whole.rindex(b"PK\6\7") + 8, 2**64 - 1)
    (tmp_path / "w.pth").write_bytes(whole)
    assert_refused(tmp_path / "w.pth", "is damaged: what its end says")


WHOLE = io.BytesIO()
torch.save({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3).bfloat16(), "n": 3}, WHOLE)


@given(st.lists(st.tuples(st.integers(0, len(WHOLE.getvalue()) - 1), st.integers(0, 255)), max_size=6))
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_is_read_within_itself_or_refused(changes: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE.getvalue())
    for at, value in changes:
        content[at] = value
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        file.write(content)
        file.flush()
        try:
            index = read_index(Path(file.name))
        except ModelUnusable:
            return
    for entry in index.tensors.values():
        assert 0 <= entry.begin <= entry.end <= len(content)


opcodes = st.sampled_from([bytes([code]) for code in pickles._OPERATIONS] + [b"."])


@given(st.lists(opcodes | st.binary(max_size=6) | st.sampled_from([TENSOR, STORAGE, HOOKS]), max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_pickle_makes_it_raise_anything_else(parts: list[bytes]) -> None:
    try:
        pickles.read_pickle(Path("w.pth"), b"".join(parts))
    except ModelUnusable:
        pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner)
        ),
        max_leaves=30,
    )
)
@settings(max_examples=200, deadline=None)
def test_plain_data_is_what_was_pickled(value: object) -> None:
    assert pickles.read_pickle(Path("w.pth"), pickle.dumps(value, protocol=2)) == value


# --------------------------------------------------------------------------- looking for change


def test_another_pickle_or_table_of_the_same_length_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", {"w": torch.ones(4)})
    index = read_index(path)
    check_unchanged(index)
    info = path.stat()
    for span in index.header:
        content = bytearray(path.read_bytes())
        content[span.begin + 4] ^= 1
        with open(path, "r+b") as handle:
            handle.write(content)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
        with pytest.raises(ModelUnusable, match="has another header"):
            check_unchanged(index)
        content[span.begin + 4] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
        check_unchanged(index)
