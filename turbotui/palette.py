"""Owns how the palette shows its commands: as they are, whatever markup or controls their names hold."""

from __future__ import annotations

from textual.command import DiscoveryHit, Hit, Hits
from textual.content import Content
from textual.system_commands import SystemCommandsProvider

from turbotui.sanitize import clean


class PlainCommands(SystemCommandsProvider):
    """The app's commands; Textual's own takes names of files and settings for markup."""

    async def discover(self) -> Hits:
        for command in sorted(self.app.get_system_commands(self.screen), key=lambda each: each.title):
            if command.discover:
                title = clean(command.title)
                yield DiscoveryHit(Content(title), command.callback, title, _plain(command.help))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command in self.app.get_system_commands(self.screen):
            title = clean(command.title)
            score, places = matcher.fuzzy_search.match(query, title)
            if score > 0:
                shown = Content(title)
                for place in places:
                    if not title[place].isspace():
                        shown = shown.stylize(matcher.match_style, place, place + 1)
                yield Hit(score, shown, command.callback, title, _plain(command.help))


def _plain(text: str) -> str:
    # Not escaped but whole: what is content already is not read as markup.
    return Content(clean(text))  # type: ignore[return-value]  # it goes through `Content.from_markup`
