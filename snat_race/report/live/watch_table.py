"""A node's counters as they rise, in a table that stays in place on a terminal."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from snat_race.report.terminal import printable
from snat_race.report.wording.counter_deltas import LOSSES, conntrack
from snat_race.report.wording.formats import stamp
from snat_race.results.counters import TCP_COUNTERS, CounterDelta, total_of

_COLUMNS_BEFORE_CPUS, _COLUMN_WIDTH = 48, 9
_NARROWEST_WITH_LINES = 60
_LOSS_STYLE, _OTHER_STYLE = "bold red", "bold yellow"


class WatchTable:
    """Shows the last period and the sums since the start, in place; changed cells stand out.

    A context manager on a terminal.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._total: CounterDelta | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, period: CounterDelta) -> None:
        """Show one more period."""
        total = total_of([self._total, period]) if self._total else None
        self._total = total or period
        width = self._console.width
        most_cpus = max(0, (width - _COLUMNS_BEFORE_CPUS) // _COLUMN_WIDTH)
        table = live_table(
            self._title, period, self._total, most_cpus, with_lines=width >= _NARROWEST_WITH_LINES
        )
        self._live.update(table, refresh=True)


def live_table(
    title: str, period: CounterDelta, total: CounterDelta, most_cpus: int, *, with_lines: bool = True
) -> Table:
    """Return the table: a row for each counter; of the CPUs, those where most was lost so far."""
    cpus = _busiest(total, most_cpus)
    fill = ""
    if period.conntrack:
        fill = f"{period.conntrack.count:,} of {period.conntrack.max:,} entries, "
    caption = f"{fill}last: {period.elapsed_s:.2g} s, all: {total.elapsed_s:,.0f} s"
    # A Text, because a namespace's name may hold what rich takes for its markup.
    heading = Text(f"{printable(title)}, {stamp(time.time_ns())}")
    table = Table(title=heading, caption=caption, title_justify="left")
    if not with_lines:
        table.box = None
        table.pad_edge = False
    table.add_column("counter", no_wrap=True)
    for column in ("last", "all", *(f"CPU {cpu}" for cpu in cpus)):
        table.add_column(column, justify="right", no_wrap=True, min_width=7)
    totals = dict(conntrack(total))
    for name, per_cpu in conntrack(period):
        style = _LOSS_STYLE if name in LOSSES else _OTHER_STYLE
        of_cpus = (_cell(per_cpu[cpu], style) for cpu in cpus)
        table.add_row(name, _cell(sum(per_cpu), style), f"{sum(totals[name]):,}", *of_cpus)
    for name in TCP_COUNTERS:
        if total.tcp.get(name):
            table.add_row(name, _cell(period.tcp.get(name, 0), _OTHER_STYLE), f"{total.tcp[name]:,}")
    return table


def _cell(count: int, style: str) -> str:
    return f"[{style}]+{count:,}[/]" if count else "·"


def _busiest(total: CounterDelta, most: int) -> list[int]:
    if not total.conntrack:
        return []
    lost = total.conntrack.insert_failed
    taken = total.conntrack.found
    ranked = sorted(range(len(lost)), key=lambda cpu: (-lost[cpu], -taken[cpu], cpu))
    return sorted(ranked[:most])


def suits_a_live_table() -> bool:
    """Whether stdout is a terminal that can be drawn on."""
    return sys.stdout.isatty() and not Console().is_dumb_terminal
