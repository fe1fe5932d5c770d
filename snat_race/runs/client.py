"""One run of ``client``: pool -> drains -> periods -> a result."""

import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.kept_periods import KeptPeriods, periods_of_client
from snat_race.analysis.summary import Circumstances, Failure, Samples, Total, failures
from snat_race.analysis.warnings import of_clock, workers_share_cpus
from snat_race.errors import SnatRaceError
from snat_race.kernel.counters import CounterReader
from snat_race.kernel.host import utc_now
from snat_race.load.dialer_pool import DialCounts, DialerPool
from snat_race.results.conclusions import MeasurementWarning, WarningKind
from snat_race.results.counters import CounterDelta
from snat_race.results.schema import ClientResult, Started, Summary
from snat_race.runs.counter_monitor import CounterMonitor, warnings_about
from snat_race.runs.nat_properties import nat_of, rules_for
from snat_race.runs.run_metadata import RunMetadata
from snat_race.runs.settings import ClientSettings, Mode
from snat_race.runs.signals import StopSignals
from snat_race.runs.worker_placement import Target, placements

_DRAIN_S = 0.2
_MOST_FAILURES_LISTED = 10  # of each period


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodEnd:
    """What is known when a period ends."""

    summary: Summary  # of the period
    other_failures: Counter[str]  # those that were not listed one by one, by the name of their errno
    failed_so_far: int  # failed dials since the start of the run
    recorded_so_far: int  # dials with an outcome since then


class Observer(Protocol):
    """Who is told of the run's findings as they come."""

    def started(self, head: Started, remote: str) -> None:
        """Note that workers are ready to dial ``remote``, and what is known of the run by now."""

    def failure(self, failure: Failure) -> None:
        """Note a failed dial. Only the first few of each period come this way."""

    def period(self, end: PeriodEnd) -> None:
        """Note the end of a period."""

    def drained(
        self,
        at_s: float,
        samples: Sequence[Samples],
        counters: Sequence[CounterDelta],
        late_by_retransmit: int,
    ) -> None:
        """Note each worker's new samples, ``at_s`` after the start, and all that was counted by then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tally:
    """All that was counted up to an instant. It ends one period and begins the next, so nothing falls
    between two, and periods add up to the run.
    """

    at_s: float  # CLOCK_MONOTONIC up to which all samples are in
    at: str  # when it was taken: UTC, ISO 8601
    counts: DialCounts
    slow_connects: list[int]  # by how often their SYN was sent again

    def while_dialling(self) -> "_Tally":
        """Return it without the dials that were in flight: they are not cut short yet."""
        return replace(self, counts=self.counts._replace(cut_short=0))

    def circumstances(self, earlier: "_Tally", counters: Sequence[CounterDelta]) -> Circumstances:
        """Return what a summary since ``earlier`` says besides what became of its dials."""
        slow_connects = zip(earlier.slow_connects, self.slow_connects, strict=True)
        since = [now - before for before, now in slow_connects]
        return Circumstances(
            elapsed_s=self.at_s - earlier.at_s,
            began_at=earlier.at,
            syn_retransmits={str(times): count for times, count in enumerate(since) if count},
            counters=counters,
        )


@dataclass(slots=True)
class _DrainedInPeriod:
    """What was drained in the present period."""

    dials: Total
    listed: int = 0  # failures that the observer was told one by one
    other_failures: Counter[str] = field(default_factory=Counter)


@dataclass(kw_only=True)
class _Run:
    """The accumulating state of one run."""

    settings: ClientSettings
    target: Target
    pool: DialerPool
    monitor: CounterMonitor
    observer: Observer
    periods: KeptPeriods[Summary] = field(default_factory=periods_of_client)

    def __post_init__(self) -> None:
        self._total = Total(self.settings.dial_interval_us * 1000)
        self._began = self._tally(time.monotonic())
        self._period_began = self._began
        self._drained = self._nothing_drained()

    def dial(self) -> Exception | None:
        """Have the pool dial until it is over; return what ended it before its time, if anything did."""
        settings = self.settings
        fault: Exception | None = None
        try:
            for samples in self.pool.round(settings.duration_s, settings.count, every_s=_DRAIN_S):
                self._take(samples)
                self._list_failures(samples)
                self._end_period_if_due()
                at_s = time.monotonic() - self._began.at_s
                late = sum(self.pool.slow_connects()[1:]) - sum(self._began.slow_connects[1:])
                self.observer.drained(at_s, samples, self.monitor.total, late)
        except SnatRaceError as died:
            fault = SnatRaceError(f"{died}; the totals up to then are right")
        except Exception as broken:  # noqa: BLE001 - a fault of ours must not lose what was measured
            fault = broken
        self.pool.stop()
        rest = self.pool.rest()
        self._take(rest)
        if not fault:
            self._list_failures(rest)
        return fault

    def summary(self) -> Summary:
        """Derive the summary of the whole run, and keep what came after the last period.

        Call it when the pool has stopped.
        """
        end = self._tally(time.monotonic())
        self._keep_period(end)
        counts = end.counts.since(self._began.counts)
        return self._total.summary(counts, end.circumstances(self._began, self.monitor.total))

    def _tally(self, at_s: float) -> _Tally:
        return _Tally(
            at_s=at_s, at=utc_now(), counts=self.pool.counts(), slow_connects=self.pool.slow_connects()
        )

    def _take(self, drained: list[Samples]) -> None:
        """Add each worker's samples, before anybody is told of them."""
        for samples in self._by_source(drained):
            self._drained.dials.add(samples)

    def _by_source(self, drained: list[Samples]) -> list[Samples]:
        """Return the samples of each source address."""
        addresses = len(self.target.source_ips)
        return [np.concatenate(drained[index::addresses]) for index in range(addresses)]

    def _list_failures(self, drained: list[Samples]) -> None:
        """List the first failures of each period, count the others."""
        period = self._drained
        for ip, samples in zip(self.target.source_ips, self._by_source(drained), strict=True):
            listed, others = failures(
                samples,
                source_ip=f"[{ip}]" if ":" in ip else ip,
                remote=self.target.remote.text,
                clock_offset_ns=self.pool.clock.offset_ns,
                most=_MOST_FAILURES_LISTED - period.listed,
            )
            period.listed += len(listed)
            period.other_failures += others
            for failure in listed:
                self.observer.failure(failure)

    def _end_period_if_due(self) -> None:
        """End the period once its time is up; read the counters meanwhile."""
        self.monitor.read_if_due()
        # A sample is drained one drain late, so a period ends one drain late, and is whole.
        at_s = time.monotonic() - _DRAIN_S
        if at_s - self._period_began.at_s + _DRAIN_S / 2 < self.settings.summary_interval_sec:
            return
        summary = self._keep_period(self._tally(at_s).while_dialling())
        end = PeriodEnd(
            summary=summary,
            other_failures=self._drained.other_failures,
            failed_so_far=self._total.failed,
            recorded_so_far=self._total.recorded,
        )
        self.observer.period(end)
        self._drained = self._nothing_drained()

    def _keep_period(self, end: _Tally) -> Summary:
        counts = end.counts.since(self._period_began.counts)
        circumstances = end.circumstances(self._period_began, self.monitor.end_period())
        self._period_began = end
        dials = self._drained.dials
        self._total.add_total(dials)
        summary = dials.period(counts, circumstances)
        self.periods.add(summary)
        return summary

    def _nothing_drained(self) -> _DrainedInPeriod:
        return _DrainedInPeriod(Total(self.settings.dial_interval_us * 1000))


