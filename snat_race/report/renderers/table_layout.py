"""A table of a given width in which nothing is cut off.

Three steps, until it fits::

    natural widths          rule                     lost  evidence                          late
                            masquerade fully-random     0  insert_failed +12, drop +12          7

    text wraps in its cell  rule          lost  evidence            late
                            masquerade       0  insert_failed +12,     7
                            fully-random        drop +12

    columns go below        rule          lost
    their row, the least    masquerade       0
    important first         fully-random
                                evidence: insert_failed +12, drop +12  late: 7

Only the key column always stays. If even that is too wide, its words are broken.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace

from snat_race.report.document import Column, Importance, Table, Tone
from snat_race.report.terminal import Terminal, bar, coloured, printable

_GAP = 2
_INDENT = 4
_NARROWEST_TEXT, _LONGEST_WORD = 16, 24
_SHORTEST_BAR, _LONGEST_BAR = 10, 60
_NOTHING = ("", "-")


def table_lines(table: Table, terminal: Terminal) -> Iterator[str]:
    """Yield the lines of a table: its headings, then each row."""
    rows = [[printable(cell) for cell in row] for row in table.rows]
    columns = [replace(column, heading=printable(column.heading)) for column in table.columns]
    layout = _Layout(columns, rows, terminal.width)
    headings = [column.heading for column in columns]
    if any(headings[index] for index in layout.side_by_side):
        yield from layout.lines(headings)
    bar_width = min(_LONGEST_BAR, terminal.width - layout.width - _GAP)
    for number, row in enumerate(rows):
        tone = table.tones[number] if table.tones else None
        lines = list(layout.lines(row, tone, terminal))
        if table.bars and bar_width >= _SHORTEST_BAR:
            drawn = bar(table.bars[number], bar_width, ascii_only=terminal.ascii_only)
            lines[0] = f"{lines[0]:<{layout.width}}{' ' * _GAP}{drawn}".rstrip()
        yield from lines
        yield from _below(layout, row, terminal.width)


class _Layout:
    """Which columns stand side by side, how wide each is, and which go below their rows."""

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> None:
        self.columns = columns
        cells = [[column.heading for column in columns], *rows]
        # Of each column: what it takes, and the least it takes with its text wrapped.
        self._natural = [max(len(row[index]) for row in cells) for index in range(len(columns))]
        self._least = [
            self._least_of(column, [row[index] for row in cells], self._natural[index])
            for index, column in enumerate(columns)
        ]
        self.side_by_side = [
            index for index, column in enumerate(columns) if column.importance is not Importance.beneath
        ]
        while len(self.side_by_side) > 1 and self._total(self._least) > width:
            self.side_by_side.remove(self._least_important())
        self.widths = self._fitted(width)

    @staticmethod
    def _least_of(column: Column, cells: Sequence[str], natural: int) -> int:
        if column.number:
            return natural
        longest_word = max((len(word) for cell in cells for word in cell.split()), default=0)
        # A path, say, is broken rather than that it moves all else below.
        return max(min(longest_word, _LONGEST_WORD), min(natural, _NARROWEST_TEXT))

    def _least_important(self) -> int:
        """Return the column that goes next: of several alike, the last."""
        movable = [
            index for index in self.side_by_side if self.columns[index].importance is not Importance.key
        ] or self.side_by_side[1:]
        return min(reversed(movable), key=lambda index: self.columns[index].importance)

    def _total(self, widths: Sequence[int]) -> int:
        return sum(widths[index] for index in self.side_by_side) + _GAP * (len(self.side_by_side) - 1)

    def _fitted(self, width: int) -> list[int]:
        """Return the widths: natural ones, of which the widest text gives way until all fit."""
        widths = list(self._natural)
        while self._total(widths) > width:
            wrappable = [index for index in self.side_by_side if widths[index] > self._least[index]]
            if not wrappable:
                # A single column whose longest word is too long.
                widths[self.side_by_side[0]] = width
                break
            widest = max(wrappable, key=lambda index: widths[index])
            widths[widest] -= 1
        return widths

    @property
    def width(self) -> int:
        """The columns that stand side by side take that many characters."""
        return self._total(self.widths)

    def lines(
        self, row: Sequence[str], tone: Tone | None = None, terminal: Terminal | None = None
    ) -> Iterator[str]:
        """Yield the lines of a row; each cell is wrapped on its own."""
        wrapped = {
            index: textwrap.wrap(row[index], max(1, self.widths[index]), break_on_hyphens=False) or [""]
            for index in self.side_by_side
        }
        for number in range(max(len(lines) for lines in wrapped.values())):
            cells = []
            for index in self.side_by_side:
                text = wrapped[index][number] if number < len(wrapped[index]) else ""
                column, width = self.columns[index], self.widths[index]
                padded = text.rjust(width) if column.number else text.ljust(width)
                if column.toned and terminal:
                    padded = padded.replace(text, coloured(text, tone, terminal), 1)
                cells.append(padded)
            yield (" " * _GAP).join(cells).rstrip()


def _below(layout: _Layout, row: Sequence[str], width: int) -> Iterator[str]:
    """Yield what did not fit beside the others, as ``heading: value``; nothing of an empty cell."""
    items = [
        f"{column.heading}: {row[index]}" if column.heading else row[index]
        for index, column in enumerate(layout.columns)
        if index not in layout.side_by_side and row[index] not in _NOTHING
    ]
    line = ""
    for item in items:
        joined = f"{line}{' ' * _GAP}{item}" if line else item
        if len(joined) + _INDENT > width and line:
            yield from _indented(line, width)
            line = item
        else:
            line = joined
    if line:
        yield from _indented(line, width)


def _indented(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=" " * _INDENT,
        subsequent_indent=" " * (_INDENT + _GAP),
        break_on_hyphens=False,
    )
