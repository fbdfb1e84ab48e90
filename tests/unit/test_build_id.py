"""The build that a client compares with its engine's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine import version
from engine.version import VERSION

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "files",
    [
        {".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": COMMIT + "\n"},
        {
            ".git/HEAD": "ref: refs/heads/main\n",
            ".git/packed-refs": f"# pack-refs\n{'f' * 40} refs/heads/other\n{COMMIT} refs/heads/main\n",
        },
        {".git/HEAD": COMMIT + "\n"},
        {
            ".git": "gitdir: real/worktrees/a\n",
            "real/worktrees/a/HEAD": "ref: refs/heads/side\n",
            "real/worktrees/a/commondir": "../..\n",
            "real/refs/heads/side": COMMIT + "\n",
        },
    ],
)
def test_a_checkout_names_its_commit(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(version, "__file__", str(tmp_path / "engine" / "version.py"))
    assert version.build_id() == f"{VERSION}+g0123456789ab"


@pytest.mark.parametrize("files", [{}, {".git/HEAD": "ref: refs/heads/none\n"}, {".git": "gitdir: gone\n"}])
def test_without_a_readable_commit_the_version_stands_alone(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(version, "__file__", str(tmp_path / "engine" / "version.py"))
    assert version.build_id() == VERSION


def test_a_real_repository_is_read_as_git_reads_it() -> None:
    root = Path(version.__file__).parents[1]
    git = subprocess.run(
        ["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if git.returncode:
        pytest.skip("not run from a checkout")
    assert version.build_id() == f"{VERSION}+g{git.stdout[:12]}"
