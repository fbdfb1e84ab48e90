"""Random models: laid out as released ones, good for a job, shared where they can, never half there."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
import safetensors
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from PIL import Image
from safetensors.torch import load_file, save_file

import engine.models.random_models as random_models
from engine.errors import InvalidRequest, StorageUnusable
from engine.models.index import read_component_index
from engine.models.model import read_model
from engine.models.random_files import MARKER, RandomDtype
from engine.models.random_models import SIZES, Sizes, main, make_random_model
from engine.models.random_noise import NoisePool, Recipe, position_of
from engine.models.weight_writer import PART_BYTES, plan_file, write_files
from engine.planning.shapes import TABLES
from engine.wire import JobSpec, ModelKind, Stage
from engine.worker.channel import ModelFiles, RunJob
from engine.worker.components import open_model
from engine.worker.cpu import CpuBackend
from engine.worker.pipeline import run_job
from engine.worker.store import ComponentStore
from turbotui.subcommands.models import RANDOM_SIZES

NAME = "wan2.1-t2v-1.3b"
TINY = Sizes(
    title="Tiny",
    num_attention_heads=2,
    ffn_dim=384,
    num_layers=3,
    text_dim=64,
    text_heads=2,
    text_ffn_dim=96,
    text_layers=3,
    vocabulary=1088,
    vae_dim=8,
    pool_elements=2**16 - 15,
)
TINY_I2V = dataclasses.replace(TINY, kind="i2v", shard_bytes=1_000_000)
KINDS: dict[ModelKind, Sizes] = {"t2v": TINY, "i2v": TINY_I2V}
DTYPES: tuple[RandomDtype, ...] = ("bf16", "int8")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ModelKind, RandomDtype], Path]:
    """The folder of a tiny random model of 2 layers, made once; read only."""
    models = tmp_path_factory.mktemp("models")

    def make(kind: ModelKind, dtype: RandomDtype) -> Path:
        return make_random_model(models, f"tiny-{kind}", dtype=dtype, layers=2, sizes=KINDS[kind])

    return make


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_random_model_is_usable_and_runs_a_job(
    made: Callable[..., Path], kind: ModelKind, dtype: RandomDtype, tmp_path: Path
) -> None:
    root = made(kind, dtype)
    model = read_model(root)
    assert (model.problem, model.kind, model.card.demo) == (None, kind, False)
    assert model.dtype == {"bf16": "bfloat16", "int8": "int8"}[dtype]
    assert (model.card.default_frames, model.card.title) == (81, "Tiny, random weights")
    sides = {(row.name, row.aspect_ratio): (row.width, row.height) for row in model.card.table}
    assert sides["480p", "16:9"] == TABLES["480p"]["16:9"]

    backend = CpuBackend()
    files = ModelFiles(name=root.name, kind=kind, path=str(root))
    opened = open_model(files, backend)
    planned = {component.name: component.bytes for component in model.components}
    assert planned == {name: component.bytes for name, component in opened.components.items()}

    picture = tmp_path / "picture.png"
    Image.radial_gradient("L").convert("RGB").save(picture)
    job = RunJob(
        job_id=1,
        attempt=1,
        spec=JobSpec(
            model=root.name, prompt="a kite", frames=5, steps=4, image=str(picture) if kind == "i2v" else None
        ),
        model=files,
        width=32,
        height=32,
        output=str(tmp_path / "clip.mp4"),
        budget_bytes=2**31,
        stage_bytes=dict.fromkeys(get_args(Stage), 2**20),
    )
    store = ComponentStore(backend, on_component=lambda changed: None, on_moved=lambda receipt: None)
    manifest, _ = run_job(job, store, backend, report=lambda progress: None, cancelled=lambda: False)
    experts = {"dit.high", "dit.low"} if kind == "i2v" else {"dit"}
    assert set(manifest.weights) == {"text", "vae", *experts}
    assert Path(manifest.output).stat().st_size == manifest.output_bytes > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_experts_differ_in_every_tensor(made: Callable[..., Path], dtype: RandomDtype) -> None:
    root = made("i2v", dtype)
    high, low = tensors(root / "transformer"), tensors(root / "transformer_2")
    assert list(high) == list(low)
    assert [name for name in high if torch.equal(high[name], low[name])] == []
    identities = {read_component_index(root / part).identity for part in ("transformer", "transformer_2")}
    assert len(identities) == 2


def test_the_experts_of_the_real_size_differ_in_every_tensor_too() -> None:
    """Where a tensor's noise begins decides that, so no 28 GB are written here."""
    pool = NoisePool(TINY.pool_elements)
    high, low = random_models._dits(SIZES["wan2.2-i2v-a14b"], "wan2.2-i2v-a14b", "int8", pool)
    begins = [
        {
            tensor.name: position_of(
                f"wan2.2-i2v-a14b/{part.folder}/{tensor.name}", random_models.POOL_ELEMENTS
            )
            for file in part.files
            for tensor in file.tensors
        }
        for part in (high, low)
    ]
    assert len(begins[0]) == 1575  # 1095 of a 14B, 80 of proj_l, and 400 scales
    assert len(set(begins[0].values())) > 1570
    assert all(begins[0][name] != begins[1][name] for name in begins[0])


