"""A model's int8 sibling: the numbers of the specification, all else byte for byte, whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

import engine.models.quantised_tensors as quantised_tensors
import engine.models.quantising as quantising
from engine.errors import InvalidRequest, ModelUnusable, NotFound, StorageUnusable, WorkFailed
from engine.models.catalog import Catalog
from engine.models.folders import RANDOM_MARKER
from engine.models.index import read_component_index
from engine.models.model import read_model
from engine.models.quantised_files import MARKER, Marker, making_folder
from engine.models.quantising import Message, quantise_model
from engine.models.random_models import Sizes, make_random_model
from engine.models.siblings import int8_siblings, originals
from engine.models.weight_file import TensorEntry, WeightFile
from engine.models.weight_writer import FilePlan
from engine.wire import Quantised, QuantisePlan, QuantiseProgress
from engine.worker.nets.int8 import replace_linears
from tests.specification.int8 import quantise as specified
from turbotui.cli import main

TINY = Sizes(
    title="Tiny",
    kind="i2v",
    num_attention_heads=2,
    ffn_dim=384,
    num_layers=2,
    text_dim=64,
    text_heads=2,
    text_ffn_dim=96,
    text_layers=2,
    vocabulary=1088,
    vae_dim=8,
    shard_bytes=1_000_000,
    pool_elements=2**16 - 15,
)
EXPERTS = ("transformer", "transformer_2")
PROJ_L = "blocks.0.attn1.proj_l.weight"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with one of two experts in shards; read only."""
    models = tmp_path_factory.mktemp("models")
    root = make_random_model(models, "tiny", sizes=TINY)
    root.rename(models / "tiny")
    (models / "tiny" / "LICENSE").write_text("free", "utf-8")
    return models


@pytest.fixture
def models(made: Path, tmp_path: Path) -> Path:
    """The same, to write in."""
    shutil.copytree(made / "tiny", tmp_path / "models" / "tiny", copy_function=os.link)
    return tmp_path / "models"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


