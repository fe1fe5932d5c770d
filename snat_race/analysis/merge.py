"""Several results of one experiment, made one: clients of several containers or hosts, and watches of
their nodes. Histograms are added as histograms, counts as counts, periods by wall-clock time.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from snat_race.analysis.candidate_causes import exhausted_over
from snat_race.analysis.diagnosis import DEFAULT_NAT, diagnose
from snat_race.analysis.histogram import Histogram
from snat_race.analysis.intervals import wilson
from snat_race.analysis.summary import from_histogram, lost_again
from snat_race.results.counters import CounterDelta, KernelCounters, conntrack_of, summed, total_of
from snat_race.results.nat import Nat
from snat_race.results.schema import ClientResult, MergedResult, Source, Summary, WatchResult

_ADDED = ("attempted", "connected", "failed", "late", "overruns", "cut_short")
_LATENCIES = {
    "histogram": "latency_ns",
    "histogram_all": "latency_all_ns",
    "histogram_from_slot": "latency_from_slot_ns",
}
_SLACK_S = 2.0  # a watch reads at its own times


def merged(clients: Sequence[ClientResult], watches: Sequence[WatchResult]) -> MergedResult:
    """Merge the results of one experiment; at least one client.

    One namespace that several have read counts once, by whoever read it longest: its node is known by
    ``boot_id``, itself by its inode.
    """
    first = min(clients, key=lambda each: each.started_at)
    every: list[ClientResult | WatchResult] = [*clients, *watches]
    summary = merged_summary([each.summary for each in clients])
    laps = _laps(clients, watches)
    nats = [each.nat for each in watches or clients if each.nat]
    nat = min(nats, key=lambda each: each.ports, default=DEFAULT_NAT)
    kernel = _kernel(clients, watches, laps, nat)
    return MergedResult(
        run_id="+".join(sorted(each.run_id[:8] for each in every)),
        tool=first.tool,
        started_at=first.started_at,
        elapsed_s=summary.elapsed_s,
        environment=first.environment,
        spec=first.spec,
        sources=[source_of(each) for each in every],
        summary=summary,
        periods=_periods(clients, laps),
        kernel=kernel,
        nat=nat,
        diagnosis=diagnose(
            summary.attempted, summary.errors, kernel, nat=nat, resent=lost_again(summary.syn_resent)
        ),
    )


def source_of(result: ClientResult | WatchResult) -> Source:
    """Return what identifies a result among those that were merged."""
    summary = result.summary if isinstance(result, ClientResult) else None
    lost = sum(each.losses for each in result.suspects) if isinstance(result, WatchResult) else None
    return Source(
        kind=result.kind,
        run_id=result.run_id,
        boot_id=str(result.environment.get("boot_id", "")),
        started_at=result.started_at,
        elapsed_s=result.elapsed_s,
        spec=result.spec,
        attempted=summary.attempted if summary else None,
        failed=summary.failed if summary else lost,
        watched=not isinstance(result, ClientResult) or result.kernel.source is not None,
        cut_off=result.cut_off,
    )


def merged_summary(parts: Sequence[Summary]) -> Summary:
    """Add summaries up that ran side by side; percentiles only where every part has a histogram.

    ``rate_per_s`` is of all dials over the whole time, from the first to begin to the last to end.
    """
    counts = {name: sum(getattr(each, name) for each in parts) for name in _ADDED}
    errors: Counter[str] = Counter()
    resent: Counter[str] = Counter()
    for each in parts:
        errors.update(each.errors)
        resent.update(each.syn_resent)
    elapsed_s, recorded = _elapsed_s(parts), counts["attempted"] - counts["overruns"]
    return Summary(
        **counts,
        **_latencies(parts),
        began_at=min((each.began_at for each in parts if each.began_at), default=None),
        elapsed_s=round(elapsed_s, 6),
        rate_per_s=round(counts["attempted"] / elapsed_s, 3) if elapsed_s else 0.0,
        errors=dict(errors.most_common()),
        loss_rate=counts["failed"] / recorded if recorded else 0.0,
        loss_rate_ci95=wilson(counts["failed"], recorded),
        syn_resent=dict(sorted(resent.items())),
    )


def _latencies(parts: Sequence[Summary]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for encoded, latency in _LATENCIES.items():
        texts = [getattr(each, encoded) for each in parts if each.attempted > each.overruns]
        if texts and all(texts):
            histogram = Histogram.of(texts)
            found |= {encoded: histogram.encode(), latency: from_histogram(histogram)}
    return found


def _elapsed_s(parts: Sequence[Summary]) -> float:
    spans = [(seconds(each.began_at), each.elapsed_s) for each in parts if each.began_at]
    if len(spans) < len(parts):
        return max(each.elapsed_s for each in parts)
    return max(begin + length for begin, length in spans) - min(begin for begin, _ in spans)


def seconds(instant: str) -> float:
    """Return an instant of a result as seconds since the epoch."""
    return datetime.fromisoformat(instant).replace(tzinfo=UTC).timestamp()


def _laps(clients: Sequence[ClientResult], watches: Sequence[WatchResult]) -> list[CounterDelta]:
    """Return what was counted while the clients ran, each namespace once: by whoever read it longest."""
    began_s = min(seconds(each.started_at) for each in clients) - _SLACK_S
    ended_s = max(seconds(each.started_at) + each.elapsed_s for each in clients) + _SLACK_S
    readers: dict[tuple[str, int, str], list[list[CounterDelta]]] = {}
    every: list[ClientResult | WatchResult] = [*watches, *clients]
    for result in every:
        own: dict[tuple[str, int, str], list[CounterDelta]] = {}
        for lap in _read_by(result):
            node = str(result.environment.get("boot_id", ""))
            own.setdefault((node, lap.inode, "" if lap.inode else lap.netns), []).append(lap)
        for key, laps in own.items():
            readers.setdefault(key, []).append(laps)
    longest = [max(each, key=lambda laps: sum(lap.elapsed_s for lap in laps)) for each in readers.values()]
    return [
        lap
        for laps in longest
        for lap in laps
        if began_s <= seconds(lap.began_at) + lap.elapsed_s and seconds(lap.began_at) <= ended_s
    ]


def _read_by(result: ClientResult | WatchResult) -> Iterable[CounterDelta]:
    if isinstance(result, WatchResult):
        return result.periods or ([result.total] if result.total else [])
    return [lap for each in result.periods for lap in each.watched] or result.summary.watched


def _kernel(
    clients: Sequence[ClientResult], watches: Sequence[WatchResult], laps: Sequence[CounterDelta], nat: Nat
) -> KernelCounters:
    """Add up what was counted. The readers' own count of exhausted searches is of shorter laps."""
    known = [each.exhausted for each in watches] + [each.kernel.exhausted or 0 for each in clients]
    return KernelCounters(
        source=conntrack_of(laps),
        exhausted=min(exhausted_over(laps, nat), sum(known)),
        source_tcp=summed(lap.tcp for lap in laps),
        destination={},
        containers=summed(each.kernel.containers for each in clients),
    )


def _periods(clients: Sequence[ClientResult], laps: Sequence[CounterDelta]) -> list[Summary]:
    """Return the periods of all, by wall-clock time: as long as the longest of theirs.

    A period belongs to the bin that holds its middle; a lap of a watch that reaches beyond the first
    or the last, to that. Percentiles of periods cannot be added up.
    """
    every = [each for client in clients for each in client.periods if each.began_at]
    if not every:
        return []
    origin_s = min(seconds(each.began_at or "") for each in every)
    length_s = max(each.elapsed_s for each in every)

    def at(began_at: str, elapsed_s: float) -> int:
        return int((seconds(began_at) + elapsed_s / 2 - origin_s) // length_s)

    bins: dict[int, list[Summary]] = {}
    for each in every:
        bins.setdefault(at(each.began_at or "", each.elapsed_s), []).append(each)
    watched: dict[int, list[CounterDelta]] = {}
    for lap in laps:
        number = max(min(bins), min(max(bins), at(lap.began_at, lap.elapsed_s)))
        watched.setdefault(number, []).append(lap)
    return [
        merged_summary(parts).model_copy(
            update={"watched": [total] if (total := total_of(watched.get(number, []))) else []}
        )
        for number, parts in sorted(bins.items())
    ]
