"""What ``lab`` shows while it runs: how far it is, and what each rule came to so far."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.text import Text

from snat_race.analysis.rolling_window import DialStatistics, VariantTotals
from snat_race.report.live.lines import (
    LABEL_WIDTH,
    DrawingArea,
    flow,
    latency_lines,
    loss_items,
    more_line,
    rate_item,
    shortened,
    shown_rows,
)
from snat_race.report.live.panel import LivePanel
from snat_race.report.terminal import bar
from snat_race.report.wording.formats import percent
from snat_race.results.schema import Summary

_BEFORE_PERCENT = 7
_TOTALS_WIDTH = 39


class LabView:
    """Shows nothing if ``console`` is None. A context manager.

    It draws between rounds only, when nobody dials.
    """

    def __init__(self, console: Console | None, scenario: str) -> None:
        self._title = f"snat_race lab, {scenario}"
        self._began_s = time.monotonic()
        self._panel = LivePanel(console) if console else None
        self._done = 0.0
        self._measuring = ""
        self._totals: dict[str, VariantTotals] = {}
        self._last: tuple[str, DialStatistics] | None = None

    def __enter__(self) -> Self:
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._panel:
            self._panel.__exit__(kind, value, trace)

    def round_starts(self, done: float, name: str) -> None:
        """Show what is measured next; ``done``: what share of all is over, 0 to 1."""
        self._done = done
        self._measuring = name
        self._draw()

    def round_ended(self, name: str, summary: Summary) -> None:
        """Take in what a round came to."""
        self._totals.setdefault(name, VariantTotals()).add(summary)
        self._last = name, DialStatistics.of(summary)

    def _draw(self) -> None:
        if self._panel:
            self._panel.draw(self._title, time.monotonic() - self._began_s, self._lines)

    def _lines(self, area: DrawingArea) -> list[Text]:
        lines = [Text("setting up")]
        if self._measuring:
            lines = [_labelled("measuring", self._measuring, area)]
        columns = area.columns - _BEFORE_PERCENT
        drawn = bar(self._done, columns, ascii_only=area.ascii_only).ljust(columns)
        lines.append(Text(f"{drawn} {self._done * 100:>3.0f} %", "green"))
        if self._last:
            name, last = self._last
            lines.append(_labelled("last round", name, area))
            lines += flow("", [rate_item(last), *loss_items(last)], area)
            lines += latency_lines(last.latency_ns, area)
        return lines + self._totals_lines(area, area.rows - len(lines) - 1)

    def _totals_lines(self, area: DrawingArea, rows: int) -> list[Text]:
        """Return a line for each rule, two where it is narrow: those that lost most, if not all fit."""
        names = list(self._totals)
        most = shown_rows(len(names), rows // 2 if area.narrow else rows)
        if most < 1:
            return []
        ranked = sorted(names, key=lambda name: (name != self._measuring, -self._totals[name].lost))
        width = 0 if area.narrow else area.columns - _TOTALS_WIDTH
        heading = f"{'rule':<{width}}" if width else ""
        heading += f"{'dials':>9}{'lost':>7}{'insert_failed':>14}{'collided':>9}"
        lines = [Text(heading, "bold")]
        for name in names:
            if name not in ranked[:most]:
                continue
            style = "bold" if name == self._measuring else ""
            if area.narrow:
                lines.append(Text(shortened(name, area.columns), style))
            before = f"{shortened(name, width - 1):<{width}}" if width else ""
            lines.append(Text(before, style).append(_totals_row(self._totals[name])))
        return lines + more_line(len(names) - most, "rule")


def _labelled(label: str, name: str, area: DrawingArea) -> Text:
    return Text(f"{label:<{LABEL_WIDTH}}{shortened(name, area.columns - LABEL_WIDTH)}")


def _totals_row(totals: VariantTotals) -> str:
    collided = "-" if totals.collision_rate is None else percent(totals.collision_rate)
    return f"{totals.dials:>9,}{totals.lost:>7,}{totals.insert_failed:>14,}{collided:>9}"