@pytest.mark.parametrize(
    ("name", "bf16", "int8"),
    [
        ("wan2.1-t2v-1.3b", 2_837_993_600, 1_446_348_800),
        ("wan2.1-t2v-14b", 28_576_983_168, 14_529_495_168),
        ("wan2.2-i2v-a14b", 28_577_802_368, 14_530_314_368),
    ],
)
def test_the_sizes_are_those_of_the_released_models(name: str, bf16: int, int8: int) -> None:
    """Of one DiT, beside what stays fp32 and `proj_l`; the figures without them are those of the family."""
    for dtype, expected in (("bf16", bf16), ("int8", int8)):
        part = next(iter(random_models._dits(SIZES[name], name, dtype, NoisePool(TINY.pool_elements))))
        planned = [tensor for file in part.files for tensor in file.tensors]
        narrow = sum(
            tensor.bytes // (2 if tensor.dtype == "F32" and not tensor.name.endswith("_scale") else 1)
            for tensor in planned
        )
        proj_l = [tensor for tensor in planned if ".proj_l." in tensor.name]
        assert {(tensor.dtype, tensor.shape) for tensor in proj_l} == {("BF16", (128, 128)), ("BF16", (128,))}
        assert narrow - sum(tensor.bytes for tensor in proj_l) == expected
        assert len(proj_l) == 2 * SIZES[name].num_layers
        assert len([tensor for tensor in planned if tensor.dtype == "I8"]) in (0, 10 * SIZES[name].num_layers)
        assert all(sum(tensor.bytes for tensor in file.tensors) <= 10**10 for file in part.files)
        assert len(part.files) == (1 if bf16 < 10**10 else 3 if dtype == "bf16" else 2)
    pool = NoisePool(TINY.pool_elements)
    text, vae = random_models._text_encoder(SIZES[name], pool), random_models._vae(SIZES[name], pool)
    assert text.bytes - len(text.files[0].header) == 11_361_820_672
    assert vae.bytes - len(vae.files[0].header) == 507_570_124


def test_the_commands_names_are_the_maker_s() -> None:
    assert tuple(SIZES) == RANDOM_SIZES


