"""One log in every disguise that terminals, shells and locales give it tells the same."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from turbotui.leaklog.read import read_log

DATA = Path(__file__).parents[2] / "data" / "foreign"
BAR = " 50%|#####     | 5/9 [00:12<00:10,  1.21s/it, loss=0.1]"
DISGUISES: dict[str, Callable[[str], bytes]] = {
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "utf-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "a hole before it": lambda text: b"\0" * 5000 + text.encode(),
    "colours inside words": lambda text: text.replace("Memory", "\x1b[1mMem\x1b[0mory").encode(),
    "a bar before each line": lambda text: text.replace("\n", f"\n{BAR}").encode(),
    "a bar before each line on its own": lambda text: text.replace("\n", f"\n{BAR}\r").encode(),
    "a megabyte after each line": lambda text: text.replace("\n", f" {'x' * 2**20}\n").encode(),
    "no end": lambda text: text.rstrip().encode(),
    "decimal commas": lambda text: re.sub(r"(\d)\.(\d+)(?=/| G| M|%)", r"\1,\2", text).encode(),
    "megabytes with thousands": lambda text: re.sub(
        r"([\d.]+)/48\.0 GB", lambda found: f"{float(found[1]) * 1024:,.1f}/49,152.0 MB", text
    ).encode(),
    "wide figures": lambda text: re.sub(
        r"[\d.]+(?=/|%| GB)", lambda found: found[0].translate(WIDE), text
    ).encode(),
}
WIDE = {ord(figure): ord(figure) + 0xFEE0 for figure in "0123456789."}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_log_in_any_disguise_tells_the_same(tmp_path: Path, disguise: str) -> None:
    path, plain = tmp_path / "a.log", DATA / "leaks-webui-en.log"
    path.write_bytes(DISGUISES[disguise](plain.read_text()))
    began = time.process_time()
    found, wanted = read_log(path), read_log(plain)
    assert time.process_time() - began < 2.0
    assert [(fact.at, fact.event.kind) for fact in found.facts] == [
        (fact.at, fact.event.kind) for fact in wanted.facts
    ]
    assert [(one.kind, one.title, one.evidence) for one in found.verdicts] == [
        (one.kind, one.title, one.evidence) for one in wanted.verdicts
    ]
