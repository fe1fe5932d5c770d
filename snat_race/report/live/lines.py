"""The lines of a live view: each whole, whatever the size of the terminal."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.text import Text

from snat_race.analysis.rolling_window import DialStatistics
from snat_race.report.terminal import printable
from snat_race.report.wording.client_lines import LATE
from snat_race.report.wording.formats import duration, percent, plural
from snat_race.results.schema import Latency

LOST_STYLE = "bold red"
NARROW_COLUMNS = 56
LABEL_WIDTH = 12
_NARROW_INDENT = 2
_LEVELS, _ASCII_LEVELS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_MOST_ROWS = 16  # of workers, or rules
_PERCENTILES = ("p50", "p95", "p99", "max")

Item = tuple[str, str]  # a text and its style


class DrawingArea(NamedTuple):
    """What there is to draw on."""

    columns: int
    rows: int
    # Whether only ASCII characters can be shown.
    ascii_only: bool

    @property
    def narrow(self) -> bool:
        """Whether lines have to be broken up."""
        return self.columns < NARROW_COLUMNS


def flow(label: str, items: Iterable[Item], area: DrawingArea) -> list[Text]:
    """Set items behind a label, each whole, on as many lines as it takes."""
    indent = " " * (_NARROW_INDENT if area.narrow else LABEL_WIDTH)
    lines = [Text().append(f"{label:<{LABEL_WIDTH}}" if label else indent, "bold")]
    for text, style in items:
        if lines[-1].cell_len + len(text) > area.columns:
            lines.append(Text(indent))
        lines[-1].append(text, style).append("  ")
    return lines


def spark(values: Sequence[float], marked: Sequence[bool], highest: float, area: DrawingArea) -> Text:
    """Return a character for each value, as high as that is; those marked stand out."""
    levels = _ASCII_LEVELS if area.ascii_only else _LEVELS
    line = Text()
    for mark, group in groupby(zip(values, marked, strict=True), key=lambda pair: pair[1]):
        characters = "".join(_level(value, highest, levels) for value, _ in group)
        line.append(characters, LOST_STYLE if mark else "")
    return line


def _level(value: float, highest: float, levels: str) -> str:
    if not value:
        return " "
    return levels[max(0, round(value / highest * len(levels)) - 1)]


def rate_item(statistics: DialStatistics) -> Item:
    """Return how many dials there were a second."""
    return f"{statistics.rate_per_s:>8,.0f} dials/s", ""


def loss_items(statistics: DialStatistics) -> list[Item]:
    """Return how many dials were lost and, if somebody reads it, how far insert_failed rose."""
    lost = f"lost {statistics.lost:>7,} {percent(statistics.loss_rate):>7}"
    items = [(lost, LOST_STYLE if statistics.lost else "")]
    if statistics.late_by_retransmit:
        items.append((f"{LATE} {statistics.late_by_retransmit:,}", LOST_STYLE))
    if statistics.insert_failed is not None:
        counted = f"insert_failed {statistics.insert_failed:>7,}"
        items.append((counted, LOST_STYLE if statistics.insert_failed else ""))
    return items


def latency_lines(latency: Latency | None, area: DrawingArea) -> list[Text]:
    """Return the percentiles that matter most."""
    values = [duration(getattr(latency, name)) if latency else "-" for name in _PERCENTILES]
    items = [(f"{name} {value:>6}", "") for name, value in zip(_PERCENTILES, values, strict=True)]
    return flow("latency", items, area)


def shown_rows(count: int, rows: int) -> int:
    """Return how many of ``count`` fit; if not all, one row is left to say how many more there are."""
    if count <= min(rows, _MOST_ROWS):
        return count
    return min(rows - 1, _MOST_ROWS)


def more_line(count: int, noun: str) -> list[Text]:
    """Say how many are not shown; nothing if all are."""
    return [Text(f"and {plural(count, f'more {noun}')}")] if count else []


def shortened(name: str, width: int) -> str:
    """Return a name of ``width`` characters at most; its end tells more than its beginning."""
    shown = printable(name)
    return shown if len(shown) <= width else f"...{shown[len(shown) - width + 3 :]}"
