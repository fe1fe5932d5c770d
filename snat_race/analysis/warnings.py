"""What makes one doubt a measurement, each with what to do about it. Pure."""

from collections.abc import Iterator

from snat_race.analysis.merge import seconds
from snat_race.analysis.pairing import silent_zero, unmet
from snat_race.results.schema import ClientResult, MergedResult, Summary, WatchResult

_MANY_LATE = 0.05
_WATCH_WITH = "run 'snat-race watch --output watch.json' where the NAT is, and give that file too"


def doubts(result: ClientResult | MergedResult | WatchResult) -> list[str]:
    """Return sentences, the gravest first; none if there is nothing to doubt."""
    return list(_doubts(result))


def _doubts(result: ClientResult | MergedResult | WatchResult) -> Iterator[str]:
    if not isinstance(result, MergedResult) and result.cut_off:
        yield "This run was cut off: what followed its last whole period is missing. Run it again."
    if isinstance(result, WatchResult):
        return
    if result.summary.failed and not result.kernel.source:
        yield f"Nobody read the NAT's counters, so the causes cannot be told: {_WATCH_WITH}."
    yield from _of_dials(result.summary)
    if isinstance(result, ClientResult):
        yield from _of_cpus(result)
        if silence := silent_zero(result):
            yield f"{silence}."
    else:
        yield from _of_sources(result)


def _of_dials(summary: Summary) -> Iterator[str]:
    if summary.overruns:
        yield (
            f"{summary.overruns:,} samples were dropped because the ring was full: the outcomes of as "
            "many dials are not known. Use fewer --workers, or a longer --dial-interval-us."
        )
    slots = summary.attempted + summary.late
    if summary.late > slots * _MANY_LATE:
        yield (
            f"{summary.late:,} of {slots:,} slots passed while a dial was in flight or being prepared. "
            "Use a longer --dial-interval-us, or a shorter --timeout-ms."
        )


def _of_cpus(result: ClientResult) -> Iterator[str]:
    workers, cpus = result.spec.get("workers", 0), len(result.environment.get("usable_cpus", ()))
    if isinstance(workers, int) and workers > cpus > 0:
        yield f"{workers} workers shared {cpus} CPUs, so fewer dials met. Use --workers {cpus}."


def _of_sources(result: MergedResult) -> Iterator[str]:
    clients = [each for each in result.sources if each.kind == "client"]
    watches = [each for each in result.sources if each.kind == "watch"]
    for each in result.sources:
        if each.cut_off:
            yield f"The {each.kind} {each.run_id[:8]} was cut off: the end is missing."
    unwatched = {each.boot_id for each in clients} - {
        each.boot_id for each in result.sources if each.watched
    }
    if watches and unwatched:
        yield f"Nobody watched {len(unwatched)} of the hosts that the clients ran on: {_WATCH_WITH}."
    began_s = min(seconds(each.started_at) for each in clients)
    ended_s = max(seconds(each.started_at) + each.elapsed_s for each in clients)
    for each in watches:
        late_s = seconds(each.started_at) - began_s
        early_s = ended_s - seconds(each.started_at) - each.elapsed_s
        if late_s > 0 or early_s > 0:
            yield (
                f"A watch began {max(0.0, late_s):.1f} s after the first client and ended "
                f"{max(0.0, early_s):.1f} s before the last, and missed some. Start it first, stop it last."
            )
    yield from unmet(clients)
