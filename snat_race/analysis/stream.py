"""A run from its stream of events, as ``--json`` prints them: whole, or as far as it came before it was
killed. Pure.
"""

from collections.abc import Sequence
from typing import Any

from snat_race.analysis.candidate_causes import exhausted_over, of_node
from snat_race.analysis.diagnosis import DEFAULT_NAT, diagnose
from snat_race.analysis.merge import merged_summary
from snat_race.analysis.summary import lost_again
from snat_race.results.counters import CounterDelta, KernelCounters, conntrack_of, summed, total_of
from snat_race.results.schema import ClientResult, Started, Summary, WatchResult


def so_far(events: Sequence[dict[str, Any]]) -> dict[str, Any] | ClientResult | WatchResult | None:
    """Return the result in a stream, as a document; else one made of its periods; None if it has none.

    Raises:
        pydantic.ValidationError: an event is not as we write it.

    """
    kinds = [each.get("event") for each in events]
    periods = [each for each in events if each.get("event") == "period"]
    if "result" in kinds:
        found = dict(events[kinds.index("result")])
        del found["event"]
        if found.get("kind") == "watch" and not found.get("periods"):  # told already, so not kept
            found["periods"] = periods
        return found
    if "start" not in kinds or not periods:
        return None
    started = Started.model_validate(events[kinds.index("start")])
    if started.kind == "client":
        return _client(started, [Summary.model_validate(each.get("summary")) for each in periods])
    return _watch(started, [CounterDelta.model_validate(each) for each in periods])


def _client(started: Started, periods: list[Summary]) -> ClientResult:
    summary, nat = merged_summary(periods), started.nat or DEFAULT_NAT
    watched = [lap for each in periods for lap in each.watched]
    kernel = KernelCounters(
        source=conntrack_of(watched),
        exhausted=exhausted_over(watched, nat),
        source_tcp=summed(each.tcp for each in watched),
        destination={},
        containers={},
    )
    resent = lost_again(summary.syn_resent)
    return ClientResult(
        **_head(started, summary.elapsed_s),
        cut_off=True,
        summary=summary,
        periods=periods,
        kernel=kernel,
        nat=nat,
        diagnosis=diagnose(summary.attempted, summary.errors, kernel, nat=nat, resent=resent),
    )


def _watch(started: Started, periods: list[CounterDelta]) -> WatchResult:
    total, nat = total_of(periods), started.nat or DEFAULT_NAT
    exhausted = exhausted_over(periods, nat)
    kernel = KernelCounters(
        source=conntrack_of(periods),
        exhausted=exhausted,
        source_tcp=total.tcp if total else {},
        destination={},
        containers={},
    )
    return WatchResult(
        **_head(started, sum(each.elapsed_s for each in periods)),
        cut_off=True,
        counters_from=started.counters_from or "",
        periods=periods,
        total=total,
        nat=nat,
        exhausted=exhausted,
        suspects=of_node(kernel, nat),
    )


def _head(started: Started, elapsed_s: float) -> dict[str, Any]:
    names = ("run_id", "tool", "started_at", "environment", "spec")
    return {name: getattr(started, name) for name in names} | {"elapsed_s": round(elapsed_s, 3)}
