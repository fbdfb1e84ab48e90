"""Files of many jobs: each line told good or bad, whoever wrote them and on what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import InvalidRequest
from engine.wire import BATCH_LIMIT, JobSpec
from turbotui.job_file import LIMIT_BYTES, JobFile, read_job_file

BASE = JobSpec(model="m", prompt="", resolution="480p", aspect_ratio="1:1", steps=2, seed=5, residency="auto")


def read(tmp_path: Path, raw: bytes | str, name: str = "prompts.txt", samples: int = 1) -> JobFile:
    path = tmp_path / name
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return read_job_file(str(path), BASE, samples=samples)


def prompts(file: JobFile) -> list[str]:
    return [line.spec.prompt for line in file.good if line.spec is not None]


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        ("一只猫在雪地里跑\n".encode(), "utf-8"),
        ("一只猫在雪地里跑\n".encode("utf-8-sig"), "utf-8-sig"),
        ("一只猫在雪地里跑\n".encode("gbk"), "gb18030"),
        ("一只猫在雪地里跑\n".encode("utf-16"), "utf-16"),
    ],
)
def test_a_file_is_read_in_the_encodings_that_people_have(tmp_path: Path, raw: bytes, encoding: str) -> None:
    file = read(tmp_path, raw)
    assert (prompts(file), file.encoding) == (["一只猫在雪地里跑"], encoding)


def test_blank_lines_and_remarks_are_passed_over_and_numbers_stay(tmp_path: Path) -> None:
    file = read(tmp_path, "# mine\r\n\r\n  a fox  \r\na \x85cat\r#no\r{not json}\n")
    assert [(line.number, line.text) for line in file.lines] == [
        (3, "a fox"),
        (4, "a \x85cat"),
        (6, "{not json}"),
    ]
    assert file.lines[0].spec == JobSpec(
        model="m", prompt="a fox", resolution="480p", aspect_ratio="1:1", steps=2, seed=5, residency="auto"
    )


def test_samples_are_each_line_with_seeds_in_a_row(tmp_path: Path) -> None:
    file = read(tmp_path, "a\nb\n", samples=2)
    assert [(line.text, line.spec and line.spec.seed) for line in file.lines] == [
        ("a", 5), ("a", 6), ("b", 5), ("b", 6)
    ]  # fmt: skip


def test_json_lines_take_what_they_do_not_say_from_the_form(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "frames": 17},
        {"prompt": "b", "model": "other", "image": "first.png"},
        {"prompt": "c", "image": "/x.png"},
    ]
    file = read(tmp_path, "\n".join(map(json.dumps, rows)))
    one, two, three = (line.spec for line in file.lines)
    assert one is not None and (one.frames, one.steps, one.resolution) == (17, 2, "480p")
    # Another model's sizes are its own.
    assert two == JobSpec(model="other", prompt="b", image=str(tmp_path / "first.png"), seed=5)
    assert three is not None and three.image == "/x.png"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "no JSON at character 2"),
        ("[1]", "no JSON object"),
        ('{"frames": 17}', "no prompt"),
        ('{"prompt": "a", "framse": 17}', "no field framse"),
        ('{"prompt": "a", "frames": "17"}', "Expected `int"),
        ('{"prompt": "a", "sigma_max": NaN}', "no JSON"),
        ('{"prompt": "a", "seed": 1' + "0" * 5000 + "}", "no JSON"),
        ('{"prompt": "\\ud800"}', "half of a character"),
        ('{"prompt": "' + "x" * 100_000 + '"}', "100,014 characters"),
        ("[" * 5000, "no JSON"),
    ],
    ids=["half", "list", "no prompt", "unknown", "kind", "nan", "huge number", "surrogate", "long", "deep"],
)
def test_a_bad_line_is_named_by_number_and_the_others_stand(tmp_path: Path, line: str, said: str) -> None:
    file = read(tmp_path, '{"prompt": "good"}\n' + line + '\n{"prompt": "too"}\n', "jobs.jsonl")
    assert prompts(file) == ["good", "too"]
    (bad,) = (each for each in file.lines if each.spec is None)
    assert bad.number == 2 and said in (bad.error or "") and len(bad.text) <= 200


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "asks for nothing"),
        (b"# only a remark\n", "asks for nothing"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xff", "no text"),
        (b"a\n" * (BATCH_LIMIT + 1), "divide it"),
        (b"a" * (LIMIT_BYTES + 1), "divide it"),
    ],
    ids=["empty", "remark", "picture", "many", "large"],
)
def test_a_file_that_is_no_list_of_jobs_is_refused(tmp_path: Path, raw: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read(tmp_path, raw)


@pytest.mark.parametrize("name", ["nowhere.txt", ".", "\0"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        read_job_file(f"{tmp_path}/{name}", BASE)


def test_a_line_of_json_among_prompts_is_named_and_braces_alone_are_a_prompt(tmp_path: Path) -> None:
    text = 'a fox\n{"prompt": "x"}\n{glowing} letters\n{"a": 1}\n'
    lines = read(tmp_path, text, "prompts.txt").lines
    assert [line.error is None for line in lines] == [True, False, True, True]
    assert "looks like a JSON line in a file of prompts" in (lines[1].error or "") and lines[1].number == 2
