"""One run of ``watch``: a namespace's counters, period by period -> a result."""

import time
from collections.abc import Callable

from snat_race.analysis.candidate_causes import of_node
from snat_race.analysis.kept_periods import periods_of_watch
from snat_race.analysis.warnings import of_clock
from snat_race.errors import EnvironmentLacks
from snat_race.kernel import netns_lookup
from snat_race.kernel.counters import CounterReader
from snat_race.kernel.netns import Namespace
from snat_race.load.clock import ClockOffset
from snat_race.results.counters import CounterDelta
from snat_race.results.schema import Started, WatchResult
from snat_race.runs.counter_monitor import READING_INTERVAL_S, CounterMonitor, warnings_about
from snat_race.runs.nat_properties import nat_of, rules_for
from snat_race.runs.run_metadata import RunMetadata
from snat_race.runs.settings import WatchSettings
from snat_race.runs.signals import StopSignals

PeriodObserver = Callable[[CounterDelta], None]
StartObserver = Callable[[Started], None]


def run(
    settings: WatchSettings,
    reader: CounterReader,
    on_period: PeriodObserver,
    *,
    on_start: StartObserver = lambda _: None,
    realtime_ns: Callable[[], int] = time.time_ns,
) -> tuple[WatchResult, Exception | None]:
    """Watch until the duration is over, a signal comes, or nothing is left to watch.

    Args:
        settings: what the user asked for.
        reader: reads the counters.
        on_period: is called with each period as it ends, also with the last, cut short by a signal.
        on_start: is called once, before the first period.
        realtime_ns: reads CLOCK_REALTIME.

    Returns:
        The result, and what ended the watch before its time, if anything did: nothing is left to read,
        or a fault of this program.

    """
    metadata = RunMetadata()
    translation = rules_for([reader.namespace])
    nat = nat_of(translation, 0)
    warnings = [*warnings_about([reader]), *translation.warnings()]
    periods, clock = periods_of_watch(), ClockOffset(realtime_ns)
    with StopSignals() as stop:
        monitor = CounterMonitor([reader], nat, reads_own_tcp=False)
        began_s = time.monotonic()  # what comes before may take as long as a short watch
        on_start(
            Started(
                **metadata.fields(),
                kind="watch",
                spec=settings.spec(),
                nat=nat,
                counters_from=reader.read_from,
                warnings=warnings,
            )
        )
        over_s = began_s + (settings.duration_s or float("inf"))
        due_s = began_s
        ended: Exception | None = None
        while not (ended or stop.requested) and time.monotonic() < over_s:
            # After a pause, of the machine for example, no periods are made up for.
            due_s = max(due_s, time.monotonic() - settings.interval_s) + settings.interval_s
            _read_until(min(due_s, over_s), stop, monitor, reader.namespace)
            for period in monitor.end_period():
                periods.add(period)
                broken = _call(on_period, period)
                ended = ended or broken
            clock.update()
            ended = ended or _nothing_left(monitor, reader.namespace)
    result = WatchResult(
        **metadata.fields(),
        spec=settings.spec(),
        counters_from=reader.read_from,
        periods=periods.all(),
        total=next(iter(monitor.total), None),
        nat=nat,
        exhausted=monitor.exhausted_at_most,
        candidate_causes=of_node(monitor.kernel_counters(), nat),
        warnings=warnings + of_clock(clock.largest_step_ns),
    )
    return result, ended


def _call(on_period: PeriodObserver, period: CounterDelta) -> Exception | None:
    try:
        on_period(period)
    except Exception as broken:  # noqa: BLE001 - a fault of ours must not lose what was counted
        return broken
    return None


def _read_until(until_s: float, stop: StopSignals, monitor: CounterMonitor, namespace: Namespace) -> None:
    """Wait, and read the counters meanwhile: the shorter the time between readings, the more they tell.

    Return early on a signal, or when the namespace has ended.
    """
    while not stop.wait(min(until_s, time.monotonic() + READING_INTERVAL_S) - time.monotonic()):
        if time.monotonic() >= until_s or netns_lookup.has_ended(namespace):
            return
        monitor.read_if_due()


def _nothing_left(monitor: CounterMonitor, namespace: Namespace) -> EnvironmentLacks | None:
    """Return why the counters cannot be watched any more; None if they can."""
    if monitor.failure:
        return EnvironmentLacks(f"the counters could not be read any more ({monitor.failure.args[-1]})")
    if netns_lookup.has_ended(namespace):
        return EnvironmentLacks(f"the namespace {namespace.name} has ended ({namespace.path})")
    return None
