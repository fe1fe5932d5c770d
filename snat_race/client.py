"""One run of ``client``: fleet -> drains -> periods -> a result."""

import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from snat_race.analysis.cause import Cause
from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.node import Kernel, Watched
from snat_race.analysis.result import ClientResult, Started, Summary
from snat_race.analysis.summary import Failure, Samples, Total, failures, lost_again, period
from snat_race.analysis.suspects import Nat
from snat_race.errors import SnatRaceError
from snat_race.interrupt import Interrupt
from snat_race.kernel.counters import Node
from snat_race.load.fleet import Fleet
from snat_race.options import ClientOptions, Mode
from snat_race.plan import Target, berths
from snat_race.record import Record, utc_now
from snat_race.translation import nat_of, rules_for
from snat_race.watcher import Beside

_DRAIN_S = 0.2
MOST_FAILURES_SHOWN = 10


class Observer(Protocol):
    """Who is told of the run's findings as they come."""

    def started(self, lines: list[str], head: Started) -> None:
        """Note that workers are ready: what they will do, then doubts about it."""

    def failure(self, failure: Failure) -> None:
        """Note a failed dial; only the first few of each period are told."""

    def period(self, summary: Summary, untold: Counter[str], failed: int, total: int) -> None:
        """Note the end of a period; ``untold`` counts its other failures."""

    def drained(self, at_s: float, drained: list[Samples], watched: list[Watched]) -> None:
        """Note each worker's new samples, ``at_s`` after the start, and all that was counted by then."""


class _Run:
    """The accumulating state of one run."""

    def __init__(
        self,
        options: ClientOptions,
        target: Target,
        fleet: Fleet,
        beside: Beside,
        observer: Observer,
    ) -> None:
        self._options, self._target, self._fleet, self._observer = options, target, fleet, observer
        self._beside = beside
        self._resent_since = fleet.resent()
        self._total = Total(options.dial_interval_us * 1000)
        self._since, self._began_s, self._began_at = fleet.tally(), time.monotonic(), utc_now()
        self._clock_offset_ns = time.time_ns() - time.monotonic_ns()
        self.periods: list[Summary] = []
        # A sample is drained one drain late, so a period is told one drain late, and is whole.
        self._start_period(self._began_s + _DRAIN_S)

    def _start_period(self, began_s: float) -> None:
        self._period_began_s, self._period_since = began_s, self._fleet.tally()
        self._period_began_at = utc_now()
        self._period_resent = self._fleet.resent()
        self._taken: list[Samples] = []
        self._untold: Counter[str] = Counter()
        self._shown = 0

    def dial(self) -> str | None:
        """Have the fleet dial until it is over; return the obituary of a worker that died."""
        options, fault = self._options, None
        try:
            for samples in self._fleet.round(options.duration_s, options.count, every_s=_DRAIN_S):
                self.take(samples)
                self.end_period_if_due()
                self.tell(samples)
        except SnatRaceError as died:
            fault = f"{died}; the totals up to then are right"
        self._fleet.stop()
        self.take(self._fleet.rest())
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
                self._target.remote_text,
                self._clock_offset_ns,
                MOST_FAILURES_SHOWN - self._shown,
            )
            self._shown += len(told)
            self._untold += others
            for failure in told:
                self._observer.failure(failure)

    def end_period_if_due(self) -> None:
        """Close the period once its time is up; look at the counters meanwhile."""
        self._beside.look()
        now_s, length_s = time.monotonic(), self._options.summary_interval_sec
        elapsed_s = now_s - self._period_began_s
        if elapsed_s + _DRAIN_S / 2 < length_s:
            return
        self._keep_period(elapsed_s)
        self._observer.period(self.periods[-1], self._untold, self._total.failed, self._total.recorded)
        self._start_period(now_s)

    def _keep_period(self, elapsed_s: float) -> None:
        counts = self._fleet.tally().since(self._period_since)._replace(cut_short=0)
        summary = period(np.concatenate(self._taken), counts, elapsed_s)
        update = {
            "began_at": self._period_began_at,
            "watched": self._beside.period(),
            "syn_resent": self._resent(self._period_resent),
        }
        self.periods.append(summary.model_copy(update=update))

    def tell(self, drained: list[Samples]) -> None:
        """Tell of every drain, for a live view."""
        self._observer.drained(time.monotonic() - self._began_s, drained, self._beside.total)

    def summary(self) -> Summary:
        """Derive the summary of the whole run, and keep what came after the last period; call it when
        the fleet has stopped.
        """
        now_s = time.monotonic()
        total = self._total.summary(self._fleet.tally().since(self._since), now_s - self._began_s)
        self._keep_period(now_s - (self._period_began_s if self.periods else self._began_s))
        return total.model_copy(
            update={
                "began_at": self._began_at,
                "watched": self._beside.total,
                "syn_resent": self._resent(self._resent_since),
            }
        )

    def _resent(self, earlier: list[int]) -> dict[str, int]:
        risen = [b - a for a, b in zip(earlier, self._fleet.resent(), strict=True)]
        return {str(times): count for times, count in enumerate(risen) if count}


