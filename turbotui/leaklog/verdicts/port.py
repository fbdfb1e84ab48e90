"""Finds an earlier server that still has the port, and with it its share of the card."""

from __future__ import annotations

from engine.wire import Trend, Verdict
from turbotui.leaklog.remedies import remedy
from turbotui.leaklog.scan import LogFact
from turbotui.leaklog.story import Story
from turbotui.leaklog.words import place

MOST_PORTS = 8


class Port:
    """One for each port; None is one that the line does not name."""

    def __init__(self) -> None:
        self._ports: dict[int | None, tuple[str, int]] = {}

    def see(self, fact: LogFact, story: Story) -> None:
        if fact.event.kind != "port":
            return
        port = fact.event.port
        if port in self._ports:
            first, count = self._ports[port]
            self._ports[port] = (first, count + 1)
        elif len(self._ports) < MOST_PORTS:
            self._ports[port] = (place(fact.line, fact.at), 1)

    def trends(self) -> tuple[Trend, ...]:
        return ()

    def verdicts(self, story: Story) -> tuple[Verdict, ...]:
        named = [port for port in self._ports if port is not None]
        return tuple(
            _verdict(port, first, count, story)
            for port, (first, count) in self._ports.items()
            # A line without its number is told by the one with it.
            if port is not None or not named
        )


def _verdict(port: int | None, first: str, count: int, story: Story) -> Verdict:
    title = "An earlier server still has its port, and what it loaded."
    if port is not None:
        title = f"An earlier server still has port {port}, and what it loaded."
    failed = f"A start failed in line {first}, because the address was in use."
    if count > 1:
        failed = f"{count} starts failed, the first in line {first}, because the address was in use."
    return Verdict(
        kind="orphan",
        leak=True,
        title=title,
        evidence=(
            failed,
            "A log does not tell what that server holds; `turbotui ps` names it and its bytes while it runs.",
        ),
        bytes=None,
        remedy=remedy("port", story.program, command=None if port is None else f"ss -ltnp 'sport = :{port}'"),
    )
