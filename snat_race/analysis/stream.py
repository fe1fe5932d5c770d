"""A run from its stream of events: whole, or as far as it came before it was killed. Pure."""

from collections.abc import Sequence
from typing import Any

from snat_race.analysis.candidate_causes import exhausted_over, of_node
from snat_race.analysis.diagnosis import DEFAULT_NAT, diagnose
from snat_race.analysis.merge import merged_summary
from snat_race.results.counters import CounterDelta, kernel_counters, total_of
from snat_race.results.schema import ClientResult, Started, Summary, WatchResult

Event = dict[str, Any]

_FROM_START = ("run_id", "tool", "started_at", "environment", "spec", "warnings")
"""What a result takes over from the first event of its stream."""


def so_far(events: Sequence[Event]) -> dict[str, Any] | ClientResult | WatchResult | None:
    """Return the result in a stream, as a document; else one made of its periods; None if it has none.

    Raises:
        pydantic.ValidationError: an event is not as we write it.

    """
    kinds = [event.get("event") for event in events]
    periods = [event for event in events if event.get("event") == "period"]
    if "result" in kinds:
        return _whole(events[kinds.index("result")], periods)
    if "start" not in kinds or not periods:
        return None
    started = Started.model_validate(events[kinds.index("start")])
    if started.kind == "client":
        return _client(started, [Summary.model_validate(period.get("summary")) for period in periods])
    return _watch(started, [CounterDelta.model_validate(period) for period in periods])


def _whole(result: Event, periods: list[Event]) -> dict[str, Any]:
    """Return the result that a stream ends with; a watch does not repeat the periods that it printed."""
    document = {name: value for name, value in result.items() if name != "event"}
    if document.get("kind") == "watch" and not document.get("periods"):
        document["periods"] = periods
    return document


def _client(started: Started, periods: list[Summary]) -> ClientResult:
    deltas = [delta for period in periods for delta in period.counters]
    nat = started.nat or DEFAULT_NAT
    summary = merged_summary(periods)
    kernel = kernel_counters(deltas, exhausted=exhausted_over(deltas, nat))
    return ClientResult(
        **_head(started, summary.elapsed_s),
        cut_off=True,
        summary=summary,
        periods=periods,
        kernel=kernel,
        nat=nat,
        diagnosis=diagnose(summary, kernel, nat=nat),
    )


def _watch(started: Started, periods: list[CounterDelta]) -> WatchResult:
    nat = started.nat or DEFAULT_NAT
    exhausted = exhausted_over(periods, nat)
    kernel = kernel_counters(periods, exhausted=exhausted)
    return WatchResult(
        **_head(started, sum(period.elapsed_s for period in periods)),
        cut_off=True,
        counters_from=started.counters_from or "",
        periods=periods,
        total=total_of(periods),
        nat=nat,
        exhausted=exhausted,
        candidate_causes=of_node(kernel, nat),
    )


def _head(started: Started, elapsed_s: float) -> dict[str, Any]:
    head = {name: getattr(started, name) for name in _FROM_START}
    return head | {"elapsed_s": round(elapsed_s, 3)}