def run(
    settings: ClientSettings,
    target: Target,
    readers: Sequence[CounterReader],
    observer: Observer,
    *,
    realtime_ns: Callable[[], int] = time.time_ns,
) -> tuple[ClientResult, Exception | None]:
    """Dial until the duration or count is reached, or a signal comes; read counters meanwhile.

    Returns the result and what ended the run before its time, if anything did: a worker that died, or a
    fault of this program. The totals are right all the same.

    Raises:
        SnatRaceError: the workers did not start.
        Interrupted: a signal came before they had.

    """
    metadata = RunMetadata()
    spec = settings.spec()
    translation = rules_for((reader.namespace for reader in readers), target.source_ips)
    warnings = [
        *warnings_about(readers),
        *translation.warnings(),
        *_warnings_at_start(settings, target),
    ]
    with (
        StopSignals() as interrupt,
        DialerPool(placements(settings, target), interrupt, realtime_ns=realtime_ns) as pool,
    ):
        nat = nat_of(translation, 0)
        head = Started(kind="client", **metadata.fields(), spec=spec, nat=nat, warnings=warnings)
        observer.started(head, target.remote.text)
        _warm_up(pool, settings.warmup_s, interrupt)
        monitor = CounterMonitor(readers, nat)
        state = _Run(settings=settings, target=target, pool=pool, monitor=monitor, observer=observer)
        fault = state.dial()
        summary = state.summary()
    nat, kernel = nat_of(translation, summary.attempted), monitor.kernel_counters()
    result = ClientResult(
        **metadata.fields(),
        spec=spec,
        summary=summary,
        periods=state.periods.all(),
        kernel=kernel,
        nat=nat,
        diagnosis=diagnose(summary, kernel, nat=nat),
        warnings=warnings + of_clock(pool.clock.largest_step_ns),
    )
    return result, fault or _unreadable(monitor)


def _unreadable(monitor: CounterMonitor) -> SnatRaceError | None:
    if monitor.failure is None:
        return None
    return SnatRaceError(f"the counters could not be read any more ({monitor.failure.args[-1]})")


def _warm_up(pool: DialerPool, duration_s: float | None, interrupt: StopSignals) -> None:
    if duration_s:
        deque(pool.round(duration_s, every_s=_DRAIN_S), maxlen=0)
    if interrupt.requested:
        pool.stop()
        pool.rest()


def _warnings_at_start(settings: ClientSettings, target: Target) -> list[MeasurementWarning]:
    """Return what makes the run doubtful before it begins."""
    warnings: list[MeasurementWarning] = []
    remote, cpus = target.remote, len(target.cpus)
    if settings.workers > cpus:
        warnings.append(workers_share_cpus(settings.workers, cpus, settings.lanes))
    if settings.mode is Mode.rendezvous and remote.family == socket.AF_INET and not remote.routed:
        warnings.append(MeasurementWarning(kind=WarningKind.no_router, values={"remote": remote.text}))
    return warnings
