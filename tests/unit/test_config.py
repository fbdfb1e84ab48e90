"""Settings: what is wrong is refused by name, in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import Config, EngineConfig, load_config
from engine.errors import InvalidRequest


def load(tmp_path: Path, text: str, **environ: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load_config(path, environ)


def test_a_missing_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path / "none.toml", {}) == Config()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, '[engine]\ndevice = "cpu"\nmax_queue = 5', TURBOTUI_ENGINE_MAX_QUEUE="7")
    assert (config.engine.device, config.engine.max_queue) == ("cpu", 7)


def test_the_cache_of_embeddings_may_be_switched_off(tmp_path: Path) -> None:
    assert load(tmp_path, "").engine.embedding_cache_bytes == 512 * 2**20
    assert load(tmp_path, "[engine]\nembedding_cache_bytes = 0").engine.embedding_cache_bytes == 0


def test_a_size_may_be_written_with_its_unit_in_the_file_and_in_the_environment(tmp_path: Path) -> None:
    text = '[engine]\nkeep_free_bytes = "8 GiB"\nlog_bytes = "1 MiB"\nmemory_budget_bytes = 5'
    engine = load(tmp_path, text, TURBOTUI_ENGINE_WARM_BUDGET_BYTES="500 MB").engine
    assert (engine.keep_free_bytes, engine.log_bytes) == (8 * 2**30, 2**20)
    assert (engine.memory_budget_bytes, engine.warm_budget_bytes) == (5, 500 * 10**6)


def test_every_setting_in_bytes_takes_a_unit(tmp_path: Path) -> None:
    names = [name for name in EngineConfig.__dataclass_fields__ if name.endswith("_bytes")]
    config = load(tmp_path, "[engine]\n" + "\n".join(f'{name} = "2 GiB"' for name in names)).engine
    assert len(names) >= 5 and {getattr(config, name) for name in names} == {2 * 2**30}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[engine]\nkeep_free_bytes = '8 G'", "engine.keep_free_bytes.*'8 G' is no size"),
        ("[engine]\nkeep_free_bytes = '-1 GiB'", "keep_free_bytes must be at least 0"),
        ("[engine]\nkeep_free_bytes = true", "keep_free_bytes"),
        ("[engine]\ndevise = 1", "engine.devise"),
        ("[motor]\nx = 1", "motor"),
        ("engine = 3", "engine"),
        ("[engine]\nmax_queue = 'many'", "max_queue"),
        ("[engine]\nmemory_budget_bytes = -5", "memory_budget_bytes"),
        ("[engine]\nlog_bytes = 0", "log_bytes"),
        ("[engine]\nembedding_cache_bytes = -1", "embedding_cache_bytes"),
        ("[engine]\noutput_dir = 'videos'", "output_dir"),
        ("[engine]\noutput_dir = '~nobody-there/x'", "output_dir"),
        ("[engine\n", "config.toml"),
    ],
)
@pytest.mark.parametrize("environ", [{}, {"TURBOTUI_ENGINE_DEVICE": "cpu"}])
def test_a_wrong_setting_is_refused_by_name(
    tmp_path: Path, text: str, words: str, environ: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        load(tmp_path, text, **environ)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("-1", "engine.memory_budget_bytes must be at least 1, got -1"),
        ("many", "engine.memory_budget_bytes"),
    ],
)
def test_a_wrong_variable_is_named_as_what_it_is(tmp_path: Path, value: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        load(tmp_path, "[engine]\nmax_queue = 5", TURBOTUI_ENGINE_MEMORY_BUDGET_BYTES=value)
    assert told in str(error.value) and "$" not in str(error.value)
    with pytest.raises(InvalidRequest, match=r"^TURBOTUI_ENGINE_MAX_QUEUE is wrong: engine.max_queue: Exp"):
        load(tmp_path, "", TURBOTUI_ENGINE_MAX_QUEUE="many")
    with pytest.raises(InvalidRequest, match=r"config.toml is wrong: engine.max_queue must be .* got 0$"):
        load(tmp_path, "[engine]\nmax_queue = 0", TURBOTUI_ENGINE_LOG_BYTES="1 MiB")


def test_the_engine_does_not_mind_a_mistake_in_the_consoles_section(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[engine]\nmax_queue = 5\n[console]\nthone = 1")
    assert load_config(path, {}, section="engine").engine.max_queue == 5
    with pytest.raises(InvalidRequest, match="thone"):
        load_config(path, {})


def test_a_home_of_ones_own_is_no_setting(tmp_path: Path) -> None:
    assert load(tmp_path, "", TURBOTUI_HOME="/x") == Config()


def test_thresholds_of_pressure_are_shares_in_their_order(tmp_path: Path) -> None:
    engine = load(tmp_path, "[engine]\npressure_warn = 0.7\npressure_drop = 'idle'").engine
    assert (engine.pressure_warn, engine.pressure_act, engine.pressure_drop) == (0.7, 0.95, "idle")
    for text in ("pressure_warn = 0.96", "pressure_act = 1.1", "pressure_warn = 0", "pressure_drop = 'all'"):
        with pytest.raises(InvalidRequest, match="pressure"):
            load(tmp_path, f"[engine]\n{text}")


def test_a_command_may_be_a_list_or_what_a_shell_would_split(tmp_path: Path) -> None:
    for text in ("['tell', 'two words']", "\"tell 'two words'\""):
        assert load(tmp_path, f"[notify]\ncommand = {text}").notify.argv == ("tell", "two words")
    assert load(tmp_path, "").notify.argv == ()
    variables = {"TURBOTUI_NOTIFY_COMMAND": "tell me", "TURBOTUI_NOTIFY_ON": "done, oom"}
    notify = load(tmp_path, "", **variables).notify
    assert (notify.argv, notify.on) == (("tell", "me"), ("done", "oom"))


@pytest.mark.parametrize(
    "text",
    [
        'command = "it\'s"',
        "command = ['']",
        "on = ['dune']",
        "timeout_s = 0",
        "min_interval_s = -1",
        "of = []",
    ],
)
def test_what_is_wrong_about_notify_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"notify.{text.split()[0]}"):
        load(tmp_path, f"[notify]\n{text}")


def test_the_engine_reads_its_notify_section_and_not_the_consoles(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[notify]\ncommand = 'tell'\n[console]\nnotify = 'loud'")
    assert load_config(path, {}, section="engine").notify.argv == ("tell",)
    with pytest.raises(InvalidRequest, match=r"console\.notify"):
        load_config(path, {}, section="console")
