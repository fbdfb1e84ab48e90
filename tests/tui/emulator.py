"""As much of a terminal as Textual's output needs: cursor moves, colours, text; cell by cell."""

from __future__ import annotations

import re

from rich.cells import cell_len

TOKEN = re.compile(
    r"\x1b\[([?<>=]?)([0-9;]*)([$ ]?[@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[^\[\]]|[^\x1b]", re.S
)

Look = tuple[frozenset[str], str, str]
PLAIN: Look = (frozenset(), "", "")


class Emulator:
    """The screen after everything that was fed; what it does not know is ignored."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.x = self.y = 0
        self.look = PLAIN
        self.cells: list[list[tuple[str, Look]]] = []
        self.resize(columns, rows)
        self.alternate = False
        self._rest = b""

    def resize(self, columns: int, rows: int) -> None:
        """To an empty screen, whose program is about to draw it anew."""
        self.columns, self.rows = columns, rows
        self.cells = [[(" ", PLAIN)] * columns for _ in range(rows)]

    def feed(self, data: bytes | str) -> None:
        if isinstance(data, bytes):
            data, self._rest = _whole(self._rest + data)
        for match in TOKEN.finditer(data):
            private, parameters, end = match[1], match[2], match[3]
            if end is None:
                self._write(match[0])
            elif end == "m" and not private:
                self._restyle(parameters)
            elif end == "H":
                row, column = [*(int(part or 1) for part in parameters.split(";")), 1][:2]
                self.y, self.x = row - 1, column - 1
            elif private == "?" and "1049" in parameters:
                self.alternate = end == "h"

    def text(self) -> str:
        return "\n".join("".join(cell for cell, _look in row).rstrip() for row in self.cells)

    def _write(self, character: str) -> None:
        if character == "\n":
            self.y += 1
        elif character == "\r":
            self.x = 0
        elif character >= " " and len(character) == 1 and self.y < self.rows:
            width = cell_len(character)
            for place in range(width):
                if self.x + place < self.columns:
                    self.cells[self.y][self.x + place] = ("" if place else character, self.look)
            self.x += width

    def _restyle(self, parameters: str) -> None:
        attributes, fore, back = set(self.look[0]), self.look[1], self.look[2]
        parts = [part or "0" for part in parameters.split(";")]
        while parts:
            part = parts.pop(0)
            number = int(part)
            if number in (38, 48):
                count = 4 if parts[0] == "2" else 2
                colour = ";".join([part, *parts[:count]])
                del parts[:count]
                fore, back = (colour, back) if number == 38 else (fore, colour)
            elif number == 0:
                attributes, fore, back = set(), "", ""
            elif 30 <= number <= 39 or 90 <= number <= 97:
                fore = part
            elif 40 <= number <= 49 or 100 <= number <= 107:
                back = part
            else:
                attributes.add(part)
        self.look = (frozenset(attributes), fore, back)


def _whole(data: bytes) -> tuple[str, bytes]:
    """What of `data` is complete, and the rest."""
    end = len(data)
    escape = data.rfind(b"\x1b", max(0, end - 40))
    if escape >= 0 and not TOKEN.match(data[escape:].decode("utf-8", "replace")):
        end = escape
    for back in range(1, min(4, end) + 1):
        byte = data[end - back]
        if byte >= 0xC0:  # the first of a character of several bytes
            if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4):
                end -= back
            break
        if byte < 0x80:
            break
    return data[:end].decode("utf-8", "replace"), data[end:]
