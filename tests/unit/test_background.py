"""The background view: three lines that say what the balance and the models say, and when they are news."""

from __future__ import annotations

from dataclasses import replace

from engine.daemon.background import BackgroundNews, background
from engine.embeddings import EmbeddingUsage
from engine.units import GIB, MIB
from engine.wire import Background, BalancePart, ComponentState, WorkerStatus
from turbotui.client import scenes

NOW = 1_790_000_000.0
WORKER = WorkerStatus(
    pid=81223, device_id=scenes.GPU, state="idle", started_at=NOW, forked=True, warm_bytes=57 * GIB
)


def view(*, cache: float = 0.4, low: ComponentState = "resident", prompts: int = 12) -> Background:
    balance = scenes.gpu_balance(NOW)
    parts = tuple(
        replace(part, bytes=scenes.gib(cache)) if part.kind == "releasable" else part
        for part in balance.parts
    )
    models = scenes.gpu_models(NOW)
    first = replace(
        models[0],
        components=tuple(
            replace(part, state=low) if part.name == "dit.low" else part for part in models[0].components
        ),
    )
    usage = EmbeddingUsage(entries=prompts, bytes=3 * MIB)
    device = scenes.gpu(NOW, replace(balance, parts=parts))
    return background(device, (first, *models[1:]), (WORKER,), usage)


def test_the_three_lines_say_what_the_original_ones_said_and_whose_it_is() -> None:
    memory, models, cache = view().lines
    assert memory == (
        "GPU memory of GPU 2: 38.70 GiB of 140.40 GiB (27.6 % used): "
        "ours 17.90 GiB, others 6.20 GiB, driver 614.4 MiB, unseen 14.00 GiB"
    )
    assert models == (
        "Active models: wan2.2-a14b (dit.high unloaded, dit.low loaded 13.50 GiB, in use, "
        "text unloaded, vae loaded 204.8 MiB, in use)"
    )
    assert cache == (
        "Cache status: 409.6 MiB on the device that `free` gives back; 57.00 GiB of weight files warm in "
        "host memory (6 components); 12 prompts' embeddings on disk (3.0 MiB)"
    )


def test_the_owners_and_what_is_free_make_the_whole_device() -> None:
    seen = view()
    assert seen.used_bytes is not None and seen.total_bytes is not None
    assert sum(seen.owners.values()) == seen.used_bytes
    assert seen.total_bytes - seen.used_bytes == next(
        part.bytes for part in scenes.gpu_balance(NOW).parts if part.kind == "free"
    )


def test_what_cannot_be_known_is_none_and_says_why() -> None:
    nothing = background(None, (), (), None)
    assert (nothing.used_bytes, nothing.cache.releasable_bytes, nothing.cache.prompts) == (None, None, None)
    assert nothing.lines[0] == "Memory: not read yet"  # whether there is a GPU is not known either
    unread = replace(scenes.host(NOW), balance=None)
    assert background(unread, (), (), None).lines[0] == "Host memory (no GPU): not read yet"
    assert nothing.cache.reason == "the device was not read yet"
    host = background(scenes.host(NOW), scenes.cpu(NOW).status.models, (), None)
    assert host.lines[0].startswith("Host memory (no GPU): 2.80 GiB of 15.60 GiB (18.0 % used): ours 412.0")
    assert host.cache.releasable_bytes is None and "without a GPU" in (host.cache.reason or "")


def test_a_model_whose_folder_is_gone_is_active_all_the_same() -> None:
    part = BalancePart(kind="weights", owner="ours", bytes=GIB, label="deleted/dit")
    balance = scenes.gpu_balance(NOW)
    device = scenes.gpu(NOW, replace(balance, parts=(*balance.parts, part)))
    lines = background(device, scenes.gpu_models(NOW), (WORKER,), None).lines
    assert "; deleted (dit loaded 1.00 GiB)" in lines[1]


def test_a_change_is_told_once_it_has_settled_and_once_only() -> None:
    news = BackgroundNews()
    told = [
        news.is_news(seen)
        for seen in (view(), view(), view(), view(low="loading"), view(low="absent"), view(low="absent"))
    ]
    assert told == [False, True, False, False, False, True]


def test_a_cache_that_moves_is_news_only_by_its_class() -> None:
    news = BackgroundNews()
    told = [news.is_news(view(cache=cache)) for cache in (0.4, 0.4, 0.9, 0.9, 9, 9, 9.5, 9.5, 5, 9, 1, 1)]
    assert told == [False, True, False, False, False, True, False, False, False, False, False, True]


def test_what_no_reading_was_made_of_is_no_news() -> None:
    news = BackgroundNews()
    nothing = background(None, (), (), None)
    assert not any(news.is_news(nothing) for _ in range(3))
