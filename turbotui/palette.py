"""Owns what the palette offers, and how it is shown: as it is, whatever markup or controls names hold."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast, get_args

from textual.app import SystemCommand
from textual.command import DiscoveryHit, Hit, Hits
from textual.content import Content
from textual.system_commands import SystemCommandsProvider

from turbotui.actions import ACTIONS
from turbotui.sanitize import clean
from turbotui.symbols import Choice
from turbotui.text import LANGUAGES, t
from turbotui.widgets.bottom import TABS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from textual.screen import Screen

    from turbotui.actions import Action
    from turbotui.app import TurboApp


def commands_of(app: TurboApp, screen: Screen[Any]) -> Iterator[SystemCommand]:
    """Every action, the themes and the languages."""
    # Over a dialog there are no actions: they would open another one above it.
    actions = ACTIONS if screen is app.dashboard else ()
    for action in actions:
        if action.in_palette:
            title = _title_of(app, action)
            yield SystemCommand(title, t(f"help.{action.id}"), partial(app.dashboard.action_act, action.id))
    for place, panel in enumerate(TABS if screen is app.dashboard else ()):
        title = f"{t('palette.panel', name=t(f'place.{panel}'))}  ({app.key_of(f'panel_{place + 1}')})"
        yield SystemCommand(title, t("help.panel"), partial(app.dashboard.choose, panel))
    if (left_out := app.left_out) and screen is app.dashboard:
        yield SystemCommand(t("settings.title"), left_out[0], app.commands.left_out)
    if app.link.state.waiting and screen is app.dashboard:
        yield SystemCommand(t("emptying.all"), t("emptying.all_help"), app.commands.cancel_waiting)
    for name in app.themes.names():
        title = t("palette.theme", name=name)
        use = partial(_for_now, app, partial(app.use_theme, name), f'theme = "{name}"')
        yield SystemCommand(title, t("palette.theme_help"), use)
    for choice in get_args(Choice):
        title = t("palette.symbols", name=choice)
        use = partial(_for_now, app, partial(app.draw_with, choice), f'symbols = "{choice}"')
        yield SystemCommand(title, t("palette.symbols_help"), use)
    for language in LANGUAGES:
        title = t("palette.language", name=language)
        use = partial(_for_now, app, partial(app.speak, language), f'language = "{language}"')
        yield SystemCommand(title, t("palette.language_help"), use)


def _for_now(app: TurboApp, use: Callable[[], None], line: str) -> None:
    """Use it until the console ends, and say which line of the settings makes it stay."""
    use()
    app.say(t("palette.for_good", line=line))


def _title_of(app: TurboApp, action: Action) -> str:
    return f"{t(f'action.{action.id}')}  ({app.key_of(action.id)})"


class PlainCommands(SystemCommandsProvider):
    """The app's commands, what one does all day first; Textual's own takes names of files and settings
    for markup.
    """

    async def discover(self) -> Hits:
        for command in self.app.get_system_commands(self.screen):
            if command.discover:
                title = clean(command.title)
                yield DiscoveryHit(Content(title), command.callback, title, _plain(command.help))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        # By its name in the settings too, in whatever language one types.
        ids = {
            _title_of(cast("TurboApp", self.app), action): action.id
            for action in ACTIONS
            if action.in_palette
        }
        found = False
        for command in self.app.get_system_commands(self.screen):
            title = clean(command.title)
            score, places = matcher.fuzzy_search.match(query, title)
            if not score and command.title in ids:
                score, places = matcher.fuzzy_search.match(query, ids[command.title].replace("_", " "))[0], ()
            if score > 0:
                found = True
                shown = Content(title)
                for place in places:
                    if not title[place].isspace():
                        shown = shown.stylize(matcher.match_style, place, place + 1)
                yield Hit(score, shown, command.callback, title, _plain(command.help))
        if not found:
            # In place of Textual's own sentence, which is English.
            nothing = t("choices.none", text=clean(query, limit=60))
            yield Hit(0.0, Content(nothing), _do_nothing, nothing)


def _do_nothing() -> None:
    """There is nothing to choose."""


def _plain(text: str) -> str:
    # Not escaped but whole: what is content already is not read as markup.
    return Content(clean(text))  # type: ignore[return-value]  # it goes through `Content.from_markup`
