"""What makes a measurement doubtful, as data; a function for each kind of result. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from snat_race.analysis.merge import seconds
from snat_race.analysis.pairing import meets_itself, unmet
from snat_race.analysis.race_window import exceeds_sweep
from snat_race.results.conclusions import MeasurementWarning, WarningKind
from snat_race.results.counters import KernelCounters
from snat_race.results.model import Result
from snat_race.results.schema import (
    ClientResult,
    LabResult,
    MergedPart,
    MergedResult,
    Summary,
    WatchResult,
    Window,
)

_MANY_LATE = 0.05  # of all slots
_OTHER_LOSSES = 0.02  # of a sweep's collisions


def of_client(result: ClientResult) -> list[MeasurementWarning]:
    """Return what makes a client's result doubtful, the gravest first."""
    warnings = [MeasurementWarning(kind=WarningKind.run_cut_off)] if result.cut_off else []
    warnings += result.warnings
    warnings += _of_dials(result.summary, result.kernel)
    workers = _number(result.spec, "workers")
    cpus = usable_cpus(result)
    already = any(warning.kind == WarningKind.workers_share_cpus for warning in warnings)
    if workers > cpus > 0 and not already:
        warnings.append(workers_share_cpus(workers, cpus, _number(result.spec, "lanes") or cpus))
    if lost_nothing_alone(result):
        warnings.append(MeasurementWarning(kind=WarningKind.nothing_lost_alone))
    return warnings


def usable_cpus(result: Result) -> int:
    """Return how many CPUs a run could use; 0 where a file does not say."""
    for cpus in (result.spec.get("cpus"), result.environment.get("usable_cpus")):
        if isinstance(cpus, list | tuple) and cpus:
            return len(cpus)
    return 0


def _number(settings: dict[str, Any], name: str) -> int:
    """Return a setting that is a number; 0 where a file has none, or something else."""
    value = settings.get(name)
    return value if isinstance(value, int) else 0


def workers_share_cpus(workers: int, cpus: int, lanes: int) -> MeasurementWarning:
    """Return the warning that a client has fewer CPUs than workers."""
    values: dict[str, int | float | str] = {"workers": workers, "cpus": cpus, "lanes": lanes}
    return MeasurementWarning(kind=WarningKind.workers_share_cpus, values=values)


def of_merged(result: MergedResult) -> list[MeasurementWarning]:
    """Return what makes a merged result doubtful, the gravest first."""
    return [
        *result.warnings,
        *_of_dials(result.summary, result.kernel),
        *_of_parts(result.merged_from),
        *unmet([part for part in result.merged_from if part.kind == "client"]),
    ]


def of_watch(result: WatchResult) -> list[MeasurementWarning]:
    """Return what makes a watch's result doubtful, the gravest first."""
    cut_off = [MeasurementWarning(kind=WarningKind.run_cut_off)] if result.cut_off else []
    return [*cut_off, *result.warnings]


def of_clock(step_ns: int) -> list[MeasurementWarning]:
    """Return the warning that the clock was set during a run, by so many ns; [] if that is 0."""
    if not step_ns:
        return []
    return [MeasurementWarning(kind=WarningKind.clock_stepped, values={"step_s": step_ns / 1e9})]


def of_lab(result: LabResult) -> list[MeasurementWarning]:
    """Return what makes a lab's result doubtful, the gravest first; see also :func:`of_window`."""
    workers = _number(result.spec, "containers") * _number(result.spec, "workers")
    cpus = usable_cpus(result)
    if not cpus or workers <= cpus:
        return result.warnings
    values: dict[str, int | float | str] = {"workers": workers, "cpus": cpus}
    return [
        *result.warnings,
        MeasurementWarning(kind=WarningKind.lab_workers_share_cpus, values=values),
    ]


def of_window(window: Window) -> list[MeasurementWarning]:
    """Return what makes a race window doubtful."""
    warnings: list[MeasurementWarning] = []
    if exceeds_sweep(window):
        warnings.append(
            MeasurementWarning(
                kind=WarningKind.window_sweep_too_narrow, values={"tail_rate": window.tail_rate}
            )
        )
    if window.unexplained > _OTHER_LOSSES * window.collisions:
        warnings.append(
            MeasurementWarning(
                kind=WarningKind.window_has_other_losses, values={"unexplained": window.unexplained}
            )
        )
    return warnings


def lost_nothing_alone(result: ClientResult) -> bool:
    """Whether a run in rendezvous lost nothing to the race, and may have met nobody."""
    if result.spec.get("mode") != "rendezvous" or not result.summary.connected:
        return False
    may_have_lost = (
        "TIMEOUT" in result.summary.errors
        or result.summary.late_by_retransmit
        or sum(result.kernel.conntrack.insert_failed)
    )
    return not may_have_lost and not meets_itself(result.spec)


def _of_dials(summary: Summary, kernel: KernelCounters) -> Iterator[MeasurementWarning]:
    if summary.failed_or_late and not kernel.source:
        yield MeasurementWarning(kind=WarningKind.counters_unread)
    if summary.overruns:
        yield MeasurementWarning(kind=WarningKind.ring_overruns, values={"overruns": summary.overruns})
    slots = summary.attempted + summary.late
    if summary.late > slots * _MANY_LATE:
        yield MeasurementWarning(
            kind=WarningKind.many_late_slots, values={"late": summary.late, "slots": slots}
        )


def _of_parts(parts: Sequence[MergedPart]) -> Iterator[MeasurementWarning]:
    """Yield what makes parts doubtful: ends that are missing, and watches that do not cover the clients."""
    clients = [part for part in parts if part.kind == "client"]
    watches = [part for part in parts if part.kind == "watch"]
    for part in parts:
        if part.cut_off:
            yield MeasurementWarning(
                kind=WarningKind.part_cut_off, values={"kind": part.kind, "run_id": part.run_id}
            )
    read = {part.boot_id for part in parts if part.watched}
    unwatched = {client.boot_id for client in clients} - read
    if watches and unwatched:
        yield MeasurementWarning(kind=WarningKind.hosts_unwatched, values={"hosts": len(unwatched)})
    began_s = min(seconds(client.started_at) for client in clients)
    ended_s = max(seconds(client.started_at) + client.elapsed_s for client in clients)
    for watch in watches:
        watch_began_s = seconds(watch.started_at) - watch.clock_ahead_s
        late_s = watch_began_s - began_s
        early_s = ended_s - watch_began_s - watch.elapsed_s
        # Either is longer than the clients ran: it missed all of them.
        apart_s = max(late_s, early_s) - (ended_s - began_s)
        if watch.clock_ahead_s:
            yield MeasurementWarning(
                kind=WarningKind.clocks_differ,
                values={"run_id": watch.run_id, "ahead_s": watch.clock_ahead_s},
            )
        elif apart_s > 0 and watch.boot_id not in {client.boot_id for client in clients}:
            yield MeasurementWarning(
                kind=WarningKind.watch_at_other_time,
                values={"run_id": watch.run_id, "apart_s": apart_s},
            )
        elif late_s > 0 or early_s > 0:
            yield MeasurementWarning(
                kind=WarningKind.watch_missed_some,
                values={"late_s": max(0.0, late_s), "early_s": max(0.0, early_s)},
            )
