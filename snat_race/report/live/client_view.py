"""What the live view of a client shows below the usual text: rates, losses, latencies, each worker."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.text import Text

from snat_race.analysis.rolling_window import BIN_S, WINDOW_S, RollingWindow, WorkerHistory
from snat_race.analysis.summary import Samples
from snat_race.report.live.lines import (
    LOST_STYLE,
    DrawingArea,
    flow,
    latency_lines,
    loss_items,
    more_line,
    rate_item,
    shown_rows,
    spark,
)
from snat_race.report.live.panel import LivePanel
from snat_race.report.wording.formats import plural
from snat_race.results.counters import CounterDelta

_BEFORE_SPARK = 27


class ClientView:
    """Shows what was drained lately; text is printed above it. A context manager."""

    def __init__(self, console: Console, remote: str, workers: int) -> None:
        self._title = f"{remote}, {plural(workers, 'worker')}"
        self._workers = workers
        self._window = RollingWindow(workers)
        self._panel = LivePanel(console)
        self.print_above = self._panel.print_above

    def __enter__(self) -> Self:
        self._panel.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._panel.__exit__(kind, value, trace)

    def drained(
        self,
        at_s: float,
        samples: Sequence[Samples],
        counters: Sequence[CounterDelta],
        late_by_retransmit: int,
    ) -> None:
        """Take in what each worker dialled, and what was counted so far; show it, if it is time to."""
        self._window.add(at_s, samples, counters, late_by_retransmit=late_by_retransmit)
        self._panel.draw(self._title, at_s, self._lines)

    def _lines(self, area: DrawingArea) -> list[Text]:
        last = self._window.last
        total = self._window.total
        dials = (f"{total.dials:>8,} dials  ", "")
        lines = [
            *flow(f"last {WINDOW_S:g} s", [rate_item(last), *loss_items(last)], area),
            *latency_lines(last.latency_ns, area),
            *flow("since start", [dials, *loss_items(total)], area),
        ]
        return lines + self._workers_lines(area, area.rows - len(lines) - 1)

    def _workers_lines(self, area: DrawingArea, rows: int) -> list[Text]:
        most = shown_rows(self._workers, rows)
        if most < 1:
            return []
        bins = max(1, area.columns - _BEFORE_SPARK)
        workers = self._window.worst(most)
        highest = max((rate for worker in workers for rate in worker.rates_per_s[-bins:]), default=0.0)
        heading = f"{'worker':>6}{'dials/s':>10}{'lost':>9}  dials/s, {BIN_S:g} s each; bold: lost"
        lines = [Text(heading, "bold")]
        lines += [_worker_line(worker, bins, highest, area) for worker in workers]
        return lines + more_line(self._workers - most, "worker")


def _worker_line(worker: WorkerHistory, bins: int, highest: float, area: DrawingArea) -> Text:
    rate = f"{worker.rates_per_s[-1]:,.0f}" if worker.rates_per_s else "-"
    line = Text(f"{worker.number:>6}{rate:>10}")
    line.append(f"{worker.lost:>9,}", LOST_STYLE if worker.lost else "")
    lost = [count > 0 for count in worker.losses[-bins:]]
    return line.append("  ").append(spark(worker.rates_per_s[-bins:], lost, highest, area))
