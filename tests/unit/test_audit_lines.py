"""The audit log as `turbotui audit` prints it, in the person's language."""

from __future__ import annotations

import pytest

from engine.wire import AuditLine
from turbotui.subcommands.audit import _row
from turbotui.text import use_language

DEEDS = (
    AuditLine(at=1.0, action="cleanup", target="worker 7", state="done", result="done"),
    AuditLine(
        at=1.0, action="kill", target="process 1, of root, on no GPU: no such process", state="refused",
        result="refused: process 1 is the system's first or no single process; it is never ended",
        uid=0, user="root", pid=5,
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("language", "parts"),
    [
        ("en", ("cleanup", "done", "kill", "refused", "process 1, of root, on no GPU")),
        ("zh_CN", ("硬清理", "完成", "结束进程", "被拒绝", "root 的进程 1，不在 GPU 上：没有这个进程")),
    ],
)
def test_deeds_and_their_ends_are_words_of_that_language(language: str, parts: tuple[str, ...]) -> None:
    use_language(language)
    try:
        text = "\n".join(" ".join(_row(deed)) for deed in DEEDS)
    finally:
        use_language("en")
    assert all(part in text for part in parts), text
    assert language == "en" or not any(word in text for word in ("cleanup", "kill", "done", "refused"))
