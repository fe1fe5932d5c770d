"""What a run prints while it runs: text for people, and with ``--json`` events, one a line."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from snat_race.analysis.summary import Failure, Samples, error_name
from snat_race.cli.terminal import print_document, say, warn
from snat_race.report.wording.client_lines import (
    failure_line,
    opening_line,
    other_failures_line,
    period_block,
    period_extra,
)
from snat_race.report.wording.counter_deltas import period_line
from snat_race.report.wording.formats import ancestor_stamp
from snat_race.report.wording.traces import NOTHING_SEEN, loss_line, sent_again_line
from snat_race.report.wording.traces import period_line as traced_period_line
from snat_race.report.wording.warnings import sentence
from snat_race.results.counters import CounterDelta
from snat_race.results.model import SCHEMA_VERSION
from snat_race.results.schema import ClientResult, Started, WatchResult
from snat_race.results.trace import Loss, SentAgain, TracedPeriod, TraceResult

if TYPE_CHECKING:
    from pydantic import BaseModel

    from snat_race.report.live.client_view import ClientView
    from snat_race.runs.client import PeriodEnd


def print_event(event: str, fields: "Mapping[str, Any] | BaseModel") -> None:
    """Print one event as a line of JSON, in ASCII, so that no locale can spoil it."""
    values = fields if isinstance(fields, Mapping) else fields.model_dump(mode="json")
    print(json.dumps({"event": event, "schema_version": SCHEMA_VERSION} | dict(values)), flush=True)


class ClientPrinter:
    """Told of each thing as it happens. Text goes to stdout, or to stderr if that has events; if there
    is a ``view``, above that. ``quiet``: only the summary at the end is text.
    """

    def __init__(self, period_s: int, *, as_json: bool, quiet: bool, view: "ClientView | None") -> None:
        self._period_s = period_s
        self._as_json = as_json
        self._quiet = quiet
        self._view = view
        self._text = sys.stderr if as_json else sys.stdout

    def started(self, head: Started, remote: str) -> None:
        """Say what is about to be dialled, then each warning about it."""
        self._event("start", head)
        self._say(opening_line(time.time_ns(), remote, head.spec))
        if self._quiet:
            return  # the summary at the end has them
        for warning in head.warnings:
            warn(sentence(warning))

    def failure(self, failure: Failure) -> None:
        """Tell one failed dial."""
        self._say(failure_line(failure))
        self._event("failure", failure._asdict() | {"error": error_name(failure.errno)})

    def period(self, end: "PeriodEnd") -> None:
        """Tell the end of a period."""
        now_ns, summary = time.time_ns(), end.summary
        if end.other_failures:
            self._say(other_failures_line(now_ns, end.other_failures))
        failed, recorded = end.failed_so_far, end.recorded_so_far
        self._say(period_block(now_ns, summary, self._period_s, failed, recorded))
        if extra := period_extra(summary):
            self._say(extra)
        self._event("period", {"summary": summary.model_dump(mode="json")})

    def drained(
        self,
        at_s: float,
        samples: "Sequence[Samples]",
        counters: "Sequence[CounterDelta]",
        late_by_retransmit: int,
    ) -> None:
        """Show it, where there is a view."""
        if self._view:
            self._view.drained(at_s, samples, counters, late_by_retransmit)

    def finished(self, result: ClientResult) -> None:
        """Tell the end of the run: what ``report`` says of its result."""
        from snat_race.report.builders.client import document

        print(f"{ancestor_stamp(time.time_ns())} Summary of the whole run:", file=self._text)
        print_document(document(result), self._text)
        self._event("result", result)

    def _say(self, text: str) -> None:
        if self._quiet:
            return
        if self._view:
            self._view.print_above(text)
        else:
            say(text, self._text)

    def _event(self, event: str, fields: "Mapping[str, Any] | BaseModel") -> None:
        if self._as_json:
            print_event(event, fields)


class WatchPrinter:
    """Told of each period; shows it as an event, in a table in place, or as a line. A context manager."""

    def __init__(self, title: str, *, as_json: bool, quiet: bool) -> None:
        from snat_race.report.live.watch_table import WatchTable, suits_a_live_table

        self._as_json = as_json
        self._quiet = quiet
        drawn = suits_a_live_table() and not as_json and not quiet
        self._table: WatchTable | None = WatchTable(title) if drawn else None

    def __enter__(self) -> Self:
        if self._table:
            self._table.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:  # noqa: ANN401, PYI036
        if self._table:
            self._table.__exit__(*raised)

    def started(self, head: Started) -> None:
        """Tell the start, and each warning about what can be seen there."""
        if self._as_json:
            print_event("start", head)
        for warning in head.warnings:
            warn(sentence(warning))

    def __call__(self, period: CounterDelta) -> None:
        """Tell a period."""
        if self._as_json:
            print_event("period", period)
        elif self._table:
            self._table(period)
        elif not self._quiet:
            say(period_line(time.time_ns(), period), sys.stdout)

    def finished(self, result: WatchResult) -> None:
        """Tell the end: the sums, and what they mean."""
        from snat_race.report.builders.watch import document

        if self._as_json:
            print_event("result", result)
        else:
            print_document(document(result), sys.stdout, quiet=self._quiet)


class TracePrinter:
    """Told of each loss as it is proven; prints it as a line, or as an event."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet

    def started(self, head: Started) -> None:
        """Tell the start, and each warning about what can be seen there."""
        if self._as_json:
            print_event("start", head)
        for warning in head.warnings:
            warn(sentence(warning))

    def loss(self, loss: Loss) -> None:
        """Tell a SYN that lost the race."""
        self._tell("loss", loss, loss_line(loss))

    def sent_again(self, sent: SentAgain) -> None:
        """Tell that a lost SYN was sent again, and left."""
        self._tell("sent_again", sent, sent_again_line(sent))

    def period(self, period: TracedPeriod) -> None:
        """Tell an interval: as text, only what no line has said yet."""
        self._tell("period", period, traced_period_line(period))

    def nothing_seen(self) -> None:
        """Tell that nothing comes in, and where to look."""
        warn(NOTHING_SEEN)

    def finished(self, result: TraceResult) -> None:
        """Tell the end: what ``report`` says of its result."""
        from snat_race.report.builders.trace import document

        if self._as_json:
            print_event("result", result)
        else:
            print_document(document(result), sys.stdout, quiet=self._quiet)

    def _tell(self, event: str, fields: "BaseModel", line: str) -> None:
        if self._as_json:
            print_event(event, fields)
        elif line and not self._quiet:
            say(line, sys.stdout)
