"""A node's counters, as they rise: lines, or a table that stays in place on a terminal."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from snat_race.report.wording.causes import evidence
from snat_race.report.wording.counter_deltas import LOSSES, conntrack, delta_line
from snat_race.report.wording.formats import stamp
from snat_race.results.conclusions import CauseName
from snat_race.results.counters import TCP_COUNTERS, CounterDelta, total_of
from snat_race.results.schema import WatchResult

_COLUMNS_BEFORE_CPUS, _COLUMN_WIDTH = 48, 9


class LivePrinter:
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

    def __call__(self, lap: CounterDelta) -> None:
        """Show one more period."""
        self._total = total_of([self._total, lap]) if self._total else lap
        room = max(0, (self._console.width - _COLUMNS_BEFORE_CPUS) // _COLUMN_WIDTH)
        self._live.update(live_table(self._title, lap, self._total or lap, room), refresh=True)


def live_table(title: str, lap: CounterDelta, total: CounterDelta, most_cpus: int) -> Table:
    """Return the table: a row for each counter; of the CPUs, those where most was lost so far."""
    cpus = _busiest(total, most_cpus)
    fill = f"{lap.conntrack.count:,} of {lap.conntrack.max:,} entries, " if lap.conntrack else ""
    caption = f"{fill}last: {lap.elapsed_s:.2g} s, all: {total.elapsed_s:.0f} s"
    table = Table(title=f"{title}, {stamp(time.time_ns())}", caption=caption, title_justify="left")
    table.add_column("counter", no_wrap=True)
    for heading in ("last", "all", *(f"CPU {cpu}" for cpu in cpus)):
        table.add_column(heading, justify="right", no_wrap=True, min_width=7)
    sums = dict(conntrack(total))
    for name, rise in conntrack(lap):
        style = "bold red" if name in LOSSES else "bold yellow"
        row = [_cell(sum(rise), style), f"{sum(sums[name]):,}", *(_cell(rise[cpu], style) for cpu in cpus)]
        table.add_row(name, *row)
    for name in TCP_COUNTERS:
        if total.tcp.get(name):
            table.add_row(name, _cell(lap.tcp.get(name, 0), "bold yellow"), f"{total.tcp[name]:,}")
    return table


def _cell(rise: int, style: str) -> str:
    return f"[{style}]+{rise:,}[/]" if rise else "·"


def _busiest(total: CounterDelta, most: int) -> list[int]:
    if not total.conntrack:
        return []
    lost, found = total.conntrack.insert_failed, total.conntrack.found
    ranked = sorted(range(len(lost)), key=lambda cpu: (-lost[cpu], -found[cpu], cpu))
    return sorted(ranked[:most])


def print_line(lap: CounterDelta) -> None:
    """Print a period as a line."""
    print(f"{stamp(time.time_ns())}  {delta_line(lap)}", flush=True)


def closing(result: WatchResult) -> str:
    """Return the sums of the whole watch, and what the kernel facts say of them."""
    if not result.total:
        return "Nothing was watched."
    lines = [f"In all, {result.total.elapsed_s:.1f} s: {delta_line(result.total)}"]
    lines += [
        f"SYNs lost here, at most: {candidate.at_most:,} x {candidate.cause}: {evidence(candidate)}."
        for candidate in result.candidate_causes
    ]
    if any(candidate.cause == CauseName.snat_race for candidate in result.candidate_causes):
        lines.append("Which rules race, and what helps: 'snat-race doctor'.")
    return "\n".join(lines)


def suits_a_live_table() -> bool:
    """Whether stdout is a terminal that can be drawn on."""
    return sys.stdout.isatty() and not Console().is_dumb_terminal