def test_weights_have_the_spread_that_keeps_a_signal_its_size(made: Callable[..., Path]) -> None:
    floating, int8 = (
        tensors(made("t2v", "bf16") / "transformer"),
        tensors(made("t2v", "int8") / "transformer"),
    )
    name = "blocks.1.ffn.net.2.weight"
    scale = int8[f"{name}_scale"].repeat_interleave(128, 0).repeat_interleave(128, 1)
    blocks = int8[name].float() * scale[: int8[name].shape[0], : int8[name].shape[1]]
    for weight in (floating[name].float(), blocks):
        assert float(weight.std()) == pytest.approx(384**-0.5, rel=0.1)
    assert int8[f"{name}_scale"].shape == (2, 3)
    assert len(set(int8[f"{name}_scale"].flatten().tolist())) == 6
    assert float(floating["blocks.0.norm2.weight"].mean()) == pytest.approx(1, abs=0.1)
    assert {str(tensor.dtype) for tensor in int8.values()} == {
        "torch.int8",
        "torch.bfloat16",
        "torch.float32",
    }
    assert int8[name].abs().max() > 100
    assert all(bool(tensor.any()) for tensor in (*floating.values(), *int8.values()))


def test_a_single_file_lies_as_the_library_would_write_it(made: Callable[..., Path], tmp_path: Path) -> None:
    path = made("t2v", "int8") / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(path), tmp_path / "again.safetensors", {"format": "pt"})
    again, own = (tensor_begins(file) for file in (tmp_path / "again.safetensors", path))
    assert again == own
    assert not list(path.parent.glob("*.part"))


def tensor_begins(path: Path) -> list[tuple[str, int]]:
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    header = int.from_bytes(path.read_bytes()[:8], "little")
    assert header % 8 == 0
    fields = json.loads(path.read_bytes()[8 : 8 + header])
    fields.pop("__metadata__")
    return [(name, entry["data_offsets"][0]) for name, entry in fields.items()]


def test_large_nets_are_sharded_in_the_order_of_their_modules(made: Callable[..., Path]) -> None:
    folder = made("i2v", "bf16") / "transformer"
    table = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
    index = read_component_index(folder)
    assert len(index.files) > 2
    assert all(file.weights_bytes <= TINY_I2V.shard_bytes for file in index.files)
    assert table["metadata"]["total_size"] == index.bytes
    order = [name for file in index.files for name in file.tensors]
    # The library's own way to cut it.
    numbers = tensors(folder)
    split = split_torch_state_dict_into_shards(
        {name: numbers[name] for name in order},
        filename_pattern="diffusion_pytorch_model{suffix}.safetensors",
        max_shard_size=TINY_I2V.shard_bytes,
    )
    assert {file.path.name: list(file.tensors) for file in index.files} == split.filename_to_tensors
    assert table["weight_map"] == split.tensor_to_filename
    assert order[:2] == ["scale_shift_table", "patch_embedding.weight"] and order[-1] == "proj_out.bias"
    blocks = [int(name.split(".")[1]) for name in order if name.startswith("blocks.")]
    assert blocks == sorted(blocks)


def test_the_same_bytes_are_made_each_time_and_once(tmp_path: Path, made: Callable[..., Path]) -> None:
    said: list[str] = []
    again = make_random_model(
        tmp_path, "tiny-i2v", dtype="int8", layers=2, sizes=TINY_I2V, progress=said.append
    )
    assert digests(again) == digests(made("i2v", "int8"))
    assert "is ready: " in said[-1]
    make_random_model(tmp_path, "tiny-i2v", dtype="int8", layers=2, sizes=TINY_I2V, progress=said.append)
    assert said[-1] == "tiny-i2v-random-int8 is there already"


def test_what_two_models_have_in_common_lies_on_the_disk_once(tmp_path: Path) -> None:
    said: list[str] = []
    first = make_random_model(tmp_path, "a", layers=2, sizes=TINY)
    second = make_random_model(tmp_path, "b", dtype="int8", layers=2, sizes=TINY_I2V, progress=said.append)
    assert said[0].startswith("text_encoder, tokenizer and vae are hard links to those of a-random")
    for name in ("text_encoder/model.safetensors", "vae/config.json", "tokenizer/tokenizer.json"):
        assert (first / name).samefile(second / name)
    assert not (first / "model_index.json").samefile(second / "model_index.json")
    other = make_random_model(tmp_path, "c", layers=1, sizes=TINY)
    assert not (first / "text_encoder/model.safetensors").samefile(other / "text_encoder/model.safetensors")
    assert all(read_model(root).problem is None for root in (first, second, other))


