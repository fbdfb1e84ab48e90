"""Prompt embeddings on disk: bounded, checked, shared, and never the reason of a failure."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.embeddings import HEADER_BYTES, EmbeddingStore, EmbeddingUsage, embedding_key
from engine.errors import StorageUnusable
from engine.paths import find_paths

PARTS = {
    "encoder": "sha256:e",
    "tokenizer": "sha256:t",
    "cleaning": 1,
    "length": 512,
    "dtype": "bfloat16",
    "device_kind": "cuda",
    "prompt": "a cat",
}


def key(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def make(folder: Path, max_bytes: int = 2**20) -> EmbeddingStore:
    ticks = count(10**18, 10**9)
    return EmbeddingStore(folder, max_bytes, clock=lambda: next(ticks))


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return make(tmp_path / "embeddings")


def file_of(store: EmbeddingStore, name: object) -> Path:
    return store.folder / f"{key(name)}.safetensors"


# --------------------------------------------------------------------------- what it keeps


def test_what_was_put_is_found_again_and_nothing_else(store: EmbeddingStore) -> None:
    assert store.get(key("a")) is None and store.usage() == EmbeddingUsage(entries=0, bytes=0)
    assert not store.folder.exists()
    assert store.put(key("a"), b"first") is None
    assert store.put(key("b"), b"") is None
    assert store.put(key("a"), b"second") is None
    assert (store.get(key("a")), store.get(key("b")), store.get(key("c"))) == (b"second", b"", None)
    assert store.usage() == EmbeddingUsage(entries=2, bytes=2 * HEADER_BYTES + 6)
    assert sorted(path.name for path in store.folder.iterdir()) == sorted(
        file_of(store, name).name for name in "ab"
    )


def test_only_the_owner_may_read_it(store: EmbeddingStore) -> None:
    before = os.umask(0)
    try:
        store.put(key("a"), b"x")
        assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(file_of(store, "a").stat().st_mode) == 0o600
        store.folder.chmod(0o755)
        store.put(key("b"), b"x")
        assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)


@given(
    max_bytes=st.integers(0, 6 * (HEADER_BYTES + 10)),
    uses=st.lists(
        st.tuples(st.sampled_from("abcde"), st.none() | st.integers(0, 2 * HEADER_BYTES)), max_size=25
    ),
)
@settings(max_examples=60, deadline=None)
def test_the_least_recently_used_go_and_the_bytes_stay_within_the_budget(
    max_bytes: int, uses: list[tuple[str, int | None]]
) -> None:
    """Against a dict in the order of use; a use with a length puts, one without gets."""
    with tempfile.TemporaryDirectory() as folder:
        store = make(Path(folder) / "embeddings", max_bytes)
        expected: dict[str, bytes] = {}
        for turn, (name, length) in enumerate(uses):
            if length is None:
                found = store.get(key(name))
                assert found == expected.get(name)
                if found is not None:
                    expected[name] = expected.pop(name)
            else:
                data = bytes([turn]) * length
                assert store.put(key(name), data) is None
                if HEADER_BYTES + length <= max_bytes:
                    expected.pop(name, None)
                    expected[name] = data
                while sum(HEADER_BYTES + len(data) for data in expected.values()) > max_bytes:
                    del expected[next(iter(expected))]
            usage = store.usage()
            assert usage.bytes == sum(HEADER_BYTES + len(data) for data in expected.values()) <= max_bytes
            assert usage.entries == len(expected)
        for name in "abcde":
            assert store.get(key(name)) == expected.get(name)


def test_what_was_found_lately_stays_and_what_was_only_put_goes(tmp_path: Path) -> None:
    store = make(tmp_path / "embeddings", 2 * (HEADER_BYTES + 1))
    for name in "ab":
        store.put(key(name), b"x")
    store.get(key("a"))
    store.put(key("c"), b"x")
    assert [store.get(key(name)) for name in "abc"] == [b"x", None, b"x"]


def test_what_exceeds_the_budget_alone_is_not_kept_and_drops_nothing(tmp_path: Path) -> None:
    store = make(tmp_path / "embeddings", HEADER_BYTES + 10)
    store.put(key("a"), b"0123456789")
    assert store.put(key("b"), b"0123456789+") is None
    assert (store.get(key("a")), store.get(key("b"))) == (b"0123456789", None)


def test_a_budget_of_zero_switches_it_off(store: EmbeddingStore) -> None:
    store.put(key("a"), b"x")
    off = make(store.folder, 0)
    assert off.put(key("b"), b"") is None
    assert (off.get(key("a")), off.get(key("b"))) == (None, None)
    assert off.usage().entries == 1 and off.clear().entries == 1
    with pytest.raises(ValueError, match="-1"):
        make(store.folder, -1)


def test_a_clock_that_was_set_back_does_not_cost_the_newest_entry(tmp_path: Path) -> None:
    times = iter([2 * 10**18, 10**18])
    store = EmbeddingStore(tmp_path / "embeddings", HEADER_BYTES + 10, clock=lambda: next(times))
    store.put(key("a"), b"old")
    store.put(key("b"), b"new entry")
    assert [path.name for path in store.folder.iterdir()] == [file_of(store, "b").name]


def test_clearing_says_what_it_removed_and_leaves_what_is_not_ours(store: EmbeddingStore) -> None:
    store.put(key("a"), b"1")
    store.put(key("b"), b"22")
    (store.folder / "notes.txt").write_text("mine")
    assert store.clear() == EmbeddingUsage(entries=2, bytes=2 * HEADER_BYTES + 3)
    assert store.clear() == store.usage() == EmbeddingUsage(entries=0, bytes=0)
    assert [path.name for path in store.folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["", "a" * 63, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_nothing_but_a_key_becomes_the_name_of_a_file(name: str, store: EmbeddingStore) -> None:
    for use in (store.get, lambda name: store.put(name, b"x")):
        with pytest.raises(ValueError, match="64 hexadecimal"):
            use(name)


# --------------------------------------------------------------------------- what was damaged


@given(place=st.integers(0, 10**6), flip=st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_flipped_bit_anywhere_is_a_miss_and_removed(place: int, flip: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = make(Path(folder) / "embeddings")
        store.put(key("a"), b"some embedding")
        path = file_of(store, "a")
        content = bytearray(path.read_bytes())
        content[place % len(content)] ^= flip
        path.write_bytes(content)
        assert store.get(key("a")) is None
        assert not path.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[: HEADER_BYTES - 1],
        lambda content: content + b"\0",
        lambda content: content[HEADER_BYTES:],
    ],
)
def test_a_file_cut_short_or_too_long_is_a_miss_and_removed(
    damage: Callable[[bytes], bytes], store: EmbeddingStore
) -> None:
    store.put(key("a"), b"some embedding")
    path = file_of(store, "a")
    path.write_bytes(damage(path.read_bytes()))
    assert store.get(key("a")) is None
    assert not path.exists()
    assert store.put(key("a"), b"again") is None and store.get(key("a")) == b"again"


def test_a_whole_file_under_the_name_of_another_is_a_miss(store: EmbeddingStore) -> None:
    store.put(key("a"), b"x")
    file_of(store, "a").rename(file_of(store, "b"))
    assert store.get(key("b")) is None


@pytest.mark.parametrize(
    "plant",
    [
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("elsewhere"),
        lambda path: path.symlink_to(path.with_name(f"{key('real')}.safetensors")),
    ],
)
def test_what_is_no_plain_file_is_a_miss_and_stays(
    plant: Callable[[Path], object], store: EmbeddingStore
) -> None:
    store.put(key("real"), b"x")
    path = file_of(store, "a")
    plant(path)
    assert store.get(key("a")) is None
    assert store.usage().entries == 1
    store.clear()
    assert os.path.lexists(path)


def test_the_file_of_another_user_is_a_miss_and_stays(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(key("a"), b"x")
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert store.get(key("a")) is None
    assert store.usage().entries == store.clear().entries == 0
    assert file_of(store, "a").exists()


def test_a_file_beyond_the_budget_is_not_even_read(store: EmbeddingStore) -> None:
    store.put(key("a"), b"x")
    with file_of(store, "a").open("r+b") as file:
        file.truncate(2**20 + 1)
    assert store.get(key("a")) is None
    assert file_of(store, "a").exists()
    assert store.put(key("b"), b"x") is None and store.usage().entries == 1


def test_a_disk_that_cannot_be_read_is_a_miss(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(handle: int, length: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store.put(key("a"), b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", broken)
        assert store.get(key("a")) is None
    assert store.get(key("a")) == b"x"


# --------------------------------------------------------------------------- where nothing can be written


class _ShortDisk(io.FileIO):
    """A file on a disk that takes 4 KiB of it and no more."""

    def write(self, data: Any, /) -> int:
        if self.tell() + len(memoryview(data)) > 4096:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by a limit of this process: that would hold for what the test run itself prints into a file."""

    def open_short(handle: int, mode: str) -> Any:
        return io.BufferedWriter(_ShortDisk(handle, mode))

    monkeypatch.setattr("engine.embeddings.open", open_short, raising=False)


