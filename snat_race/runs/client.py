"""One run of ``client``: pool -> drains -> periods -> a result."""

import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.summary import Circumstances, Failure, Samples, Total, failures, period
from snat_race.analysis.warnings import workers_share_cpus
from snat_race.errors import SnatRaceError
from snat_race.kernel.counters import CounterReader
from snat_race.kernel.host import utc_now
from snat_race.load.dialer_pool import DialerPool
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
MOST_FAILURES_SHOWN = 10


class Observer(Protocol):
    """Who is told of the run's findings as they come."""

    def started(self, opening: str, head: Started) -> None:
        """Note that workers are ready: what they will do, and what is known of the run by now."""

    def failure(self, failure: Failure) -> None:
        """Note a failed dial; only the first few of each period are told."""

    def period(self, summary: Summary, untold: Counter[str], failed: int, total: int) -> None:
        """Note the end of a period; ``untold`` counts its other failures."""

    def drained(self, at_s: float, drained: list[Samples], watched: list[CounterDelta]) -> None:
        """Note each worker's new samples, ``at_s`` after the start, and all that was counted by then."""


class _Run:
    """The accumulating state of one run."""

    def __init__(
        self,
        settings: ClientSettings,
        target: Target,
        pool: DialerPool,
        monitor: CounterMonitor,
        observer: Observer,
    ) -> None:
        self._settings, self._target, self._pool, self._observer = settings, target, pool, observer
        self._monitor = monitor
        self._resent_since = pool.slow_connects()
        self._total = Total(settings.dial_interval_us * 1000)
        self._since, self._began_s, self._began_at = pool.counts(), time.monotonic(), utc_now()
        self._clock_offset_ns = time.time_ns() - time.monotonic_ns()
        self.periods: list[Summary] = []
        # A sample is drained one drain late, so a period is told one drain late, and is whole.
        self._start_period(self._began_s + _DRAIN_S)

    def _start_period(self, began_s: float) -> None:
        self._period_began_s, self._period_since = began_s, self._pool.counts()
        self._period_began_at = utc_now()
        self._period_resent = self._pool.slow_connects()
        self._taken: list[Samples] = []
        self._untold: Counter[str] = Counter()
        self._shown = 0

    def dial(self) -> str | None:
        """Have the pool dial until it is over; return the obituary of a worker that died."""
        settings, fault = self._settings, None
        try:
            for samples in self._pool.round(settings.duration_s, settings.count, every_s=_DRAIN_S):
                self.take(samples)
                self.end_period_if_due()
                self.tell(samples)
        except SnatRaceError as died:
            fault = f"{died}; the totals up to then are right"
        self._pool.stop()
        self.take(self._pool.rest())
        return fault

    def take(self, drained: list[Samples]) -> None:
        """Add each worker's samples; tell the first failures of each period, count the others."""
        ips = self._target.source_ips
        for index, ip in enumerate(ips):
            samples = np.concatenate(drained[index :: len(ips)])
            self._taken.append(samples)
            self._total.add(samples)
            told, others = failures(
                samples,
                f"[{ip}]" if ":" in ip else ip,
                self._target.remote.text,
                self._clock_offset_ns,
                MOST_FAILURES_SHOWN - self._shown,
            )
            self._shown += len(told)
            self._untold += others
            for failure in told:
                self._observer.failure(failure)

    def end_period_if_due(self) -> None:
        """Close the period once its time is up; look at the counters meanwhile."""
        self._monitor.read_if_due()
        now_s, length_s = time.monotonic(), self._settings.summary_interval_sec
        elapsed_s = now_s - self._period_began_s
        if elapsed_s + _DRAIN_S / 2 < length_s:
            return
        self._keep_period(elapsed_s)
        self._observer.period(self.periods[-1], self._untold, self._total.failed, self._total.recorded)
        self._start_period(now_s)

    def _keep_period(self, elapsed_s: float) -> None:
        counts = self._pool.counts().since(self._period_since)._replace(cut_short=0)
        circumstances = Circumstances(
            elapsed_s=elapsed_s,
            began_at=self._period_began_at,
            syn_retransmits=self._retransmits_since(self._period_resent),
            counters=self._monitor.end_period(),
        )
        self.periods.append(period(np.concatenate(self._taken), counts, circumstances))

    def tell(self, drained: list[Samples]) -> None:
        """Tell of every drain, for a live view."""
        self._observer.drained(time.monotonic() - self._began_s, drained, self._monitor.total)

    def summary(self) -> Summary:
        """Derive the summary of the whole run, and keep what came after the last period; call it when
        the pool has stopped.
        """
        now_s = time.monotonic()
        counts = self._pool.counts().since(self._since)
        self._keep_period(now_s - (self._period_began_s if self.periods else self._began_s))
        circumstances = Circumstances(
            elapsed_s=now_s - self._began_s,
            began_at=self._began_at,
            syn_retransmits=self._retransmits_since(self._resent_since),
            counters=self._monitor.total,
        )
        return self._total.summary(counts, circumstances)

    def _retransmits_since(self, earlier: list[int]) -> dict[str, int]:
        risen = [b - a for a, b in zip(earlier, self._pool.slow_connects(), strict=True)]
        return {str(times): count for times, count in enumerate(risen) if count}