def test_a_disk_without_links_gets_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_random_model(tmp_path, "a", layers=1, sizes=TINY)
    real, left = os.link, [2]

    def link(source: Path, target: Path) -> None:
        if not left[0]:
            raise OSError(31, "Too many links")
        left[0] -= 1
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    second = make_random_model(tmp_path, "b", layers=1, sizes=TINY)
    names = {name for name in digests(first) if name.split("/")[0] in ("text_encoder", "tokenizer", "vae")}
    assert {name: digests(first)[name] for name in names} == {name: digests(second)[name] for name in names}
    assert not any((first / name).samefile(second / name) for name in names)


def test_other_layers_or_damage_replace_a_random_model_but_nobody_s_own(tmp_path: Path) -> None:
    root = make_random_model(tmp_path, "a", layers=1, sizes=TINY)
    said: list[str] = []
    make_random_model(tmp_path, "a", layers=2, sizes=TINY, progress=said.append)
    assert said[0] == "taking away the a-random of another size"
    assert json.loads((root / "transformer" / "config.json").read_text())["num_layers"] == 2
    os.truncate(root / "vae" / "diffusion_pytorch_model.safetensors", 100)
    make_random_model(tmp_path, "a", layers=2, sizes=TINY)
    assert read_model(root).problem is None
    (root / MARKER).unlink()
    before = digests(root)
    with pytest.raises(StorageUnusable, match=r"a-random is there and is no random model; rename it"):
        make_random_model(tmp_path, "a", layers=1, sizes=TINY)
    assert digests(root) == before


def test_a_disk_with_too_little_room_is_refused_with_the_bytes_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=60_000_000_000))
    with pytest.raises(StorageUnusable, match=r"needs \d{11} bytes \(64\.40 GiB\) .* has 60000000000 \(55"):
        make_random_model(tmp_path, "wan2.2-i2v-a14b")
    assert os.listdir(tmp_path) == [".random.lock"]


