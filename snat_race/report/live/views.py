"""What a run does now, on a terminal: of ``client --live``, and of ``lab``."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.text import Text

from snat_race.analysis.rolling_window import BIN_S, WINDOW_S, DialStatistics, RollingWindow, VariantTotals
from snat_race.analysis.summary import Samples
from snat_race.report.live.panel import InPlace, Item, Room, bar, flow, spark
from snat_race.report.wording.formats import duration, percent
from snat_race.results.counters import CounterDelta
from snat_race.results.schema import Latency, Summary

_MOST_ROWS = 16  # of workers, or rules
_BEFORE_SPARK, _BEFORE_PERCENT = 27, 7
_TOTALS_WIDTH = 39
_LOST = "bold red"


class ClientView:
    """Shows what was drained lately; text is printed above it. A context manager."""

    def __init__(self, console: Console, remote: str, workers: int) -> None:
        self._title = f"{remote}, {workers} worker{'s' if workers > 1 else ''}"
        self._workers, self._recent = workers, RollingWindow(workers)
        self._place = InPlace(console)
        self.say = self._place.say

    def __enter__(self) -> Self:
        self._place.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.__exit__(kind, value, trace)

    def drained(self, at_s: float, drained: Sequence[Samples], watched: Sequence[CounterDelta]) -> None:
        """Take in what each worker dialled, and what was counted so far; show it, if it is time to."""
        self._recent.add(at_s, drained, watched)
        self._place.draw(self._title, at_s, self._lines)

    def _lines(self, room: Room) -> list[Text]:
        last, total = self._recent.last, self._recent.total
        lines = [
            *flow(f"last {WINDOW_S:g} s", [_rate(last), *_losses(last)], room),
            *_latency(last.latency_ns, room),
            *flow("since start", [(f"{total.dials:>8,} dials  ", ""), *_losses(total)], room),
        ]
        return lines + self._workers_lines(room, room.rows - len(lines) - 1)

    def _workers_lines(self, room: Room, rows: int) -> list[Text]:
        most = _fitting(self._workers, rows)
        if most < 1:
            return []
        bins = max(1, room.columns - _BEFORE_SPARK)
        shown = self._recent.worst(most)
        highest = max((rate for each in shown for rate in each.rates_per_s[-bins:]), default=0.0)
        heading = f"{'worker':>6}{'dials/s':>10}{'lost':>9}  dials/s, {BIN_S:g} s each; bold: lost"
        lines = [Text(heading, "bold")]
        for each in shown:
            rate = f"{each.rates_per_s[-1]:,.0f}" if each.rates_per_s else "-"
            line = Text(f"{each.number:>6}{rate:>10}").append(
                f"{each.lost:>9,}", _LOST if each.lost else ""
            )
            lost = [count > 0 for count in each.losses[-bins:]]
            lines.append(line.append("  ").append(spark(each.rates_per_s[-bins:], lost, highest, room)))
        return lines + _rest(self._workers - most, "worker")


class LabView:
    """Shows how far the lab is and what each rule came to so far; nothing if ``console`` is None.

    A context manager. It draws between rounds only, when nobody dials.
    """

    def __init__(self, console: Console | None, scenario: str) -> None:
        self._title, self._began_s = f"snat_race lab, {scenario}", time.monotonic()
        self._place = InPlace(console) if console else None
        self._share, self._now = 0.0, ""
        self._totals: dict[str, VariantTotals] = {}
        self._last: tuple[str, DialStatistics] | None = None

    def __enter__(self) -> Self:
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._place:
            self._place.__exit__(kind, value, trace)

    def round_starts(self, done: float, name: str) -> None:
        """Show what is measured next; ``done``, 0 to 1, of all is over."""
        self._share, self._now = done, name
        self._draw()

    def round_ended(self, name: str, summary: Summary) -> None:
        """Take in what a round came to."""
        self._totals.setdefault(name, VariantTotals()).add(summary)
        self._last = name, DialStatistics.of(summary)

    def _draw(self) -> None:
        if self._place:
            self._place.draw(self._title, time.monotonic() - self._began_s, self._lines)

    def _lines(self, room: Room) -> list[Text]:
        doing = f"measuring   {_shortened(self._now, room.columns - 12)}" if self._now else "setting up"
        columns = room.columns - _BEFORE_PERCENT
        lines = [
            Text(doing),
            Text(f"{bar(self._share, columns, room)} {self._share * 100:>3.0f} %", "green"),
        ]
        if self._last:
            name, last = self._last
            lines.append(Text(f"last round  {_shortened(name, room.columns - 12)}"))
            lines += [*flow("", [_rate(last), *_losses(last)], room), *_latency(last.latency_ns, room)]
        return lines + self._totals_lines(room, room.rows - len(lines) - 1)

    def _totals_lines(self, room: Room, rows: int) -> list[Text]:
        names = list(self._totals)
        most = _fitting(len(names), rows // 2 if room.narrow else rows)
        if most < 1:
            return []
        worst = sorted(names, key=lambda name: (name != self._now, -self._totals[name].lost))[:most]
        width = 0 if room.narrow else room.columns - _TOTALS_WIDTH
        heading = f"{'rule':<{width}}" if width else ""
        heading += f"{'dials':>9}{'lost':>7}{'insert_failed':>14}{'collided':>9}"
        lines = [Text(heading, "bold")]
        for name in names:
            if name in worst:
                style = "bold" if name == self._now else ""
                if room.narrow:
                    lines.append(Text(_shortened(name, room.columns), style))
                lines.append(Text(f"{_shortened(name, width - 1):<{width}}" if width else "", style))
                lines[-1].append(_totals_row(self._totals[name]))
        return lines + _rest(len(names) - most, "rule")


def _rate(statistics: DialStatistics) -> Item:
    return f"{statistics.rate_per_s:>8,.0f} dials/s", ""


def _losses(statistics: DialStatistics) -> list[Item]:
    lost = f"lost {statistics.lost:>7,} {percent(statistics.loss_rate):>7}"
    items = [(lost, _LOST if statistics.lost else "")]
    if statistics.insert_failed is not None:
        rose = f"insert_failed {statistics.insert_failed:>7,}"
        items.append((rose, _LOST if statistics.insert_failed else ""))
    return items


def _latency(latency: Latency | None, room: Room) -> list[Text]:
    names = ("p50", "p95", "p99", "max")
    values = [duration(getattr(latency, name)) if latency else "-" for name in names]
    items = [(f"{name} {value:>6}", "") for name, value in zip(names, values, strict=True)]
    return flow("latency", items, room)


def _totals_row(totals: VariantTotals) -> str:
    collided = "-" if totals.collision_rate is None else percent(totals.collision_rate)
    return f"{totals.dials:>9,}{totals.lost:>7,}{totals.insert_failed:>14,}{collided:>9}"


def _fitting(count: int, rows: int) -> int:
    """Return how many of ``count`` can be shown; if not all, a row says how many there are more."""
    return count if count <= min(rows, _MOST_ROWS) else min(rows - 1, _MOST_ROWS)


def _rest(count: int, what: str) -> list[Text]:
    return [Text(f"and {count:,} more {what}{'s' if count > 1 else ''}")] if count else []


def _shortened(name: str, width: int) -> str:
    return name if len(name) <= width else f"...{name[len(name) - width + 3 :]}"