def run(
    settings: ClientSettings, target: Target, readers: Sequence[CounterReader], observer: Observer
) -> tuple[ClientResult, str | None]:
    """Dial until the duration or count is reached, or a signal comes; read counters meanwhile.

    Returns the result and, if a worker died, the obituary: the totals are right all the same.

    Raises:
        SnatRaceError: the workers did not start.
        Interrupted: a signal came before they had.

    """
    record = RunMetadata()
    translation = rules_for((reader.namespace for reader in readers), target.source_ips)
    with StopSignals() as interrupt, DialerPool(placements(settings, target), interrupt) as pool:
        nat = nat_of(translation, 0)
        warnings = [*warnings_about(readers), *_warnings(settings, target)]
        head = Started(kind="client", **record.fields(), spec=settings.spec(), nat=nat, warnings=warnings)
        observer.started(_opening(settings, target), head)
        _warm_up(pool, settings.warmup_s, interrupt)
        monitor = CounterMonitor(readers, nat)
        state = _Run(settings, target, pool, monitor, observer)
        fault = state.dial()
        summary = state.summary()
    result = ClientResult(
        **record.fields(),
        spec=settings.spec(),
        summary=summary,
        periods=state.periods,
        kernel=monitor.kernel_counters(),
        nat=(nat := nat_of(translation, summary.attempted)),
        diagnosis=diagnose(summary, monitor.kernel_counters(), nat=nat),
        warnings=warnings,
    )
    return result, fault or _unreadable(monitor)


def _unreadable(monitor: CounterMonitor) -> str | None:
    if monitor.failure is None:
        return None
    return f"the counters could not be read any more ({monitor.failure.args[-1]})"


def _warm_up(pool: DialerPool, duration_s: float | None, interrupt: StopSignals) -> None:
    if duration_s:
        deque(pool.round(duration_s, every_s=_DRAIN_S), maxlen=0)
    if interrupt.requested:
        pool.stop()
        pool.rest()


def _opening(settings: ClientSettings, target: Target) -> str:
    """Say what the run will do."""
    low, high = settings.source_ports
    if settings.mode is Mode.rendezvous:
        how = (
            f"in rendezvous each {settings.dial_interval_us} us, ports {low}-{high}, {settings.lanes} lanes"
        )
    else:
        how = (
            f"independent, each {settings.dial_interval_us} us" if settings.dial_interval_us else "flat out"
        )
    return f"Starting to dial {target.remote.text}, workers: {settings.workers}, {how}"


def _warnings(settings: ClientSettings, target: Target) -> list[MeasurementWarning]:
    """Return what makes the run doubtful before it begins."""
    warnings: list[MeasurementWarning] = []
    cpus = len(target.cpus)
    if settings.workers > cpus:
        warnings.append(workers_share_cpus(settings.workers, cpus, settings.lanes))
    if (
        settings.mode is Mode.rendezvous
        and target.remote.family == socket.AF_INET
        and not target.remote.routed
    ):
        remote = target.remote.text
        warnings.append(MeasurementWarning(kind=WarningKind.no_router, values={"remote": remote}))
    return warnings
