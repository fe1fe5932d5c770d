"""A panel that stays in place below the text, on a terminal of any size."""

import contextlib
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.control import Control
from rich.live import Live
from rich.panel import Panel
from rich.segment import ControlType
from rich.text import Text

from snat_race.report.live.lines import NARROW_COLUMNS, DrawingArea
from snat_race.report.terminal import printable, printable_lines

REFRESH_S = 0.5
_WIDEST = 80
_BORDER_COLUMNS, _BORDER_ROWS = 4, 2
# A smaller terminal gets no border, so that there is space for what is in it.
_FEWEST_BOXED_COLUMNS = NARROW_COLUMNS + _BORDER_COLUMNS
_FEWEST_BOXED_ROWS = 12


Lines = Callable[[DrawingArea], list[Text]]


def drawable(stream: TextIO) -> Console | None:
    """Return a console on ``stream``; None if that is not a terminal, or one that cannot be drawn on."""
    console = Console(file=stream)
    # Not whether rich would colour it: FORCE_COLOR must not put a panel into a file.
    return console if stream.isatty() and console.is_interactive else None


class LivePanel:
    """Stays in place below what is printed. A context manager.

    It appears when it is first drawn, and is gone at the end.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        # Texts that are to stand above the panel, not printed yet.
        self._waiting: list[str] = []
        # No auto-refresh: it would start a thread in a process that forks. Nor is anything redirected:
        # forked workers would inherit that.
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._drawn_s = 0.0
        # Of the lines drawn last, in characters.
        self._widths: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            if self._live.is_started:
                self._forget_what_wrapped()
                # Else stop() shows it once more, all of it, however low the window.
                self._live.update(Text())
                self._live.stop()
            self._print_waiting()

    def print_above(self, text: str) -> None:
        """Print text above the panel: with its next refresh, if it is there."""
        self._waiting.append(printable_lines(text))
        if not self._live.is_started:
            self._print_waiting()

    def draw(self, title: str, elapsed_s: float, lines: Lines) -> None:
        """Draw the panel, if the last time was long enough ago."""
        now_s = time.monotonic()
        if now_s - self._drawn_s < REFRESH_S:
            return
        self._drawn_s = now_s
        # A terminal that is gone needs no picture; what is measured is saved all the same.
        with contextlib.suppress(OSError), self._console:  # which writes all at once, at the end
            self._live.start()
            self._forget_what_wrapped()
            self._print_waiting()
            self._live.update(
                self._picture(f"{printable(title)}, {timedelta(seconds=int(elapsed_s))}", lines)
            )
            self._live.refresh()

    def _picture(self, title: str, lines: Lines) -> Panel | Text:
        columns, rows = self._console.size
        # The last column stays free: in it, terminals differ in when they wrap.
        columns, rows = min(columns - 1, _WIDEST), max(1, rows - 1)
        ascii_only = self._console.options.ascii_only
        if columns >= _FEWEST_BOXED_COLUMNS and rows >= _FEWEST_BOXED_ROWS:
            area = DrawingArea(columns - _BORDER_COLUMNS, rows - _BORDER_ROWS, ascii_only)
            inside = lines(area)[: area.rows]
            self._widths = [columns] * (len(inside) + _BORDER_ROWS)
            return Panel(_joined(inside), title=Text(title), title_align="left", width=columns)
        shown = [Text(title, "bold"), *lines(DrawingArea(columns, rows - 1, ascii_only))][:rows]
        self._widths = [min(columns, line.cell_len) for line in shown]
        return _joined(shown, columns)

    def _print_waiting(self) -> None:
        if self._waiting:
            text = "\n".join(self._waiting)
            self._waiting = []
            # Not wrapped by us: lines can be copied whole.
            self._console.print(Text(text), soft_wrap=True)

    def _forget_what_wrapped(self) -> None:
        """Erase the rows that the panel took beyond its own when the window was made narrower: most
        terminals then wrap what is there, and rich does not count on it.
        """
        columns = self._console.width
        extra = sum(max(0, width - 1) // columns for width in self._widths)
        if extra:
            erased = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)) * extra
            self._console.control(Control(*erased))
        self._widths = []


def _joined(lines: list[Text], columns: int | None = None) -> Text:
    for line in lines if columns else ():
        line.truncate(columns or 0)
    return Text("\n", no_wrap=True, overflow="crop").join(lines)
