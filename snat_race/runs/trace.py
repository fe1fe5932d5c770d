"""One run of ``trace``: the SYNs of a namespace, drain by drain -> who lost the race to whom."""

import time
from typing import Protocol

from snat_race.analysis.candidate_causes import of_node
from snat_race.analysis.warnings import of_clock
from snat_race.errors import EnvironmentLacks
from snat_race.kernel import netns_lookup
from snat_race.kernel.counters import CounterReader
from snat_race.kernel.host import utc_now
from snat_race.kernel.routing import Routing
from snat_race.load.clock import ClockOffset
from snat_race.packets.tracer import Tracer
from snat_race.results.nat import Nat
from snat_race.results.schema import Started
from snat_race.results.trace import Loss, SentAgain, TracedPeriod, TraceResult
from snat_race.runs.counter_monitor import CounterMonitor, warnings_about
from snat_race.runs.loss_tally import LossTally
from snat_race.runs.nat_properties import nat_of, rules_for
from snat_race.runs.run_metadata import RunMetadata
from snat_race.runs.settings import TraceSettings
from snat_race.runs.signals import StopSignals

_DRAIN_INTERVAL_S = 0.2  # a loss is said this much later than it is certain
_COUNTERS_INTERVAL_S = 10.0  # what matters is how far they rose in all
_MOST_READINGS = 20  # of counters, for one between which nothing clashed
_NEVER_NS = 1 << 62
_PATIENCE_S = 5.0  # without any SYN, before somebody should look elsewhere


class TraceObserver(Protocol):
    """Whoever wants to know what happens as it happens."""

    def started(self, head: Started) -> None:
        """Note the beginning: SYNs are seen from now on."""

    def loss(self, loss: Loss) -> None:
        """Note a SYN that lost the race."""

    def sent_again(self, sent: SentAgain) -> None:
        """Note a lost SYN that was sent again, and left."""

    def period(self, period: TracedPeriod) -> None:
        """Note the end of an interval."""

    def nothing_seen(self) -> None:
        """Note, once, that no SYN has come in for some seconds since the beginning."""


def run(
    settings: TraceSettings, reader: CounterReader, observer: TraceObserver
) -> tuple[TraceResult, EnvironmentLacks | None]:
    """Trace until the duration is over, enough was lost, a signal comes, or the namespace is gone.

    Args:
        settings: what the user asked for.
        reader: reads the counters of the namespace, to compare them with what was lost.
        observer: is notified of everything.

    Returns:
        The result, and the error that ended the trace before its time; None if nothing did.

    Raises:
        EnvironmentLacks: packets cannot be read here.

    """
    metadata = RunMetadata()
    namespace = reader.namespace
    translation = rules_for([namespace])
    nat = nat_of(translation, 0)
    warnings = [*warnings_about([reader]), *translation.warnings()]
    routing = Routing(namespace)
    with namespace.entered():
        tracer = Tracer(routing.keeps, settings.ring_mib)
    with StopSignals() as stop, tracer:
        span = _Span(reader, nat)
        monitor = span.monitor
        tally = LossTally(routing.device_name, settings.to)
        trace = _Trace(settings, tracer, tally, span, observer)
        observer.started(
            Started(
                **metadata.fields(),
                kind="trace",
                spec=settings.spec(),
                nat=nat,
                counters_from=reader.read_from,
                warnings=warnings,
            )
        )
        over_s = time.monotonic() + (settings.duration_s or float("inf"))
        ended: EnvironmentLacks | None = None
        counters_due_s = time.monotonic() + _COUNTERS_INTERVAL_S
        while not (ended or stop.requested or trace.has_enough) and (now_s := time.monotonic()) < over_s:
            stop.wait(min(_DRAIN_INTERVAL_S, over_s - now_s))
            trace.drain()
            if now_s > counters_due_s:
                counters_due_s = now_s + _COUNTERS_INTERVAL_S
                monitor.read_if_due()
            if netns_lookup.has_ended(namespace):
                ended = EnvironmentLacks(f"the namespace {namespace.name} has ended")
        trace.finish()
    routing.close()
    result = TraceResult(
        **metadata.fields(),
        netns=namespace.name,
        spec=settings.spec(),
        syns=tally.syns,
        sent=tally.sent,
        lost=tally.lost,
        vanished=tally.vanished,
        unsure=tally.unsure,
        unknown=tracer.unknown,
        sightings=tracer.sightings,
        dropped=tracer.dropped,
        victims=tally.victims(),
        destinations=tally.destinations(),
        pairs=tally.pairs(),
        waited=tally.waited(),
        apart=tally.apart(),
        losses=list(tally.losses),
        counted=next(iter(monitor.total), None),
        candidate_causes=of_node(monitor.kernel_counters(), nat),
        warnings=warnings + of_clock(trace.clock.largest_step_ns),
    )
    return result, ended