def run(
    options: ClientOptions, target: Target, nodes: Sequence[Node], observer: Observer
) -> tuple[ClientResult, str | None]:
    """Dial until the duration or count is reached, or a signal comes; watch ``nodes`` meanwhile.

    Returns the result and, if a worker died, the obituary: the totals are right all the same.

    Raises:
        SnatRaceError: the workers did not start.
        Interrupted: a signal came before they had.

    """
    record = Record()
    translation = rules_for((node.namespace for node in nodes), target.source_ips)
    with Interrupt() as interrupt, Fleet(berths(options, target), interrupt) as fleet:
        nat = nat_of(translation, 0)
        head = Started(kind="client", **record.fields(), spec=options.spec(), nat=nat)
        observer.started(_opening(options, target), head)
        _warm_up(fleet, options.warmup_s, interrupt)
        beside = Beside(nodes, nat)
        state = _Run(options, target, fleet, beside, observer)
        fault = state.dial()
        summary = state.summary()
    result = ClientResult(
        **record.fields(),
        spec=options.spec(),
        summary=summary,
        periods=state.periods,
        kernel=beside.kernel(),
        nat=(nat := nat_of(translation, summary.attempted)),
        diagnosis=_causes(summary, beside.kernel(), nat),
    )
    return result, fault or beside.fault or None


def _warm_up(fleet: Fleet, duration_s: float | None, interrupt: Interrupt) -> None:
    if duration_s:
        deque(fleet.round(duration_s, every_s=_DRAIN_S), maxlen=0)
    if interrupt.requested:
        fleet.stop()
        fleet.rest()


def _causes(summary: Summary, kernel: Kernel, nat: Nat) -> list[Cause]:
    resent = lost_again(summary.syn_resent)
    return diagnose(summary.attempted, summary.errors, kernel, nat=nat, resent=resent)


def _opening(options: ClientOptions, target: Target) -> list[str]:
    """Say what the run will do; then each doubt about it, with advice."""
    low, high = options.source_ports
    if options.mode is Mode.rendezvous:
        how = f"in rendezvous each {options.dial_interval_us} us, ports {low}-{high}, {options.lanes} lanes"
    else:
        how = f"independent, each {options.dial_interval_us} us" if options.dial_interval_us else "flat out"
    lines = [f"Starting to dial {target.remote_text}, workers: {options.workers}, {how}"]
    cpus = len(target.cpus)
    if options.workers > cpus:
        lines.append(
            f"{options.workers} workers share {cpus} CPUs: they hinder each other, so fewer dials meet; "
            f"only clients with --lanes {options.lanes} meet them at all; use --workers {cpus}"
        )
    if options.mode is Mode.rendezvous and target.family == socket.AF_INET and not target.routed:
        lines.append(
            f"no router lies between this host and {target.remote_text}, so its SYNs pass no "
            "NAT and none is lost to the race; dial a server beyond the NAT"
        )
    return lines
