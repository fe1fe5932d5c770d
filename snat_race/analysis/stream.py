"""A run that was cut off, from the events of its stream: as far as it came. Pure.

Periods are taken in one by one and added up, so memory does not grow with the length of the stream.
"""

from typing import Any

from snat_race.analysis.candidate_causes import exhausted_at_most, exhausted_over, of_node
from snat_race.analysis.diagnosis import DEFAULT_NAT, diagnose
from snat_race.analysis.kept_periods import dials_added_up, periods_of_client, periods_of_watch
from snat_race.analysis.merge import merged_summary
from snat_race.results.counters import CounterDelta, kernel_counters, total_of
from snat_race.results.model import Model
from snat_race.results.schema import ClientResult, Started, Summary, WatchResult

Event = dict[str, Any]

_FROM_START = ("run_id", "tool", "started_at", "environment", "spec", "warnings")
"""What a result takes over from the first event of its stream."""
_OF_EVENTS = ("event", "schema_version")
"""What a period has only as an event."""


class _ClientPeriod(Model):
    summary: Summary


# model_validate_json() would check how it is called, for each period anew: a tenth of its time.
_read_client = _ClientPeriod.__pydantic_validator__.validate_json
_read_watch = CounterDelta.__pydantic_validator__.validate_json


class ClientSoFar:
    """A client whose end is missing."""

    def __init__(self, started: Started) -> None:
        self._started = started
        self._nat = (started.nat or DEFAULT_NAT).on(str(started.environment.get("kernel", "")))
        self._periods = periods_of_client()
        self._exhausted = 0

    def add(self, event: Event) -> None:
        """Add the event of the next period.

        Raises:
            pydantic.ValidationError: it is not as we write it.

        """
        self._add(Summary.model_validate(event.get("summary")))

    def add_json(self, fields: bytes) -> None:
        """Add the next period, of the JSON of what its event says of it; errors as for :meth:`add`."""
        self._add(_read_client(fields).summary)

    def _add(self, period: Summary) -> None:
        self._exhausted += exhausted_over(period.counters, self._nat)
        self._periods.add(period)

    def result(self) -> ClientResult | None:
        """Return what the periods add up to; None if there is none."""
        periods = self._periods.all()
        if not periods:
            return None
        total = dials_added_up(periods)
        summary = merged_summary(periods, elapsed_s=total.elapsed_s)
        kernel = kernel_counters(total.counters, exhausted=self._exhausted)
        return ClientResult(
            **_head(self._started, summary.elapsed_s),
            cut_off=True,
            summary=summary,
            periods=periods,
            kernel=kernel,
            nat=self._nat,
            diagnosis=diagnose(summary, kernel, nat=self._nat),
        )


class WatchSoFar:
    """A watch whose end is missing."""

    def __init__(self, started: Started) -> None:
        self._started = started
        self._nat = (started.nat or DEFAULT_NAT).on(str(started.environment.get("kernel", "")))
        self._periods = WatchPeriods()
        self._exhausted = 0

    def add(self, event: Event) -> None:
        """Add the event of the next period.

        Raises:
            pydantic.ValidationError: it is not as we write it.

        """
        self._add(self._periods.add(event))

    def add_json(self, fields: bytes) -> None:
        """Add the next period, of the JSON of what its event says of it; errors as for :meth:`add`."""
        self._add(self._periods.add_json(fields))

    def _add(self, period: CounterDelta) -> None:
        if period.conntrack:
            self._exhausted += exhausted_at_most(period.conntrack, self._nat)

    def result(self) -> WatchResult | None:
        """Return what the periods add up to; None if there is none."""
        periods = self._periods.all()
        if not periods:
            return None
        kernel = kernel_counters(periods, exhausted=self._exhausted)
        return WatchResult(
            **_head(self._started, sum(period.elapsed_s for period in periods)),
            cut_off=True,
            counters_from=self._started.counters_from or "",
            periods=periods,
            total=total_of(periods),
            nat=self._nat,
            exhausted=self._exhausted,
            candidate_causes=of_node(kernel, self._nat),
        )


class WatchPeriods:
    """The periods in the stream of a watch; older versions did not repeat them in its result."""

    def __init__(self) -> None:
        self._periods = periods_of_watch()

    def add(self, event: Event) -> CounterDelta:
        """Add the event of the next period, and return it as a period.

        Raises:
            pydantic.ValidationError: it is not as we write it.

        """
        for name in _OF_EVENTS:
            event.pop(name, None)
        return self._added(CounterDelta.model_validate(event))

    def add_json(self, fields: bytes) -> CounterDelta:
        """Add the next period, of the JSON of what its event says of it; otherwise as :meth:`add`."""
        return self._added(_read_watch(fields))

    def _added(self, period: CounterDelta) -> CounterDelta:
        self._periods.add(period)
        return period

    def all(self) -> list[CounterDelta]:
        """Return those that are kept."""
        return self._periods.all()


def so_far(started: Started) -> ClientSoFar | WatchSoFar:
    """Return what takes in the periods of a run that began like this."""
    return ClientSoFar(started) if started.kind == "client" else WatchSoFar(started)


def _head(started: Started, elapsed_s: float) -> dict[str, Any]:
    head = {name: getattr(started, name) for name in _FROM_START}
    return head | {"elapsed_s": round(elapsed_s, 3)}
