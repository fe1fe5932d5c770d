"""One run of ``client``: fleet -> drains -> periods -> a result."""

import socket
import time
from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np

from snat_race import __version__
from snat_race.analysis.result import ClientResult, Summary, Tool
from snat_race.analysis.summary import Failure, Samples, Total, failures, period
from snat_race.errors import SnatRaceError, UsageError
from snat_race.interrupt import Interrupt
from snat_race.kernel import host
from snat_race.load.dialer import DialPlan
from snat_race.load.endpoint import (
    Endpoint,
    SocketAddress,
    behind_router,
    require_local,
    resolve,
    source_ip,
)
from snat_race.load.fleet import Berth, Fleet
from snat_race.load.pace import AS_IT_IS, Readiness
from snat_race.load.schedule import Schedule
from snat_race.options import ClientOptions, Close, Mode

_DRAIN_S = 0.2
_LONGEST_SPIN_NS = 2_000_000
_SPIN_SHARE = 4  # workers that share a CPU spin for at most a quarter of its time
_DITHER_NS = 1000
_REHEARSALS = 4
MOST_FAILURES_SHOWN = 10


class Observer(Protocol):
    """Who is told of the run's findings as they come."""

    def started(self, lines: list[str]) -> None:
        """Note that workers are ready: what they will do, then doubts about it."""

    def failure(self, failure: Failure) -> None:
        """Note a failed dial; only the first few of each period are told."""

    def period(self, summary: Summary, untold: Counter[str], failed: int, total: int) -> None:
        """Note the end of a period; ``untold`` counts its other failures."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the client dials, from where, on which CPUs."""

    family: int
    remote: SocketAddress
    remote_text: str
    source_ips: tuple[str, ...]
    cpus: tuple[int, ...]
    routed: bool


def locate(options: ClientOptions) -> Target:
    """Resolve and check the addresses.

    Raises:
        UsageError: unknown host, or a local IP that is not ours.

    """
    endpoint = Endpoint.parse(options.remote_addr, "--remote-addr", "127.0.0.1")
    if endpoint.high > endpoint.low:
        raise UsageError(f"--remote-addr: {endpoint} is a range; dial one port")
    family, remote = resolve(endpoint, "--remote-addr")
    for ip in options.local_ips:
        require_local(ip, family, "--local-ip")
    return Target(
        family=family,
        remote=remote,
        remote_text=str(Endpoint(remote[0], remote[1], remote[1])),
        source_ips=options.local_ips or (source_ip(family, remote),),
        cpus=tuple(host.usable_cpus()),
        routed=behind_router(family, remote),
    )


class _Run:
    """The accumulating state of one run."""

    def __init__(self, options: ClientOptions, target: Target, fleet: Fleet, observer: Observer) -> None:
        self._options, self._target, self._fleet, self._observer = options, target, fleet, observer
        self._total = Total(options.dial_interval_us * 1000)
        self._since, self._began_s = fleet.tally(), time.monotonic()
        self._clock_offset_ns = time.time_ns() - time.monotonic_ns()
        self.periods: list[Summary] = []
        # A sample is drained one drain late, so a period is told one drain late, and is whole.
        self._start_period(self._began_s + _DRAIN_S)

    def _start_period(self, began_s: float) -> None:
        self._period_began_s, self._period_since = began_s, self._fleet.tally()
        self._taken: list[Samples] = []
        self._untold: Counter[str] = Counter()
        self._shown = 0

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
        """Close the period once its time is up."""
        now_s, length_s = time.monotonic(), self._options.summary_interval_sec
        elapsed_s = now_s - self._period_began_s
        if elapsed_s + _DRAIN_S / 2 < length_s:
            return
        counts = self._fleet.tally().since(self._period_since)._replace(cut_short=0)
        summary = period(np.concatenate(self._taken), counts, elapsed_s)
        self.periods.append(summary)
        self._observer.period(summary, self._untold, self._total.failed, self._total.recorded)
        self._start_period(now_s)

    def summary(self) -> Summary:
        """Derive the summary of the whole run; call it when the fleet has stopped."""
        elapsed_s = time.monotonic() - self._began_s
        return self._total.summary(self._fleet.tally().since(self._since), elapsed_s)


