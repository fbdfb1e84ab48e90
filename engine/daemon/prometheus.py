"""Writes the Prometheus text format, version 0.0.4.

Source: prometheus.io, "Exposition formats", text format details.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

Value = int | float | None
Kind = Literal["gauge", "counter"]


class Exposition:
    """A page of metrics, each with its help, its type and its samples together."""

    def __init__(self) -> None:
        self._heads: dict[str, tuple[Kind, str]] = {}
        self._samples: dict[str, dict[tuple[tuple[str, str], ...], float | int]] = {}

    def describe(self, name: str, kind: Kind, help: str) -> None:
        """Name a metric; one that gets no sample is not written.

        Raises:
            ValueError: it is no name of a metric, it is named already, or a counter lacks `_total`.
        """
        if not _NAME.fullmatch(name) or name in self._heads:
            raise ValueError(f"{name!r} is no name of a metric, or is there already")
        if (kind == "counter") != name.endswith("_total"):
            raise ValueError(f"{name} is a {kind}: counters, and they alone, end in _total")
        self._heads[name] = (kind, help)
        self._samples[name] = {}

    def add(self, name: str, value: Value, labels: Mapping[str, object] | None = None) -> None:
        """One sample; what is not known (None) is left out, as is an empty label, which means the same.

        Samples with the same labels are added up: a page with both would be refused whole.

        Raises:
            KeyError: nobody has described it.
            ValueError: a label has no right name.
        """
        if value is None:
            return
        wrong = [label for label in labels or {} if not _LABEL.fullmatch(label) or label.startswith("__")]
        if wrong:
            raise ValueError(f"{name} has labels of no right name: {', '.join(wrong)}")
        key = tuple((label, str(text)) for label, text in (labels or {}).items() if text not in (None, ""))
        samples = self._samples[name]
        samples[key] = samples.get(key, 0) + value

    def text(self) -> str:
        """The page; it ends with a line feed."""
        lines = []
        for name, (kind, help) in self._heads.items():
            if not self._samples[name]:
                continue
            lines += [f"# HELP {name} {_escape_help(help)}", f"# TYPE {name} {kind}"]
            for labels, value in self._samples[name].items():
                inner = ",".join(f'{label}="{escape_label(text)}"' for label, text in labels)
                lines.append(f"{name}{{{inner}}} {_number(value)}" if inner else f"{name} {_number(value)}")
        return "".join(f"{line}\n" for line in lines)


def escape_label(text: str) -> str:
    """A label's value as it stands between its quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float | int) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "+Inf" if value > 0 else "-Inf"
    return repr(value + 0)  # a bool as the number that it is