def test_a_disk_that_fills_up_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, left = os.pwrite, [20]

    def pwrite(handle: int, data: memoryview, offset: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(handle, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setitem(random_models.__dict__, "SIZES", {NAME: TINY})
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    assert main([str(tmp_path), NAME]) == StorageUnusable.exit_code
    assert f"{NAME} could not be made in {tmp_path}: [Errno 28]" in capsys.readouterr().err
    assert os.listdir(tmp_path) == [".random.lock"]


def test_what_a_killed_maker_left_is_cleared_by_the_next_of_any_name(tmp_path: Path) -> None:
    orphan = tmp_path / ".random-making-killed" / "b-random"
    orphan.mkdir(parents=True)
    (orphan / "model.safetensors.part").write_bytes(b"x")
    make_random_model(tmp_path, "a", layers=1, sizes=TINY)
    assert sorted(os.listdir(tmp_path)) == [".random.lock", "a-random"]


def test_a_second_maker_says_that_it_waits(tmp_path: Path) -> None:
    said: list[str] = []
    waits = threading.Event()

    def progress(text: str) -> None:
        said.append(text)
        waits.set()

    with open(tmp_path / ".random.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        maker = threading.Thread(
            target=make_random_model,
            args=(tmp_path, "a"),
            kwargs={"layers": 1, "sizes": TINY, "progress": progress},
        )
        maker.start()
        assert waits.wait(10)
        assert not (tmp_path / "a-random").exists()
    maker.join(60)
    assert said[0] == "another random model is being made; waiting for its end"
    assert read_model(tmp_path / "a-random").problem is None


@pytest.mark.parametrize(
    ("name", "layers", "words"),
    [("wan3", None, "no sizes called 'wan3'; there are wan2.1"), (NAME, 0, "not 0")],
)
def test_what_could_never_be_made_is_refused(
    tmp_path: Path, name: str, layers: int | None, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        make_random_model(tmp_path / "m", name, layers=layers)
    assert not (tmp_path / "m").exists()


# --------------------------------------------------------------------------- noise and files


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(dtype="BF16", scale=0.3),
        Recipe(dtype="BF16", scale=0.1, shift=1.0),
        Recipe(dtype="F32", scale=0.2),
        Recipe(dtype="I8", scale=40.0),
    ],
)
@pytest.mark.parametrize("wanted", [10, 10_000])
def test_a_stretch_goes_round_the_pool_and_is_the_same_however_it_is_cut(recipe: Recipe, wanted: int) -> None:
    pool = NoisePool(1009)
    stretch = pool.stretch(recipe, "x", wanted)
    width = {"BF16": 2, "F32": 4, "I8": 1}[recipe.dtype]
    whole = b"".join(stretch.parts(0, 2500))
    assert len(whole) == 2500 * width
    assert whole[: 1009 * width] == whole[1009 * width : 2018 * width]
    cut = b"".join(bytes(part) for first in range(0, 2500, 250) for part in stretch.parts(first, 250))
    assert cut == whole


def test_a_pool_is_standard_noise() -> None:
    noise = b"".join(
        NoisePool(TINY.pool_elements).stretch(Recipe(dtype="F32", scale=1.0), "x", 1).parts(0, 65521)
    )
    numbers = torch.frombuffer(bytearray(noise), dtype=torch.float32)
    assert float(numbers.mean()) == pytest.approx(0, abs=0.02)
    assert float(numbers.std()) == pytest.approx(1, abs=0.02)


def test_parts_of_large_tensors_land_in_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.models.weight_writer.PART_BYTES", 1000)
    pool = NoisePool(1009)
    planned = [
        random_models._planned(pool, "t", f"{number}", (7, 500 + number), Recipe(dtype="F32", scale=1.0))
        for number in range(5)
    ]
    write_files([(tmp_path, plan_file("m.safetensors", planned))], writers=4)
    assert PART_BYTES > 1000 and os.listdir(tmp_path) == ["m.safetensors"]
    for name, tensor in load_file(tmp_path / "m.safetensors").items():
        plan = planned[int(name)]
        assert tensor.shape == plan.shape
        assert tensor.numpy().tobytes() == b"".join(plan.content.parts(0, plan.elements))


# --------------------------------------------------------------------------- the command


def run_command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "turbotui", "models", *arguments],
        env={**os.environ, "TURBOTUI_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_command_passes_on_what_the_maker_says_and_how_it_ended(tmp_path: Path) -> None:
    own = tmp_path / "data" / "models" / f"{NAME}-random-int8"
    own.mkdir(parents=True)
    run = run_command(tmp_path, "make-random", NAME, "--dtype", "int8", "--layers", "1")
    assert run.returncode == StorageUnusable.exit_code
    assert run.stderr == f"turbotui: {own} is there and is no random model; rename it, or take it away\n"
    shutil.rmtree(own)
    (own.parent / ".random.lock").unlink()
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(own.parent)
    (tmp_path / "data" / "models").write_text("no folder")
    run = run_command(tmp_path, "make-random", NAME)
    assert (run.returncode, run.stdout) == (StorageUnusable.exit_code, "")
    assert "models cannot be made: File exists" in run.stderr


@pytest.mark.parametrize(
    "arguments", [["make-random", "nope"], ["make-random", NAME, "--layers", "0"], ["nope"]]
)
def test_a_wrong_value_is_refused_before_any_process_starts(tmp_path: Path, arguments: list[str]) -> None:
    assert run_command(tmp_path, *arguments).returncode == 2
    assert os.listdir(tmp_path) == []