class _Span:
    """The time in which clashes are counted: SYNs that began before it or after it are not.

    A reading of the counters takes about a millisecond. Where an entry clashes meanwhile, nobody knows on
    which side of the span's end that was. Then it is read again.

    Attributes:
        monitor: reads the counters.
        since_ns: when it began, CLOCK_REALTIME.
        until_ns: when it ended.

    """

    def __init__(self, reader: CounterReader, nat: Nat) -> None:
        self.until_ns = _NEVER_NS
        for _ in range(_MOST_READINGS):
            self.monitor = CounterMonitor([reader], nat, reads_own_tcp=False)
            self.since_ns = time.time_ns()
            if not self.clashes():
                break

    def clashes(self) -> int | None:
        """Return how many entries could not be inserted up to now, or up to the end; None: nobody knows."""
        if self.until_ns == _NEVER_NS:
            self.monitor.end_period()
        counted = next(iter(self.monitor.total), None)
        if self.monitor.failure or not counted or not counted.conntrack:
            return None
        return sum(counted.conntrack.insert_failed)

    def end(self) -> None:
        """Count nothing from now on."""
        for _ in range(_MOST_READINGS):
            clashes, until_ns = self.clashes(), time.time_ns()
            if self.clashes() == clashes:
                break
        self.until_ns = until_ns


class _Trace:
    """Drains, tallies and tells, from its beginning to its end."""

    def __init__(
        self,
        settings: TraceSettings,
        tracer: Tracer,
        tally: LossTally,
        span: _Span,
        observer: TraceObserver,
    ) -> None:
        self._settings = settings
        self._tracer = tracer
        self._span = span
        self._observer = observer
        self.tally = tally
        self.clock = ClockOffset()
        self._impatient_s = time.monotonic() + _PATIENCE_S
        self._begin_period()

    @property
    def has_enough(self) -> bool:
        """Whether as many SYNs were lost as the user wants to see."""
        return self._settings.count is not None and self.tally.lost >= self._settings.count

    def drain(self) -> None:
        """Take in what was seen since the last drain; end the interval if it is over."""
        if self.clock.update():
            self._tracer.forget()
            self._span.since_ns = time.time_ns()
        self._take(settle=False)
        if self.tally.syns:
            self._impatient_s = float("inf")
        elif time.monotonic() > self._impatient_s:
            self._impatient_s = float("inf")
            self._observer.nothing_seen()
        if time.monotonic() - self._period_began_s >= self._settings.interval_s:
            self._end_period()

    def finish(self) -> None:
        """Read the counters for the last time; take in what was on its way."""
        self._span.end()
        self._take(settle=True)
        self._end_period()

    def _take(self, *, settle: bool) -> None:
        judged = self._tracer.settle() if settle else self._tracer.drain()
        span = self._span
        for happened in self.tally.add(judged, span.since_ns, span.until_ns, span.clashes):
            if isinstance(happened, Loss):
                self._observer.loss(happened)
            else:
                self._observer.sent_again(happened)

    def _begin_period(self) -> None:
        self._period_began_at, self._period_began_s = utc_now(), time.monotonic()
        tally = self.tally
        self._before = (tally.syns, tally.lost, tally.vanished, self._tracer.dropped)

    def _end_period(self) -> None:
        tally = self.tally
        now = (tally.syns, tally.lost, tally.vanished, self._tracer.dropped)
        syns, lost, vanished, dropped = (
            after - before for after, before in zip(now, self._before, strict=True)
        )
        self._observer.period(
            TracedPeriod(
                began_at=self._period_began_at, syns=syns, lost=lost, vanished=vanished, dropped=dropped
            )
        )
        self._begin_period()
