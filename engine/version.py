"""Which build this is: the release and, in a checkout, the commit it stands on.

On its own, since the console shows its build before it loads the wire models (0.05 s).
"""

from __future__ import annotations

from pathlib import Path

VERSION = "0.1.0"
"""The release; pyproject.toml takes it from here."""


def build_id() -> str:
    """The version and, from a checkout, its commit: `0.1.0+g1a2b3c4d5e6f`.

    Read from the files of git itself, since starting git would cost a command 10 ms.
    """
    try:
        commit = _commit(Path(__file__).resolve().parents[1] / ".git")
    except (OSError, ValueError):
        commit = None
    return f"{VERSION}+g{commit[:12]}" if commit else VERSION


def _commit(git: Path) -> str | None:
    """The commit that is checked out; None where `git` is no repository. Raises OSError, ValueError."""
    if git.is_file():  # a linked worktree: "gitdir: <path>"
        git = git.parent / git.read_text("utf-8").removeprefix("gitdir:").strip()
    if not git.is_dir():
        return None
    head = (git / "HEAD").read_text("utf-8").strip()
    if not head.startswith("ref: "):
        return head
    reference = head.removeprefix("ref: ")
    common = git / "commondir"
    shared = git / common.read_text("utf-8").strip() if common.is_file() else git
    for place in (git, shared):
        if (place / reference).is_file():
            return (place / reference).read_text("utf-8").strip()
    for line in (shared / "packed-refs").read_text("utf-8").splitlines():
        commit, _, name = line.partition(" ")
        if name == reference:
            return commit
    return None
