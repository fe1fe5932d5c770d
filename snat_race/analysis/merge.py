"""Several results of one experiment, made one: clients of several containers or hosts, and watches of
their nodes. Histograms are added as histograms, counts as counts, periods by wall-clock time.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from snat_race.analysis.candidate_causes import exhausted_over
from snat_race.analysis.clock_skew import SLACK_S, Counted, clock_ahead_s
from snat_race.analysis.diagnosis import DEFAULT_NAT, diagnose
from snat_race.analysis.histogram import Histogram
from snat_race.analysis.loss_rates import loss_counts
from snat_race.analysis.summary import from_histogram, rates
from snat_race.results.conclusions import MeasurementWarning
from snat_race.results.counters import CounterDelta, KernelCounters, kernel_counters, summed, total_of
from snat_race.results.nat import Nat
from snat_race.results.schema import ClientResult, MergedPart, MergedResult, Summary, WatchResult

_ADDED = ("attempted", "connected", "failed", "late", "overruns", "cut_short")
_LATENCIES = {
    "histogram": "latency_ns",
    "histogram_all": "latency_all_ns",
    "histogram_from_slot": "latency_from_slot_ns",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reader:
    """Whoever read counters during the experiment, and what was counted."""

    boot_id: str  # of the host; empty: not known
    deltas: Sequence[CounterDelta]  # period by period, of one namespace or several


def merged(clients: Sequence[ClientResult], watches: Sequence[WatchResult]) -> MergedResult:
    """Merge the results of one experiment; at least one client.

    One namespace that several have read counts once, by whoever read it longest: its node is known by
    ``boot_id``, itself by its inode.
    """
    first = min(clients, key=lambda client: client.started_at)
    run_ids = [client.run_id for client in clients] + [watch.run_id for watch in watches]
    summary = merged_summary([client.summary for client in clients])
    ahead_s = [_ahead_s(clients, watch) for watch in watches]
    deltas = _deltas(clients, watches, ahead_s)
    nat = _nat(watches or clients)
    kernel = _kernel(clients, watches, deltas, nat)
    return MergedResult(
        run_id="+".join(sorted(run_id[:8] for run_id in run_ids)),
        tool=first.tool,
        started_at=first.started_at,
        elapsed_s=summary.elapsed_s,
        environment=first.environment,
        spec=first.spec,
        merged_from=[*map(part_of_client, clients), *map(part_of_watch, watches, ahead_s)],
        summary=summary,
        periods=_periods(clients, deltas),
        kernel=kernel,
        nat=nat,
        diagnosis=diagnose(summary, kernel, nat=nat),
        warnings=_each_once(
            [
                *(warning for client in clients for warning in client.warnings),
                *(warning for watch in watches for warning in watch.warnings),
            ]
        ),
    )


def _nat(readers: Sequence[ClientResult | WatchResult]) -> Nat:
    """Return what is known of all NATs together: the fewest ports, and the oldest kernel."""
    nats = [reader.nat.on(str(reader.environment.get("kernel", ""))) for reader in readers if reader.nat]
    if not nats:
        return DEFAULT_NAT
    fewest_ports = min(nats, key=lambda nat: nat.ports)
    of_all = {
        "clashes_raise_drop": all(nat.clashes_raise_drop for nat in nats),
        "udp_clashes": any(nat.udp_clashes for nat in nats),
    }
    return Nat(**(fewest_ports.model_dump() | of_all))


def _each_once(warnings: Iterable[MeasurementWarning]) -> list[MeasurementWarning]:
    """Return warnings that several parts may have; those that say the same only once."""
    once: list[MeasurementWarning] = []
    for warning in warnings:
        if warning not in once:
            once.append(warning)
    return once


def part_of_client(client: ClientResult) -> MergedPart:
    """Return what identifies a client's result among those that were merged."""
    return MergedPart(
        kind=client.kind,
        run_id=client.run_id,
        boot_id=_boot_id(client.environment),
        started_at=client.started_at,
        elapsed_s=client.elapsed_s,
        spec=client.spec,
        attempted=client.summary.attempted,
        failed=client.summary.failed,
        late_by_retransmit=client.summary.late_by_retransmit,
        loss_rate_ci95=loss_counts("", client.summary, client.periods).interval,
        watched=client.kernel.source is not None,
        cut_off=client.cut_off,
    )