def test_a_full_disk_is_said_once_and_leaves_nothing_behind(store: EmbeddingStore, full_disk: None) -> None:
    store.put(key("a"), b"small")
    reason = store.put(key("b"), bytes(10_000))
    assert reason is not None and str(store.folder) in reason and "embedding_cache_bytes" in reason
    assert "\n" not in reason
    assert store.put(key("c"), bytes(10_000)) is None
    assert (store.get(key("a")), store.get(key("b"))) == (b"small", None)
    assert [path.name for path in store.folder.iterdir()] == [file_of(store, "a").name]
    assert store.put(key("d"), b"small again") is None
    assert store.put(key("b"), bytes(10_000)) == reason


def test_a_read_only_folder_is_said_once_and_still_read(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system answers there; root may write whatever the permissions say."""

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    real_open = os.open

    def open_to_read(path: str, flags: int, *mode: int, **options: int) -> int:
        return refuse() or 0 if flags & os.O_CREAT else real_open(path, flags, *mode, **options)

    store.put(key("a"), b"x")
    monkeypatch.setattr(os, "open", open_to_read)
    for name in ("utime", "unlink", "replace"):
        monkeypatch.setattr(os, name, refuse)
    reason = store.put(key("b"), b"x")
    assert reason is not None and "Read-only" in reason
    assert store.put(key("b"), b"x") is None
    assert store.get(key("a")) == b"x"
    with pytest.raises(StorageUnusable, match="cannot be cleared"):
        store.clear()


def test_a_folder_that_cannot_be_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = make(tmp_path / "file" / "embeddings")
    reason = store.put(key("a"), b"x")
    assert reason is not None and "embeddings are not kept" in reason
    assert store.put(key("a"), b"x") is None and store.get(key("a")) is None
    for ask in (store.usage, store.clear):
        with pytest.raises(StorageUnusable, match="embeddings cannot be"):
            ask()


# --------------------------------------------------------------------------- several at once


def test_what_a_dead_writer_left_goes_and_what_a_live_one_writes_stays(store: EmbeddingStore) -> None:
    store.put(key("a"), b"x")
    dead, alive = (store.folder / f".{key(name)}.0123abcd.part" for name in ("dead", "alive"))
    for path in (dead, alive):
        path.write_bytes(b"half")
    with alive.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        store.put(key("b"), b"x")
        assert alive.exists() and not dead.exists()
        assert store.usage().entries == 2
        dead.write_bytes(b"half")
        store.clear()
        assert list(store.folder.iterdir()) == [alive]


def test_a_writer_that_is_killed_leaves_no_entry_and_nothing_for_long(store: EmbeddingStore) -> None:
    code = f"""
import os, sys
from pathlib import Path
from engine.embeddings import EmbeddingStore
os.replace = lambda *names: os.kill(os.getpid(), 9)
EmbeddingStore(Path(sys.argv[1]), 2**20).put({key("a")!r}, b"x" * 5000)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(store.folder)], timeout=30, check=False)
    assert killed.returncode == -9
    assert len(list(store.folder.iterdir())) == 1
    assert store.get(key("a")) is None and store.usage().entries == 0
    store.put(key("b"), b"x")
    assert list(store.folder.iterdir()) == [file_of(store, "b")]


