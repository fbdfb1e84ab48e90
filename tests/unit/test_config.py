"""Settings: what is wrong is refused by name, in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import Config, load_config
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
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


def test_the_engine_does_not_mind_a_mistake_in_the_consoles_section(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[engine]\nmax_queue = 5\n[console]\nthone = 1")
    assert load_config(path, {}, section="engine").engine.max_queue == 5
    with pytest.raises(InvalidRequest, match="thone"):
        load_config(path, {})


def test_a_home_of_ones_own_is_no_setting(tmp_path: Path) -> None:
    assert load(tmp_path, "", TURBOTUI_HOME="/x") == Config()