def part_of_watch(watch: WatchResult, ahead_s: float = 0.0) -> MergedPart:
    """Return what identifies a watch's result among those that were merged.

    ``ahead_s``: how far its clock is ahead of the clients'.
    """
    return MergedPart(
        kind=watch.kind,
        run_id=watch.run_id,
        boot_id=_boot_id(watch.environment),
        started_at=watch.started_at,
        clock_ahead_s=ahead_s,
        elapsed_s=watch.elapsed_s,
        spec=watch.spec,
        attempted=None,
        failed=sum(candidate.at_most for candidate in watch.candidate_causes),
        watched=True,
        cut_off=watch.cut_off,
    )


def merged_summary(
    parts: Sequence[Summary], counters: Sequence[CounterDelta] = (), *, elapsed_s: float | None = None
) -> Summary:
    """Add summaries up; percentiles only where every part has a histogram.

    Args:
        parts: one or more.
        counters: what was counted meanwhile, because parts may have read the same namespace.
        elapsed_s: how long they took; None: from the first to begin to the last to end, for parts that
            ran side by side.

    """
    counts = {name: sum(getattr(part, name) for part in parts) for name in _ADDED}
    errors: Counter[str] = Counter()
    retransmits: Counter[str] = Counter()
    for part in parts:
        errors.update(part.errors)
        retransmits.update(part.syn_retransmits)
    return Summary(
        **counts,
        **_latencies(parts),
        began_at=min((part.began_at for part in parts if part.began_at), default=None),
        **rates(
            attempted=counts["attempted"],
            failed=counts["failed"],
            recorded=counts["attempted"] - counts["overruns"],
            elapsed_s=_elapsed_s(parts) if elapsed_s is None else elapsed_s,
        ),
        errors=dict(errors.most_common()),
        syn_retransmits=dict(sorted(retransmits.items())),
        counters=list(counters),
    )


def seconds(instant: str) -> float:
    """Return an instant of a result as seconds since the epoch."""
    return datetime.fromisoformat(instant).replace(tzinfo=UTC).timestamp()


def instant(epoch_s: float) -> str:
    """Return seconds since the epoch as an instant of a result."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _boot_id(environment: dict[str, Any]) -> str:
    return str(environment.get("boot_id", ""))


def _latencies(parts: Sequence[Summary]) -> dict[str, Any]:
    """Return the histograms added up, and the latencies derived from them, by the fields' names."""
    fields: dict[str, Any] = {}
    for histogram_field, latency_field in _LATENCIES.items():
        encoded = [getattr(part, histogram_field) for part in parts if part.attempted > part.overruns]
        if encoded and all(encoded):
            histogram = Histogram.of(encoded)
            fields[histogram_field] = histogram.encode()
            fields[latency_field] = from_histogram(histogram)
    return fields


def _elapsed_s(parts: Sequence[Summary]) -> float:
    """Return the time from the first to begin to the last to end."""
    spans = [(seconds(part.began_at), part.elapsed_s) for part in parts if part.began_at]
    if len(spans) < len(parts):
        return max(part.elapsed_s for part in parts)
    ended_s = max(began_s + elapsed_s for began_s, elapsed_s in spans)
    return ended_s - min(began_s for began_s, _ in spans)


def _ahead_s(clients: Sequence[ClientResult], watch: WatchResult) -> float:
    """Return how far a watch's clock is ahead of the clients', in seconds; 0.0 on the same host."""
    boot_id = _boot_id(watch.environment)
    if not boot_id or boot_id in {_boot_id(client.environment) for client in clients}:
        return 0.0
    losses = [
        Counted(seconds(period.began_at), period.elapsed_s, period.failed_or_late)
        for client in clients
        for period in client.periods
        if period.began_at
    ]
    clashes = [
        Counted(seconds(delta.began_at), delta.elapsed_s, sum(delta.conntrack.insert_failed))
        for delta in _watch_as_reader(watch, 0.0).deltas
        if delta.conntrack
    ]
    return round(clock_ahead_s(losses, clashes), 3)


