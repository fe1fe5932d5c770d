"""One experiment: topology + fleet + counters -> a result per variant."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from snat_race import __version__
from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.result import ConntrackRise, Kernel, LabResult, Tool, VariantResult
from snat_race.analysis.summary import NO_PAIRS, Pairs, Total, pair_up
from snat_race.analysis.verdict import judge
from snat_race.errors import EnvironmentLacks, Interrupted
from snat_race.interrupt import Interrupt
from snat_race.kernel import counters, host, nat
from snat_race.kernel.namespaces import enter_sandbox
from snat_race.kernel.topology import DESTINATION_IP, SUBNET, Topology, build_bridge
from snat_race.load.dialer import DialPlan
from snat_race.load.endpoint import Endpoint
from snat_race.load.fleet import NO_DIALS, Berth, Fleet, Tally
from snat_race.load.listener import Server
from snat_race.load.pace import Readiness
from snat_race.load.schedule import Schedule
from snat_race.options import LabOptions

_PORT = 8080
_SOURCE_PORTS = (20000, 59999)
_ROUND_S = 0.5
_SLOTS_A_ROUND = 20
_WARM_UP_S = 0.15
_DRAIN_S = 0.1
_BATCH_MS = 20
_CATCH_UP_S = 0.5
_DITHER_NS = 1000
_REHEARSALS = 4

Progress = Callable[[float, str], None]


@dataclass(slots=True)
class _Measured:
    """What the rounds of one variant have added up to."""

    variant: nat.Variant
    total: Total
    tally: Tally = NO_DIALS
    pairs: Pairs = NO_PAIRS
    accepted: int = 0
    elapsed_s: float = 0.0
    rises: dict[str, counters.Reading] = field(default_factory=dict)
    fill: tuple[int, int] = (0, 0)

    def result(self) -> VariantResult:
        """Derive the variant's part of the result."""
        summary = self.total.summary(self.tally, self.elapsed_s, self.pairs)
        kernel = Kernel(
            source=ConntrackRise(**self.rises["source"], count=self.fill[0], max=self.fill[1]),
            destination=_risen(self.rises["destination"]),
            containers=_risen(self.rises["containers"]),
        )
        return VariantResult(
            name=self.variant.name,
            rule=self.variant.rule,
            accepted=self.accepted,
            summary=summary,
            kernel=kernel,
            diagnosis=diagnose(
                summary.attempted, summary.errors, kernel, randomised=bool(self.variant.flags)
            ),
        )


class _Lab:
    """The lab's hosts and workers, up and waiting. A context manager."""

    def __init__(self, options: LabOptions, interrupt: Interrupt) -> None:
        self._options, self._interrupt = options, interrupt
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            enter_sandbox()
            try:
                self._topology = build_bridge(self._options.containers)
            except OSError as failed:
                raise EnvironmentLacks(
                    f"cannot make the lab's namespaces ({failed.strerror}); use fewer --containers, "
                    "or raise ulimit -n and user.max_net_namespaces"
                ) from failed
            with self._topology.destination.entered():
                server = Server(Endpoint(DESTINATION_IP, _PORT, _PORT), [None], batch_ms=_BATCH_MS)
                self._server = stack.enter_context(server)
            self._fleet = stack.enter_context(
                Fleet(_berths(self._options, self._topology), self._interrupt)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, into: _Measured, duration_s: float) -> bool:
        """Run one round and add it up; False, and nothing added, if it was interrupted."""
        fleet, source = self._fleet, self._topology.source
        nat.install(into.variant, source, SUBNET)
        counters.flush_conntrack(source)
        before, tally, accepted = self._read(), fleet.tally(), self._server.accepted
        began_s = time.monotonic()
        drained = fleet.round(duration_s, every_s=_DRAIN_S)
        samples = [taken for each in drained for taken in each]
        self._server.require_alive()
        if self._interrupt.requested:
            return False
        into.elapsed_s += time.monotonic() - began_s
        pairs = pair_up(samples, self._options.interval_us * 1000)
        into.pairs = Pairs(*map(sum, zip(into.pairs, pairs, strict=True)))
        connected = into.total.recorded - into.total.failed
        for taken in samples:
            into.total.add(taken)
        connected = into.total.recorded - into.total.failed - connected
        into.accepted += self._accepted_since(accepted, connected)
        into.tally = into.tally.plus(fleet.tally().since(tally))
        into.fill = counters.read_fill(source)
        after = self._read()
        for name, reading in after.items():
            risen = counters.rise(reading, before[name])
            into.rises[name] = counters.total([into.rises.get(name, {}), risen])
        return True

    def _accepted_since(self, earlier: int, expected: int) -> int:
        """Return how many connections were accepted; the acceptor works in batches, so give it
        time to catch up.
        """
        deadline = time.monotonic() + _CATCH_UP_S
        while self._server.accepted - earlier < expected and time.monotonic() < deadline:
            time.sleep(_BATCH_MS / 4000)
        return self._server.accepted - earlier

    def _read(self) -> dict[str, counters.Reading]:
        hosts = self._topology
        return {
            "source": counters.read_conntrack(hosts.source),
            "destination": counters.read_tcp(hosts.destination),
            "containers": counters.total(counters.read_tcp(each) for each in hosts.containers),
        }