@pytest.fixture(scope="module")
def sibling(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sibling of `made`'s model; read only."""
    out = tmp_path_factory.mktemp("out")
    done = quantise_model(made, "tiny", out=out)
    assert isinstance(done, Quantised)
    return out / "tiny-int8"


@pytest.mark.parametrize("expert", EXPERTS)
def test_the_linear_layers_of_the_blocks_are_the_specification_s_to_the_bit_and_the_rest_is_untouched(
    made: Path, sibling: Path, expert: str
) -> None:
    before, after = tensors(made / "tiny" / expert), tensors(sibling / expert)
    with torch.device("meta"):
        net = WanTransformer3DModel(
            in_channels=36, num_attention_heads=2, ffn_dim=384, num_layers=2, text_dim=64
        )
    assert replace_linears(net) == 20
    linear_parts = {f"blocks.{n}.attn1.proj_l.{name}" for n in range(2) for name in ("weight", "bias")}
    assert set(after) == set(net.state_dict()) | linear_parts
    for name, weight in before.items():
        if f"{name}_scale" in after:
            values, scale = specified(weight)
            assert same(after[name], values), name
            assert same(after[f"{name}_scale"], scale), name
        else:
            assert same(after[name], weight), name
    assert after[PROJ_L].dtype == torch.bfloat16


def test_the_largest_number_of_a_block_is_128_steps_and_not_127(models: Path) -> None:
    name = "blocks.1.ffn.net.2.weight"
    shard = read_component_index(models / "tiny" / "transformer").file_of[name]
    weights = load_file(shard)
    weights[name][:128, :128] = torch.linspace(-1, 1, 128 * 128).view(128, 128).bfloat16()
    shard.unlink()
    save_file(weights, shard, {"format": "pt"})
    quantise_model(models, "tiny")
    after = tensors(models / "tiny-int8" / "transformer")
    block = after[name][:128, :128]
    assert (int(block.min()), int(block.max())) == (-128, 127)
    assert float(after[f"{name}_scale"][0, 0]) == 1 / 128


def test_it_is_a_model_and_the_sibling_of_the_other_and_shares_what_is_not_quantised(
    made: Path, sibling: Path
) -> None:
    original, quantised = read_model(made / "tiny"), read_model(sibling)
    assert (quantised.problem, quantised.dtype, quantised.kind) == (None, "int8", "i2v")
    assert quantised.card.quantised_from == "tiny"
    assert quantised.card.title == "Tiny, random weights int8"
    assert quantised.card.random and quantised.few_steps
    assert int8_siblings(original, [original, quantised]) == [quantised]
    assert originals(quantised, [original, quantised]) == [original]
    for name in ("text", "vae"):
        assert original.component(name).content == quantised.component(name).content
    assert (sibling / "LICENSE").read_text("utf-8") == "free"
    assert not (sibling / RANDOM_MARKER).exists(), "what was made at random is not this one"
    marker = msgspec.json.decode((sibling / MARKER).read_bytes(), type=Marker)
    assert set(marker.sha256) == {
        path.relative_to(sibling).as_posix() for path in sibling.glob("transformer*/*.safetensors")
    }
    assert all(0.005 < error < 0.012 for error in marker.relative_l2.values())


def test_files_of_torch_are_read_where_they_lie(models: Path, sibling: Path) -> None:
    for expert in EXPERTS:
        folder = models / "tiny" / expert
        weights = tensors(folder)
        for path in folder.iterdir():
            if path.name != "config.json":
                path.unlink()
        torch.save(weights, folder / "diffusion_pytorch_model.pth")
    quantise_model(models, "tiny")
    for expert in EXPERTS:
        found, expected = tensors(models / "tiny-int8" / expert), tensors(sibling / expert)
        assert found.keys() == expected.keys()
        assert all(same(found[name], expected[name]) for name in expected)


class Stopped(BaseException):
    pass


def test_a_run_that_was_stopped_goes_on_and_gives_the_same_bytes(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantising, "SHARD_BYTES", 400_000)
    quantise_model(models, "tiny", new_name="at-once")
    heard: list[Message] = []

    def stop(message: Message) -> None:
        heard.append(message)
        if isinstance(message, QuantiseProgress) and message.stage == "check" and len(heard) > 6:
            raise Stopped

    with pytest.raises(Stopped):
        quantise_model(models, "tiny", tell=stop)
    assert {model.name for model in Catalog(models).models()} == {"tiny", "at-once"}, (
        "seen before it is whole"
    )
    hidden = making_folder(models / "tiny-int8")
    (hidden / "transformer" / "killed.safetensors.part").write_bytes(b"half")
    heard.clear()
    done = quantise_model(models, "tiny", tell=heard.append)
    plan = heard[0]
    assert isinstance(plan, QuantisePlan) and 0 < plan.kept_bytes < plan.bytes
    assert not hidden.exists()
    one, other = files(models / "at-once"), files(models / "tiny-int8")
    assert one == other
    assert isinstance(done, Quantised) and len(done.sha256) > 4


def test_what_was_left_of_other_weights_is_not_gone_on_with(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(message: Message) -> None:
        if isinstance(message, QuantiseProgress) and message.file.startswith("transformer_2"):
            raise Stopped

    with pytest.raises(Stopped):
        quantise_model(models, "tiny", tell=stop)
    shard = next((models / "tiny" / "transformer").glob("*00001*.safetensors"))
    weights = load_file(shard)
    shard.unlink()
    save_file({name: weight * 2 for name, weight in weights.items()}, shard, {"format": "pt"})
    heard: list[Message] = []
    quantise_model(models, "tiny", tell=heard.append)
    assert isinstance(heard[0], QuantisePlan) and heard[0].kept_bytes == 0


def test_no_more_than_a_band_is_in_memory(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    reads: list[int] = []
    quantise, read = quantised_tensors.quantise, WeightFile.read

    def counted(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(matrix.numel())
        return quantise(matrix)

    def counted_read(file: WeightFile, begin: int, length: int) -> bytes:
        reads.append(length)
        return read(file, begin, length)

    monkeypatch.setattr(quantised_tensors, "quantise", counted)
    monkeypatch.setattr(WeightFile, "read", counted_read)
    monkeypatch.setattr(quantised_tensors, "BAND_ELEMENTS", 1)
    monkeypatch.setattr(quantised_tensors, "COPY_BYTES", 4096)
    quantise_model(models, "tiny")
    assert max(sizes) == 128 * 384
    assert max(reads) == 128 * 384 * 2


def test_what_lies_on_the_disk_is_compared_with_what_was_read(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files = quantising.write_files

    def damaging(planned: list[tuple[Path, FilePlan]], **options: object) -> None:
        write_files(planned, **options)  # type: ignore[arg-type]
        folder, plan = planned[0]
        raw = bytearray((folder / plan.name).read_bytes())
        raw[len(plan.header) :] = bytes(len(raw) - len(plan.header))
        (folder / plan.name).write_bytes(raw)

    monkeypatch.setattr(quantising, "write_files", damaging)
    with pytest.raises(WorkFailed, match="otherwise than it was written"):
        quantise_model(models, "tiny")
    assert not (models / "tiny-int8").exists()


def change(models: Path, name: str, weight: torch.Tensor) -> None:
    shard = read_component_index(models / "tiny" / "transformer").file_of[name]
    weights = load_file(shard) | {name: weight}
    shard.unlink()
    save_file(weights, shard, {"format": "pt"})


def test_what_cannot_be_quantised_is_refused_by_name(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="no model 'tinny'; did you mean tiny"):
        quantise_model(models, "tinny")
    for name in ("a/b", "", ".hidden", "x" * 201, "a\nb"):
        with pytest.raises(InvalidRequest, match="no name for a model's folder"):
            quantise_model(models, "tiny", new_name=name)
    with pytest.raises(InvalidRequest, match="there already; choose another name"):
        quantise_model(models, "tiny", new_name="tiny")
    (models / "demo" / "other").mkdir(parents=True)
    with pytest.raises(InvalidRequest, match="there is a model other already"):
        quantise_model(models, "tiny", new_name="other")
    monkeypatch.setattr(quantising, "_free_bytes", lambda folder: 1000)
    with pytest.raises(StorageUnusable, match=r"tiny-int8 needs .* whose disk has 1000 B free"):
        quantise_model(models, "tiny")
    monkeypatch.undo()
    weight = torch.zeros(256, 256, dtype=torch.bfloat16)
    weight[200, 100] = float("nan")
    change(models, "blocks.1.attn2.to_k.weight", weight)
    with pytest.raises(ModelUnusable, match=r"'blocks.1.attn2.to_k.weight' with numbers that are infinite"):
        quantise_model(models, "tiny")
    change(models, "blocks.1.attn2.to_k.weight", weight.nan_to_num().to(torch.float8_e4m3fn))
    with pytest.raises(ModelUnusable, match=r"attn2.to_k.weight' as F8_E4M3, which cannot be quantised"):
        quantise_model(models, "tiny")
    change(models, "blocks.1.attn2.to_k.weight", weight.nan_to_num())
    quantise_model(models, "tiny")
    with pytest.raises(InvalidRequest, match="there already, made of tiny as it is"):
        quantise_model(models, "tiny")
    with pytest.raises(InvalidRequest, match="int8 blocks already"):
        quantise_model(models, "tiny-int8")
    (models / "tiny" / "vae" / "config.json").unlink()
    with pytest.raises(ModelUnusable, match=r"tiny cannot be quantised: .*config.json is missing"):
        quantise_model(models, "tiny", new_name="again")


def test_bands_give_any_stretch_of_a_weight(tmp_path: Path) -> None:
    """As the writer asks: parts that begin and end anywhere, of sizes that are no whole blocks."""
    weight = torch.randn(300, 200, generator=torch.Generator().manual_seed(3))
    save_file({"w": weight}, tmp_path / "w.safetensors")
    with quantising.open_weight_file(tmp_path / "w.safetensors") as file:
        end = file.num_bytes
        source = quantised_tensors.Weight(
            name="w",
            file=file,
            entry=TensorEntry(dtype="F32", shape=(300, 200), begin=end - weight.nbytes, end=end),
        )
        values, scale = specified(weight)
        for first, count in ((0, 60_000), (5, 17), (25_599, 2), (25_601, 34_399), (59_999, 1)):
            found = b"".join(quantised_tensors.Values(weight=source).parts(first, count))
            assert found == values.view(-1)[first : first + count].numpy().tobytes()
        for first, count in ((0, 6), (1, 3), (5, 1)):
            found = b"".join(quantised_tensors.Scales(weight=source).parts(first, count))
            assert found == scale.view(-1)[first : first + count].numpy().tobytes()


def test_the_command_makes_it_and_tells_it_as_json(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    models.rename(tmp_path / "data" / "models")
    assert main(["quantize", "tiny", "--json", "--out", str(tmp_path / "disk")]) == 0
    told = msgspec.json.decode(capfdbinary.readouterr().out, type=Quantised)
    assert (told.name, told.model, told.layers) == ("tiny-int8", "tiny", 40)
    link = tmp_path / "data" / "models" / "tiny-int8"
    assert link.is_symlink() and read_model(link).problem is None
    assert main(["quantize", "tiny"]) == InvalidRequest.exit_code
    assert b"is there already, made of tiny" in capfdbinary.readouterr().err
