"""The language of the commands: the option `--lang` of each, their help and click's complaints in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from engine.errors import EngineError
from turbotui.format import cell_width, clip, pad, wrapped
from turbotui.text import ask_language, language
from turbotui.text.spoken import spoken, tr, word

LANG = "--lang"
WIDEST = 80
"""Cells of a help text; lines that are longer are hard to read."""
FIRST_CELLS = 30
"""What the names of options take at most beside their texts, as click has it."""


def find_language(arguments: Sequence[str]) -> None:
    """Take the language from the option where it is given, else from the settings, else from the locale.

    It is looked for before click parses anything, since help and complaints are said in it too.

    Raises:
        InvalidRequest: it is no language of ours.
    """
    asked = None
    for place, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == LANG and place + 1 < len(arguments):
            asked = arguments[place + 1]
        elif argument.startswith(f"{LANG}="):
            asked = argument.partition("=")[2]
    ask_language(asked, otherwise=_setting)


def _setting() -> str:
    """[console] language. Settings that cannot be read are complained about by who needs them."""
    from engine.config import load_config
    from engine.paths import find_paths

    try:
        return load_config(find_paths().config_file).console.language
    except EngineError:
        return "auto"


def in_every_language(command: click.Command) -> None:
    """Give `command`, and every command below it, the option and a help that speaks."""
    command.params.append(
        click.Option([LANG], expose_value=False, metavar="en|zh", help="The language of what is printed.")
    )
    command.context_class = _Context
    if isinstance(command, click.Group):
        for below in command.commands.values():
            in_every_language(below)


def complaint(error: click.ClickException) -> None:
    """Say on stderr what is wrong with the command line, and how it is written."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        click.echo(context.get_usage(), err=True)
        if context.command.get_help_option(context) is not None:
            option = context.help_option_names[0]
            path = context.command_path
            click.echo(tr("Try '{path} {option}' for help.", path=path, option=option), err=True)
        click.echo("", err=True)
    click.echo(tr("Error: {message}", message=spoken(error.format_message())), err=True)


class _Formatter(click.HelpFormatter):
    """click's help in the person's language, measured in cells: a Chinese character takes two."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, prefix=f"{word('Usage')}: " if prefix is None else prefix)

    def write_heading(self, heading: str) -> None:
        super().write_heading(word(heading))

    def write_text(self, text: str) -> None:
        told = help_text(text)
        for place, paragraph in enumerate(told.split("\n\n")):
            if place:
                self.write("\n")
            for line in _lines(paragraph, max(self.width - self.current_indent, 11)):
                self.write(f"{'':>{self.current_indent}}{line}\n")

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = FIRST_CELLS, col_spacing: int = 2
    ) -> None:
        rows = list(rows)
        first = min(max((cell_width(name) for name, _text in rows), default=0), col_max) + col_spacing
        room = max(self.width - first - self.current_indent - 2, 10)
        for name, text in rows:
            self.write(f"{'':>{self.current_indent}}{name}")
            lines = wrapped(option_text(text), room)
            gap = first - cell_width(name)
            if gap < col_spacing:
                self.write("\n")
                gap = first + self.current_indent
            self.write(f"{'':>{gap}}{lines[0] if lines else ''}\n")
            for line in lines[1:]:
                self.write(f"{'':>{first + self.current_indent}}{line}\n")


class _Context(click.Context):
    formatter_class = _Formatter


def help_text(text: str) -> str:
    """A command's help, paragraph by paragraph."""
    return "\n\n".join(_paragraph(one) for one in text.split("\n\n"))


def _paragraph(text: str) -> str:
    kept, _, rest = text.partition("\b\n")
    if rest:
        return "\b\n" + "\n".join(_kept_line(line) for line in rest.split("\n"))
    return tr(" ".join(kept.split()))


def _kept_line(line: str) -> str:
    """A line that is not wrapped: its text after its first column is a sentence of its own."""
    head = line[: len(line) - len(line.lstrip())]
    name, _, text = line.strip().partition("  ")
    if not text:
        return head + tr(name)
    return f"{head}{pad(name, 5)}{tr(text.strip())}"


def option_text(text: str) -> str:
    """An option's help, with what click adds of its default and its range."""
    body, bracket, extra = text.partition("  [")
    told = tr(body)
    if bracket:
        extra = "; ".join(
            f"{word('default')}: {one[9:]}" if one.startswith("default: ") else word(one)
            for one in extra.rstrip("]").split("; ")
        )
        told += f"  [{extra}]"
    return told


def short_help(command: click.Command, limit: int) -> str:
    """What a list of commands says of one: its first sentence."""
    if language() == "en":
        return command.get_short_help_str(limit)
    first = (command.help or "").partition("\n\n")[0]
    return clip(help_text(first).partition("。")[0], limit)


def _lines(paragraph: str, cells: int) -> list[str]:
    if paragraph.startswith("\b\n"):
        return paragraph[2:].split("\n")
    return wrapped(paragraph, min(cells, WIDEST))