def run(options: LabOptions, progress: Progress) -> LabResult:
    """Measure every variant in interleaved rounds: A B B A A B B A.

    Drift of the machine then hits all variants alike. An interrupt ends the run after the rounds
    that are complete.

    Raises:
        EnvironmentLacks: no privilege, or a kernel feature is missing.
        Interrupted: a signal came before every rule had had a round.
        SnatRaceError: a worker died.

    """
    started_at, began_s = datetime.now(UTC), time.monotonic()
    environment = host.environment()
    variants = [nat.VARIANTS[name] for name in options.variants]
    measured = [_Measured(variant, Total(options.interval_us * 1000)) for variant in variants]
    rounds = max(2, round(options.duration_s / max(_ROUND_S, _SLOTS_A_ROUND * options.interval_us / 1e6)))
    order = [each for number in range(rounds) for each in (measured[::-1] if number % 2 else measured)]
    round_s = options.duration_s / rounds
    with Interrupt() as interrupt, _Lab(options, interrupt) as lab:
        rehearsal = _Measured(variants[0], Total(0))
        going = lab.measure(rehearsal, _WARM_UP_S)
        for done, each in enumerate(order):
            if not going:
                break
            progress(done / len(order), each.variant.name)
            going = lab.measure(each, round_s)
    if not all(each.rises for each in measured):
        raise Interrupted("interrupted before every rule had been measured; there is nothing to report")
    results = [each.result() for each in measured]
    return LabResult(
        tool=Tool(version=__version__),
        started_at=started_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        elapsed_s=round(time.monotonic() - began_s, 3),
        interrupted=not going,
        environment=environment,
        spec=options.spec(),
        variants=results,
        verdict=judge(results, len(environment["usable_cpus"])),
    )


def _berths(options: LabOptions, topology: Topology) -> list[Berth]:
    """Spread the workers over the CPUs, those of one lane on neighbouring ones."""
    cpus = host.usable_cpus()
    crowded = options.workers * options.containers > len(cpus)
    low, high = _SOURCE_PORTS
    interval_ns = options.interval_us * 1000
    berths = []
    for lane in range(options.workers):
        for index, container in enumerate(topology.containers):
            worker = lane * options.containers + index
            plan = DialPlan(
                family=socket.AF_INET,
                remote=(DESTINATION_IP, _PORT),
                local_ip=topology.container_ip(index),
                timeout_ms=options.timeout_ms,
                reset=True,
                interval_us=options.interval_us,
                schedule=Schedule(interval_ns, low, high, options.workers, lane, worker, _DITHER_NS),
                readiness=Readiness(0, 1) if crowded else Readiness(interval_ns, _REHEARSALS),
            )
            berths.append(Berth(plan, cpus[worker % len(cpus)], container.enter))
    return berths


def _risen(reading: counters.Reading) -> dict[str, int]:
    return {name: values[0] for name, values in reading.items() if values[0] > 0}