def test_a_writer_whose_file_is_taken_for_a_leftover_begins_another(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making it and locking it: once while it is looked at, once when it is gone already."""
    real, calls = fcntl.flock, count()

    def meet_a_cleaner(handle: int, how: int) -> None:
        match next(calls):
            case 0:
                raise BlockingIOError
            case 1:
                os.unlink(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", meet_a_cleaner)
    assert store.put(key("a"), b"x") is None
    assert store.get(key("a")) == b"x" and next(calls) == 3


def test_a_file_system_without_locks_keeps_what_is_put(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert store.put(key("a"), b"x") is None and store.get(key("a")) == b"x"


WRITER = """
import hashlib, random, sys
from pathlib import Path
from engine.embeddings import EmbeddingStore
folder, max_bytes, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store, chance = EmbeddingStore(folder, max_bytes), random.Random(seed)
hits = 0
for turn in range(400):
    name = chance.randrange(12)
    key = hashlib.sha256(b"%d" % name).hexdigest()
    if chance.random() < 0.5:
        reason = store.put(key, bytes([name]) * (1000 + 100 * name))
        assert reason is None, reason
    elif (data := store.get(key)) is not None:
        assert data == bytes([name]) * (1000 + 100 * name), (name, data[:8])
        hits += 1
print(hits)
"""


def test_several_processes_share_one_folder(tmp_path: Path) -> None:
    folder, max_bytes = tmp_path / "embeddings", 10_000
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(max_bytes), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(3)
    ]
    for writer in writers:
        out, err = writer.communicate(timeout=60)
        assert (writer.returncode, err) == (0, "")
        assert int(out) > 0
    usage = EmbeddingStore(folder, max_bytes).usage()
    assert 0 < usage.bytes <= max_bytes
    assert len(list(folder.iterdir())) == usage.entries


# --------------------------------------------------------------------------- keys


def test_every_part_of_a_key_counts() -> None:
    other = {name: value + 1 if isinstance(value, int) else value + "x" for name, value in PARTS.items()}
    keys = {embedding_key(**PARTS | {name: other[name]}) for name in PARTS}  # type: ignore[arg-type]
    assert len(keys | {embedding_key(**PARTS)}) == len(PARTS) + 1  # type: ignore[arg-type]


def test_text_that_utf_8_cannot_hold_has_keys_of_its_own() -> None:
    prompts = ["\ud83d\ude00", "😀", "??", "?", "\ud83d", "\ude00", "\ufffd"]
    assert len({embedding_key(**PARTS | {"prompt": prompt}) for prompt in prompts}) == len(prompts)  # type: ignore[arg-type]


text = st.text(st.characters(), max_size=4) | st.sampled_from(["", "1", "1:", "\ud83d\ude00", "😀", "é"])
parts = st.fixed_dictionaries(
    {
        "encoder": text,
        "tokenizer": text,
        "cleaning": st.integers(0, 30),
        "length": st.integers(0, 30),
        "dtype": text,
        "device_kind": text,
        "prompt": text,
    }
)


@given(one=parts, other=parts)
@settings(max_examples=300)
def test_two_keys_are_equal_only_where_all_parts_are(
    one: dict[str, object], other: dict[str, object]
) -> None:
    same = embedding_key(**one) == embedding_key(**other)  # type: ignore[arg-type]
    assert same == (one == other)


@given(first=st.text(max_size=6), second=st.text(max_size=6), third=st.text(max_size=6), cut=st.data())
def test_moving_text_from_one_part_to_the_next_makes_another_key(
    first: str, second: str, third: str, cut: st.DataObject
) -> None:
    whole = first + second + third
    one, two = sorted(cut.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    names = {"encoder": first, "tokenizer": second, "prompt": third}
    moved = {"encoder": whole[:one], "tokenizer": whole[one:two], "prompt": whole[two:]}
    same = embedding_key(**PARTS | names) == embedding_key(**PARTS | moved)  # type: ignore[arg-type]
    assert same == (names == moved)


# --------------------------------------------------------------------------- where it lies


def test_the_folder_follows_the_cache_of_the_platform_and_our_home(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert find_paths({**home, "XDG_CACHE_HOME": str(tmp_path / "c")}).embeddings == (
        tmp_path / "c" / "turbotui" / "embeddings"
    )
    moved = find_paths({**home, "XDG_CACHE_HOME": "/elsewhere", "TURBOTUI_HOME": str(tmp_path / "own")})
    assert moved.embeddings == tmp_path / "own" / "cache" / "embeddings"


def test_a_cache_that_cannot_be_written_moves_below_the_temporary_folder_in_a_private_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # To root every folder looks as if it could be written.
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith("/proc"))
    found = find_paths({"HOME": str(tmp_path), "XDG_CACHE_HOME": "/proc/nothing"}).embeddings
    ours = tmp_path / f"turbotui-{os.getuid()}"
    assert found == ours / "cache" / "embeddings"
    assert make(found).put(key("a"), b"x") is None
    assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    (tmp_path / "away").mkdir()
    ours.rename(tmp_path / "theirs")
    ours.symlink_to(tmp_path / "away")
    reason = make(found).put(key("a"), b"x")
    assert reason is not None and "not a folder" in reason
    assert not list((tmp_path / "away").iterdir())