def _deltas(
    clients: Sequence[ClientResult], watches: Sequence[WatchResult], ahead_s: Sequence[float]
) -> list[CounterDelta]:
    """Return what was counted while the clients ran, each namespace by whoever read it longest.

    ``ahead_s``: how far each watch's clock is ahead of the clients'.
    """
    began_s = min(seconds(client.started_at) for client in clients) - SLACK_S
    ended_s = max(seconds(client.started_at) + client.elapsed_s for client in clients) + SLACK_S
    readers = list(map(_watch_as_reader, watches, ahead_s))
    readers += [_client_as_reader(client) for client in clients]
    longest: dict[tuple[str, int, str], list[CounterDelta]] = {}
    for reader in readers:
        for namespace, deltas in _by_namespace(reader).items():
            if namespace not in longest or _length_s(deltas) > _length_s(longest[namespace]):
                longest[namespace] = deltas
    return [
        delta
        for deltas in longest.values()
        for delta in deltas
        if began_s <= seconds(delta.began_at) + delta.elapsed_s and seconds(delta.began_at) <= ended_s
    ]


def _watch_as_reader(watch: WatchResult, ahead_s: float) -> _Reader:
    deltas = watch.periods or ([watch.total] if watch.total else [])
    if ahead_s:
        deltas = [
            CounterDelta(**dict(delta) | {"began_at": instant(seconds(delta.began_at) - ahead_s)})
            for delta in deltas
        ]
    return _Reader(boot_id=_boot_id(watch.environment), deltas=deltas)


def _client_as_reader(client: ClientResult) -> _Reader:
    deltas = [delta for period in client.periods for delta in period.counters] or client.summary.counters
    return _Reader(boot_id=_boot_id(client.environment), deltas=deltas)


def _by_namespace(reader: _Reader) -> dict[tuple[str, int, str], list[CounterDelta]]:
    """Return a reader's periods by what identifies a namespace: its host, and its inode or else name."""
    namespaces: dict[tuple[str, int, str], list[CounterDelta]] = {}
    for delta in reader.deltas:
        name = "" if delta.inode else delta.netns
        namespaces.setdefault((reader.boot_id, delta.inode, name), []).append(delta)
    return namespaces


def _length_s(deltas: Iterable[CounterDelta]) -> float:
    return sum(delta.elapsed_s for delta in deltas)


def _kernel(
    clients: Sequence[ClientResult],
    watches: Sequence[WatchResult],
    deltas: Sequence[CounterDelta],
    nat: Nat,
) -> KernelCounters:
    """Add up what was counted. The readers' own count of exhausted searches is of shorter periods."""
    counted = sum(watch.exhausted for watch in watches)
    counted += sum(client.kernel.exhausted or 0 for client in clients)
    return kernel_counters(
        deltas,
        exhausted=min(exhausted_over(deltas, nat), counted),
        containers=summed(client.kernel.containers for client in clients),
    )


def _periods(clients: Sequence[ClientResult], deltas: Sequence[CounterDelta]) -> list[Summary]:
    """Return the periods of all, by wall-clock time: as long as the longest of theirs.

    A period belongs to the bin that holds its middle. What was counted beyond the first or the last bin
    belongs to that. Percentiles of periods cannot be added up.
    """
    periods = [period for client in clients for period in client.periods if period.began_at]
    if not periods:
        return []
    origin_s = min(seconds(period.began_at or "") for period in periods)
    length_s = max(period.elapsed_s for period in periods) or 1.0

    def bin_of(began_at: str, elapsed_s: float) -> int:
        middle_s = seconds(began_at) + elapsed_s / 2
        return int((middle_s - origin_s) // length_s)

    bins: dict[int, list[Summary]] = {}
    for period in periods:
        bins.setdefault(bin_of(period.began_at or "", period.elapsed_s), []).append(period)
    counted: dict[int, list[CounterDelta]] = {}
    for delta in deltas:
        number = max(min(bins), min(max(bins), bin_of(delta.began_at, delta.elapsed_s)))
        counted.setdefault(number, []).append(delta)
    merged_periods: list[Summary] = []
    for number, parts in sorted(bins.items()):
        total = total_of(counted.get(number, []))
        merged_periods.append(merged_summary(parts, [total] if total else []))
    return merged_periods
