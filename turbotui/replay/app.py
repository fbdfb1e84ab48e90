"""Owns the console over a recording: the moment in its header, the keys of a player, and no acting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding

from turbotui.app import TurboApp
from turbotui.moment import dated
from turbotui.past.seen import Seen
from turbotui.replay.client import NO_CHECK, REFUSAL
from turbotui.replay.clock import ReplayClock
from turbotui.text import t
from turbotui.text.spoken import tr, word
from turbotui.widgets.key_line import KeyHint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.binding import BindingType

    from turbotui.actions import Action
    from turbotui.state import Look

PLAYER_LINE = (
    ("player_still", "space", "pause"),
    ("player_back", "←", "past_earlier"),
    ("player_on", "→", "past_later"),
    ("player_event", "<", "past_event"),
    ("player_next", ">", "next_event"),
)
"""What is chosen in the key line, its key, and whose label it has."""
PLAYER_ACTIONS = {
    "player_still": "hold_still",
    "player_back": "jump(-1)",
    "player_on": "jump(1)",
    "player_event": "jump_event(-1)",
    "player_next": "jump_event(1)",
}
ASKS_AN_ENGINE = ("sheet", "audit", "findings", "leaks", "found", "fetch")
"""What changes nothing, and still has nobody to ask."""
JUMP_WATCHED_S = 5.0
"""Left and right jump as far as so many seconds of watching."""


class ReplayApp(TurboApp):
    """The console at the moment that `clock` shows; `events` are the moments that `<` and `>` go to."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "hold_still", show=False),
        Binding("left", "jump(-1)", show=False),
        Binding("right", "jump(1)", show=False),
        Binding("less_than_sign,＜", "jump_event(-1)", show=False),
        Binding("greater_than_sign,＞", "jump_event(1)", show=False),
    ]

    def __init__(
        self, *arguments: Any, clock: ReplayClock, events: tuple[float, ...], **options: Any
    ) -> None:
        self.clock = clock
        self._events = events
        super().__init__(*arguments, wall=clock.telling_now, **options)
        self.link.seen = Seen(rewinds=True)

    @property
    def banner(self) -> str:
        moment = dated(self.clock.now(), now=self.clock.real())
        sign = "‖" if self.clock.paused else "■" if self.clock.over else f"x{self.clock.speed:g}"
        return f"{word('REPLAY')} {moment} {sign}"

    def on_mount(self) -> None:
        far = JUMP_WATCHED_S * self.clock.speed
        self.call_after_refresh(
            self.say,
            tr(
                "a replay: space stands still, left and right {far:g} s, < and > what happened, q leaves",
                far=far,
            ),
        )

    def why_not(self, action: Action, look: Look) -> str | None:
        return None if action.tier == "look" else tr(REFUSAL)

    def report_stretches(self) -> tuple[tuple[float, float], ...]:
        return ((self.clock.since, self.clock.until),)

    def why_no_check(self) -> str:
        return tr(NO_CHECK)

    def open_moment(self, at: float) -> None:
        """Go on with the replay from the moment that the history's cursor is at."""
        self.dashboard.go_to_now()
        self._go(at)

    def key_line(self, hints: Iterable[KeyHint]) -> tuple[KeyHint, ...]:
        """The player's keys, then those that look: what is refused anyway has no place."""
        # On the history the arrows are its cursor's.
        moves = self.dashboard.past_at is None and self.dashboard.focused_place() != "history"
        player = PLAYER_LINE if moves else PLAYER_LINE[:1]
        labels = {"pause": "go_on"} if self.clock.paused else {}
        # Beside the player's own pause, that of the picture would only puzzle.
        left_out = (*ASKS_AN_ENGINE, "pause")
        return (
            *(
                KeyHint(
                    action=action,
                    key=key,
                    label=t(f"key.{labels.get(label, label)}"),
                    enabled=True,
                )
                for action, key, label in player
            ),
            *(hint for hint in hints if hint.enabled and hint.action not in left_out),
        )

    def act(self, name: str, job_id: int | None = None) -> None:
        if name in PLAYER_ACTIONS:
            self.call_later(self.run_action, PLAYER_ACTIONS[name])
            return
        if name == "help":
            from turbotui.replay.help import ReplayHelp

            self.push_screen(ReplayHelp(self.own_keys))
            return
        super().act(name, job_id)

    def action_leave(self) -> None:
        self.exit()

    def action_hold_still(self) -> None:
        self.clock.pause(not self.clock.paused)
        self.dashboard.tick()

    def action_jump(self, direction: int) -> None:
        self._go(self.clock.now() + direction * JUMP_WATCHED_S * self.clock.speed)

    def action_jump_event(self, direction: int) -> None:
        """To the event before this moment, or after it."""
        now = self.clock.now()
        if direction > 0:
            found = next((at for at in self._events if at > now + 0.5), None)
        else:
            # What was just seen is not what is before it.
            found = next((at for at in reversed(self._events) if at < now - 2 * self.clock.speed), None)
        if found is None:
            self.say(tr("nothing more happened in this direction"), "wait")
        else:
            self._go(found)

    def _go(self, moment: float) -> None:
        self.clock.jump(moment)
        self.dashboard.tick()
