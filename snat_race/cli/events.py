"""What a client's run prints while it runs: the ancestor's text, and with ``--json`` events."""

import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from snat_race.analysis.summary import Failure, Samples, error_name
from snat_race.report.wording.client_lines import (
    client_summary,
    failure_line,
    other_failures_line,
    period_block,
    period_extra,
)
from snat_race.report.wording.formats import ancestor_stamp
from snat_race.report.wording.warnings import sentence
from snat_race.results.counters import CounterDelta
from snat_race.results.model import SCHEMA_VERSION
from snat_race.results.schema import ClientResult, Started, Summary

if TYPE_CHECKING:
    from snat_race.report.live.views import ClientView


class ClientPrinter:
    """Told of each thing as it happens. Text goes to stdout, or to stderr if that has events; if there
    is a ``view``, above that.
    """

    def __init__(self, period_s: int, *, as_json: bool, view: "ClientView | None" = None) -> None:
        self._period_s, self._as_json, self._view = period_s, as_json, view
        self._text = sys.stderr if as_json else sys.stdout

    def started(self, opening: str, head: Started) -> None:
        """Say what is about to be dialled, and what makes that doubtful."""
        self._event("start", head.model_dump(mode="json"))
        self._say(f"{ancestor_stamp(time.time_ns())} {opening}")
        for warning in head.warnings:
            print(f"warning: {sentence(warning)}", file=sys.stderr, flush=True)

    def failure(self, failure: Failure) -> None:
        """Tell one failed dial."""
        self._say(failure_line(failure))
        self._event("failure", failure._asdict() | {"error": error_name(failure.errno)})

    def period(self, summary: Summary, untold: Counter[str], failed: int, total: int) -> None:
        """Tell the end of a period; ``failed`` and ``total`` count since the start."""
        now_ns = time.time_ns()
        if untold:
            self._say(other_failures_line(now_ns, untold))
        self._say(period_block(now_ns, summary, self._period_s, failed, total))
        if extra := period_extra(summary):
            self._say(extra)
        self._event("period", {"summary": summary.model_dump(mode="json")})

    def drained(self, at_s: float, drained: list[Samples], watched: list[CounterDelta]) -> None:
        """Show it, where there is a view."""
        if self._view:
            self._view.drained(at_s, drained, watched)

    def finished(self, result: ClientResult) -> None:
        """Tell the end of the run."""
        self._say(f"{ancestor_stamp(time.time_ns())} {client_summary(result)}")
        self._event("result", result.model_dump(mode="json"))

    def _say(self, text: str) -> None:
        if self._view:
            self._view.say(text)
        else:
            print(text, file=self._text, flush=True)

    def _event(self, event: str, fields: dict[str, Any]) -> None:
        if self._as_json:
            print(json.dumps({"event": event, "schema_version": SCHEMA_VERSION} | fields), flush=True)
