"""Fetching released models, from a hub on this machine and in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from huggingface_hub import constants

from engine.errors import NotFound
from engine.models.getting.cache import CachedRepository, find_cache
from engine.models.getting.released import RELEASED, SHARED_REPOSITORY, find_released
from engine.models.getting.run import main
from engine.wire import GetNews, GetPlan
from tests.unit.hub_server import COMMIT, HubServer, serve, sha256

NAME = "TurboWan2.1-T2V-1.3B-480P"
REPOSITORY = f"TurboDiffusion/{NAME}"
DIT = bytes(range(256)) * 65536  # 16 MiB
CHUNK = 10 << 20
"""In which huggingface_hub writes: what of one was cut is fetched again."""
TEXT, VAE = b"text" * 1000, b"vae" * 1000
BLOB = sha256(DIT)


def hub_of_released() -> HubServer:
    """Toy bytes under the released names; some of the optional files are not there."""
    return HubServer(
        repositories={
            REPOSITORY: {f"{NAME}.pth": DIT, f"{NAME}-quant.pth": DIT[:4096]},
            SHARED_REPOSITORY: {
                "models_t5_umt5-xxl-enc-bf16.pth": TEXT,
                "Wan2.1_VAE.pth": VAE,
                "google/umt5-xxl/tokenizer.json": b"{}",
            },
        }
    )


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serve(hub_of_released()) as hub:
        yield hub


Getter = Callable[..., tuple[int, list[GetNews]]]


@pytest.fixture
def get(
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Getter:
    """Runs the fetching process against the hub; its exit code and what it said."""

    def run(verb: str, name: str = NAME, **environ: str) -> tuple[int, list[GetNews]]:
        if not environ.keys() - {"HF_ENDPOINT"}:
            return here(verb, name, environ.get("HF_ENDPOINT", hub.address))
        given = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        given |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf")} | environ
        command = [
            sys.executable,
            "-P",
            "-m",
            "engine.models.getting.run",
            verb,
            str(tmp_path / "models"),
            name,
        ]
        ended = subprocess.run(command, capture_output=True, env=given, timeout=60, check=False)
        assert ended.stderr == b"", ended.stderr.decode()
        return ended.returncode, [
            msgspec.json.decode(line, type=GetNews) for line in ended.stdout.splitlines()
        ]

    def here(verb: str, name: str, endpoint: str) -> tuple[int, list[GetNews]]:
        """In this process, which has loaded the library once."""
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        capfdbinary.readouterr()
        code = main([verb, str(tmp_path / "models"), name])
        return code, [
            msgspec.json.decode(line, type=GetNews) for line in capfdbinary.readouterr().out.splitlines()
        ]

    return run


def plan_of(news: list[GetNews]) -> GetPlan:
    return next(one.plan for one in news if one.plan is not None)


def error_of(news: list[GetNews]) -> str:
    assert news[-1].error is not None
    return news[-1].error.message


def cached(tmp_path: Path, repository: str = REPOSITORY) -> CachedRepository:
    return CachedRepository.of(tmp_path / "hf" / "hub", repository)


def test_every_released_model_has_its_dits_and_the_three_that_all_share() -> None:
    assert len(RELEASED) == 8
    for model in RELEASED:
        dits = [file for file in model.files if file.role.startswith("dit")]
        assert len(dits) == (2 if model.kind == "i2v" else 1)
        assert all(file.path.endswith("-quant.pth") == model.int8 for file in dits)
        assert {"text", "vae", "tokenizer"} <= {file.role for file in model.files}
    assert find_released("turbodiffusion/turbowan2.2-i2v-a14b-720p-QUANT").files[0].path == (
        "TurboWan2.2-I2V-A14B-high-720P-quant.pth"
    )
    with pytest.raises(NotFound, match=r"did you mean TurboWan2\.1-T2V-14B-720P\?"):
        find_released("TurboWan2.1-T2V-14B-720")


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "~/b", "HOME": "/home/me"}, "/home/me/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HOME": "/home/me"}, "/home/me/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_hubs_own_library_has_it(environ: dict[str, str], folder: str) -> None:
    assert str(find_cache(environ)) == folder


def test_size_licence_and_disk_are_told_before_anything_comes(get: Getter, hub: HubServer) -> None:
    code, news = get("plan")
    plan = plan_of(news)
    assert (code, plan.problem) == (0, None)
    assert plan.missing_bytes == len(DIT) + len(TEXT) + len(VAE) + 2
    assert {licence.name for licence in plan.licences} == {"apache-2.0"}
    assert plan.free_bytes and hub.downloads() == []


def test_what_is_fetched_lies_as_the_hubs_own_library_looks_for_it(get: Getter, tmp_path: Path) -> None:
    code, news = get("fetch")
    assert code == 0 and news[-1].fetched is not None
    *files, tokenizer = map(Path, news[-1].fetched)
    assert [path.read_bytes() for path in files] == [DIT, TEXT, VAE]
    assert tokenizer.name == "umt5-xxl" and (tokenizer / "tokenizer.json").read_bytes() == b"{}"
    last = [one.progress for one in news if one.progress is not None][-1]
    assert last.bytes == last.total_bytes == len(DIT) + len(TEXT) + len(VAE) + 2
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(REPOSITORY, f"{NAME}.pth", cache_dir=tmp_path / "hf" / "hub")
    assert isinstance(found, str) and found in news[-1].fetched and os.path.islink(found)
    # Once here it needs no network at all.
    code, news = get("fetch", HF_HUB_OFFLINE="1")
    assert code == 0 and plan_of(news).missing_bytes == 0 and news[-1].fetched


def test_a_cut_goes_on_where_it_was_and_so_does_the_next_run(
    get: Getter, hub: HubServer, tmp_path: Path
) -> None:
    hub.cut_after, hub.cuts = CHUNK + 1000, 1
    code, news = get("fetch")
    assert code == 0 and news[-1].fetched
    assert [ranged for path, ranged in hub.downloads() if path.endswith(f"{NAME}.pth")] == [
        None,
        f"bytes={CHUNK}-",
    ]
    # As a process leaves it that was ended half way.
    blob, part = cached(tmp_path).blob(BLOB), cached(tmp_path).part(BLOB)
    blob.unlink()
    part.write_bytes(DIT[:1000])
    hub.asked.clear()
    code, news = get("fetch")
    assert plan_of(news).missing_bytes == len(DIT) - 1000
    assert code == 0 and [ranged for _, ranged in hub.downloads()] == ["bytes=1000-"]
    assert blob.read_bytes() == DIT and not part.exists()


def test_bytes_of_another_digest_are_refused_and_removed(get: Getter, hub: HubServer, tmp_path: Path) -> None:
    hub.broken.add(f"{NAME}.pth")
    code, news = get("fetch")
    assert code == 5 and f"the Hub says sha256:{BLOB}" in error_of(news)
    assert not cached(tmp_path).part(BLOB).exists() and not cached(tmp_path).blob(BLOB).exists()
    # What was right before it stays.
    assert cached(tmp_path, SHARED_REPOSITORY).find("Wan2.1_VAE.pth")


def test_the_token_goes_to_its_endpoint_and_to_no_other_host(
    get: Getter, hub: HubServer, tmp_path: Path
) -> None:
    with serve(hub_of_released()) as other:
        hub.elsewhere = other.address.replace("127.0.0.1", "localhost")
        code, _ = get("fetch", HF_TOKEN="hf_secret")
        assert code == 0 and other.downloads()
        assert {token for *_, token in other.asked} == {None}
        tokens = {token for _, path, _, token in hub.asked if NAME in path or SHARED_REPOSITORY in path}
        assert tokens == {"Bearer hf_secret"}
    # A login that was saved is the public Hub's.
    (tmp_path / "hf" / "token").write_text("hf_saved")
    hub.asked.clear()
    assert get("plan", f"{NAME}-quant", HF_TOKEN="")[0] == 0
    assert {token for *_, token in hub.asked} == {None}


@pytest.mark.parametrize(
    ("fault", "environ", "told"),
    [
        ({"gated": True}, {}, "is gated: agree to its terms at {address}/" + REPOSITORY),
        ({"status": 401}, {"HF_TOKEN": "hf_x"}, "refuses the token"),
        ({"status": 404}, {}, "shows no " + REPOSITORY),
        ({"status": 403}, {}, "does not give"),
    ],
)
def test_a_refusal_names_the_way_out(
    get: Getter, hub: HubServer, fault: dict[str, object], environ: dict[str, str], told: str
) -> None:
    for name, value in fault.items():
        setattr(hub, name, value)
    code, news = get("plan", **environ)
    assert code == 4 and told.format(address=hub.address) in error_of(news)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
    ],
)
def test_without_the_hub_the_commands_for_another_machine_are_given(
    get: Getter, environ: dict[str, str], told: str
) -> None:
    code, news = get("plan", **environ)
    plan = plan_of(news)
    assert code == 0 and plan.problem is not None and told in plan.problem.message
    fetched = [line for line in plan.elsewhere if line.startswith("curl")]
    assert any(f"/{REPOSITORY}/resolve/main/{NAME}.pth" in line for line in fetched)
    assert plan.elsewhere[-1].startswith("rsync") and plan.here[0].startswith("turbotui import ")
    assert get("fetch", **environ)[0] == 4


def test_a_disk_that_is_too_small_is_told_before_anything_comes(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.models.getting import plan as planning
    from engine.models.getting.hub import Hub

    monkeypatch.setattr(planning, "free_bytes", lambda folder: 1000)
    one = Hub()
    one.endpoint, one.offline = hub.address, False
    plan = planning.plan_get(find_released(NAME), tmp_path, one).plan
    assert plan.problem is not None and plan.problem.code == "storage_unusable"
    assert "1000 B free" in plan.problem.message and "HF_HOME" in plan.problem.message
    assert plan.elsewhere == () and hub.downloads() == []


def test_the_list_tells_what_is_here(get: Getter, tmp_path: Path) -> None:
    get("fetch")
    (tmp_path / "models" / f"{NAME}-quant").mkdir(parents=True)
    code, news = get("list")
    assert code == 0 and news[0].models is not None
    here = {model.name: model.presence for model in news[0].models}
    assert here[NAME] == "fetched" and here[f"{NAME}-quant"] == "imported"
    assert here["TurboWan2.1-T2V-14B-480P"] == "absent"
    assert (cached(tmp_path).folder / "refs" / "main").read_text() == COMMIT
