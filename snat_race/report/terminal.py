"""What a text is written for: its width, its characters, its colours."""

import os
import re
from dataclasses import dataclass
from typing import TextIO

from snat_race.report.document import Tone

PIPED_WIDTH = 120
NARROWEST = 20
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_BLOCKS = "█▏▉"
_COLOURS = {Tone.good: "32", Tone.bad: "1;31", Tone.unsure: "33"}
# A result, and a rule's comment, may come from anywhere. A terminal obeys C0 and C1; others turn the
# direction of what follows, end a line, do not show, or are half a character, which no file can hold.
_OBEYED = (*range(32), *range(127, 160))
_TURNING = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_UNSHOWN = (0x200B, 0x200C, 0x200D, *range(0x2060, 0x2065), 0xFEFF, *range(0xE0000, 0xE0080))
_HALVES = range(0xD800, 0xE000)
_HARMLESS = dict.fromkeys((*_OBEYED, *_TURNING, *_UNSHOWN, *_HALVES), "?") | {0x2028: " ", 0x2029: " "}
_HARMLESS |= {ord("\t"): "\t", ord("\n"): "\n", ord("\r"): " "}
_IN_ONE_LINE = _HARMLESS | {ord("\t"): " ", ord("\n"): " "}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """What a text renderer has to keep to. The defaults suit a file."""

    # Columns of characters; 20 or more.
    width: int = PIPED_WIDTH
    # Whether ANSI colours are understood, and wanted.
    colour: bool = False
    # Whether only ASCII characters can be shown, as in the C locale.
    ascii_only: bool = False


FILE = Terminal()


def terminal_of(stream: TextIO) -> Terminal:
    """Return what ``stream`` can show.

    Its width is ``$COLUMNS``, else the terminal's, else :data:`PIPED_WIDTH`. There are colours on a
    terminal only, and none with ``$NO_COLOR`` (https://no-color.org) or on a dumb one.
    """
    on_terminal = stream.isatty()
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Terminal(
        width=max(NARROWEST, _columns(stream, on_terminal=on_terminal)),
        colour=on_terminal and wanted,
        ascii_only=not _shows_blocks(stream),
    )


def _columns(stream: TextIO, *, on_terminal: bool) -> int:
    given = os.environ.get("COLUMNS", "")
    if re.fullmatch(r"[0-9]{1,5}", given) and int(given):
        return int(given)
    if not on_terminal:
        return PIPED_WIDTH
    try:
        # A terminal that knows no size of its own says 0.
        return os.get_terminal_size(stream.fileno()).columns or PIPED_WIDTH
    except OSError:
        return PIPED_WIDTH


def _shows_blocks(stream: TextIO) -> bool:
    try:
        _BLOCKS.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def coloured(text: str, tone: Tone | None, terminal: Terminal) -> str:
    """Return text in the colour of a tone, where there are colours."""
    if tone is None or not terminal.colour or not text:
        return text
    return f"\x1b[{_COLOURS[tone]}m{text}\x1b[0m"


def printable(text: str) -> str:
    """Return text without what a terminal would obey, or what would end the line."""
    return text.translate(_IN_ONE_LINE)


def printable_lines(text: str) -> str:
    """Return text without what a terminal would obey; its lines and its tabs stay."""
    return text.translate(_HARMLESS)


def bar(share: float, width: int, *, ascii_only: bool) -> str:
    """Return a bar of a share of ``width`` characters, to an eighth of one; more than nothing shows."""
    if ascii_only:
        return "#" * max(round(share * width), 1 if share > 0 else 0)
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
