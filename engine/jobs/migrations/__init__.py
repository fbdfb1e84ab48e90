"""The steps that bring an older jobs.sqlite up to this build's schema, in order.

`schema.sql` beside this folder is the newest schema whole, for a new file. A change of schema
adds `NNNN_what.sql` here, where NNNN is the version that it leads to, changes `schema.sql` to
match, and keeps the fixture of the version before under tests/data.
"""

from __future__ import annotations

import re
from importlib.resources import files

STEP_NAME = re.compile(r"(\d{4})_\w+\.sql")


def load_schema() -> str:
    """The newest schema as SQL."""
    return files("engine.jobs").joinpath("schema.sql").read_text("utf-8")


def load_steps() -> dict[int, str]:
    """Target version to the SQL that leads there from the version before."""
    return steps_in(__name__)


def steps_in(package: str) -> dict[int, str]:
    """The steps that lie in `package`, for this file or another one that is kept like it."""
    steps: dict[int, str] = {}
    for entry in files(package).iterdir():
        if match := STEP_NAME.fullmatch(entry.name):
            steps[int(match[1])] = entry.read_text("utf-8")
    return steps