def run(options: ClientOptions, target: Target, observer: Observer) -> tuple[ClientResult, str | None]:
    """Dial until the duration or count is reached, or a signal comes.

    Returns the result and, if a worker died, the obituary: the totals are right all the same.

    Raises:
        SnatRaceError: the workers did not start.
        Interrupted: a signal came before they had.

    """
    environment, started_at, began_s = host.environment(), datetime.now(UTC), time.monotonic()
    fault = None
    with Interrupt() as interrupt, Fleet(berths(options, target), interrupt) as fleet:
        observer.started(_opening(options, target))
        if options.warmup_s:
            deque(fleet.round(options.warmup_s, every_s=_DRAIN_S), maxlen=0)
        if interrupt.requested:
            fleet.stop()
            fleet.rest()
        state = _Run(options, target, fleet, observer)
        try:
            for samples in fleet.round(options.duration_s, options.count, every_s=_DRAIN_S):
                state.take(samples)
                state.end_period_if_due()
        except SnatRaceError as died:
            fault = f"{died}; the totals up to then are right"
        fleet.stop()
        state.take(fleet.rest())
        summary = state.summary()
    result = ClientResult(
        tool=Tool(version=__version__),
        started_at=started_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        elapsed_s=round(time.monotonic() - began_s, 3),
        environment=environment,
        spec=options.spec(),
        summary=summary,
        periods=state.periods,
    )
    return result, fault


def berths(options: ClientOptions, target: Target) -> list[Berth]:
    """Plan every worker: its address and lane, its CPU, how long it stays awake for a slot.

    Worker *i* gets the *i*-th usable CPU. Two containers must not put the same lane on the same
    CPU, where the two dials could never be simultaneous, so beyond a router each begins to count
    at a CPU that its address selects.
    """
    cpus = target.cpus
    first = _number(target.family, target.source_ips[0]) if target.routed else 0
    return [
        Berth(_plan(options, target, i), cpus[(first + i) % len(cpus)] if options.pin else None)
        for i in range(options.workers)
    ]


def _plan(options: ClientOptions, target: Target, worker: int) -> DialPlan:
    interval_ns = options.dial_interval_us * 1000
    sharing = -(-options.workers // len(target.cpus))
    schedule, readiness = None, AS_IT_IS
    if options.mode is Mode.rendezvous:
        ip = target.source_ips[worker % len(target.source_ips)]
        lane = worker // len(target.source_ips)
        seed = _number(target.family, ip) + (lane << 32)
        low, high = options.source_ports
        schedule = Schedule(interval_ns, low, high, options.lanes, lane, seed, _DITHER_NS)
        rehearsals = (_REHEARSALS if sharing == 1 else 1) if target.routed else 0
        spin_ns = min(_LONGEST_SPIN_NS, interval_ns // (_SPIN_SHARE * sharing))
        readiness = Readiness(spin_ns, rehearsals)
    return DialPlan(
        family=target.family,
        remote=target.remote,
        local_ip=options.local_ips[worker % len(options.local_ips)] if options.local_ips else None,
        timeout_ms=options.timeout_ms,
        reset=options.close is Close.rst,
        interval_us=options.dial_interval_us,
        schedule=schedule,
        readiness=readiness,
    )


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
            f"use --workers {cpus}"
        )
    if options.mode is Mode.rendezvous and target.family == socket.AF_INET and not target.routed:
        lines.append(
            f"no router lies between this host and {target.remote_text}, so no NAT but this host's own; "
            "dial a server beyond the NAT"
        )
    return lines


def _number(family: int, ip: str) -> int:
    """Return the source address as a number: what tells two containers apart."""
    return 0 if ip == "*" else int.from_bytes(socket.inet_pton(family, ip))
