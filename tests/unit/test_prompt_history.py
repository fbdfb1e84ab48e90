"""Earlier prompts: once each, the newest first, from the file and from the jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.wire import Job, JobSpec
from turbotui.draft import Draft
from turbotui.kept import LIMIT_BYTES, save_table
from turbotui.prompt_history import KEPT, Earlier, PromptHistory, newest, of_jobs


def test_a_prompt_is_kept_once_with_its_newest_settings(tmp_path: Path) -> None:
    history = PromptHistory(tmp_path / "prompts.json")
    history.add(Draft(prompt="一只猫", model="a", seed="1"), 1.0)
    history.add(Draft(prompt="a fox", model="a"), 2.0)
    history.add(Draft(prompt=" 一只猫\n", model="b", seed="2"), 3.0)
    history.add(Draft(prompt="  "), 4.0)
    assert [(entry.draft.prompt, entry.draft.model, entry.at) for entry in history.load()] == [
        (" 一只猫\n", "b", 3.0), ("a fox", "a", 2.0)
    ]  # fmt: skip


def test_the_file_stays_small_and_readable_whatever_is_put_into_it(tmp_path: Path) -> None:
    history = PromptHistory(tmp_path / "prompts.json")
    for number in range(24):
        history.add(Draft(prompt=f"{number}" + "猫" * 8000), float(number))
    assert (tmp_path / "prompts.json").stat().st_size < LIMIT_BYTES
    kept = history.load()
    assert kept[0].at == 23.0 and len(kept) > 15
    entries = [{"prompt": f"p {number}", "saved_at": float(number)} for number in range(KEPT + 5)]
    save_table(tmp_path / "small.json", {"prompts": entries})
    small = PromptHistory(tmp_path / "small.json")
    small.add(Draft(prompt="new"), 9999.0)
    assert len(small.load()) == KEPT and small.load()[0].draft.prompt == "new"


@pytest.mark.parametrize("text", ["", "{", '{"prompts": 3}', '{"prompts": [3, {"prompt": 4}, {}]}'])
def test_a_damaged_file_is_no_history(tmp_path: Path, text: str) -> None:
    (tmp_path / "prompts.json").write_text(text)
    assert PromptHistory(tmp_path / "prompts.json").load() == []


def test_prompts_of_jobs_come_among_ones_own_by_age() -> None:
    jobs = [
        Job(id=number, spec=JobSpec(model="m", prompt=prompt, frames=17), status="done", created_at=at)
        for number, (prompt, at) in enumerate([("a\x1b[2Jb", 1.0), ("c", 3.0)], 1)
    ]
    own = [Earlier(draft=Draft(prompt="own"), at=2.0)]
    found = newest([*own, *of_jobs(jobs, (), None)])
    assert [entry.draft.prompt for entry in found] == ["c", "own", "a[2Jb"]
    assert found[0].draft.frames == "17" and found[0].draft.job_id == 0
