"""The detectors over a log's facts, one file each. Each sees every fact once and keeps little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.wire import Trend, Verdict
from turbotui.leaklog.scan import LogFact
from turbotui.leaklog.story import Story
from turbotui.leaklog.verdicts.component import Component
from turbotui.leaklog.verdicts.growth import Growth
from turbotui.leaklog.verdicts.oom import Oom
from turbotui.leaklog.verdicts.port import Port
from turbotui.leaklog.verdicts.stayed import Stayed
from turbotui.leaklog.verdicts.uncleared import Uncleared


class Detector(Protocol):
    """Is shown each fact before the story takes it, and asked at the end."""

    def see(self, fact: LogFact, story: Story) -> None: ...
    def verdicts(self, story: Story) -> tuple[Verdict, ...]: ...
    def trends(self) -> tuple[Trend, ...]: ...


ALL: tuple[Callable[[], Detector], ...] = (Stayed, Growth, Component, Uncleared, Oom, Port)
