"""One experiment: every variant in turns, on one testbed -> a result."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from snat_race.analysis.race_window import Sweep
from snat_race.analysis.summary import Circumstances, Meetings, Total, meetings, period
from snat_race.analysis.verdict import between_rounds, verdict_on
from snat_race.errors import EnvironmentLacks, Interrupted, Unavailable
from snat_race.kernel import counters, host
from snat_race.kernel.host import utc_now
from snat_race.lab.measurement import VariantMeasurement
from snat_race.lab.scenarios import Scenario
from snat_race.lab.settings import Caches, LabSettings
from snat_race.lab.testbed import Testbed
from snat_race.lab.variants import Variant
from snat_race.results.conclusions import Verdict
from snat_race.results.schema import Summary, UnavailableVariant, VariantResult, Window

_LONGEST_ROUND_S = 0.5
_SLOTS_A_ROUND = 20
_WARM_UP_S = 0.15
_DRAIN_S = 0.1
_CATCH_UP_S = 0.5
_CATCH_UP_POLL_S = 0.005
_SWEEP_NS, _SWEEP_COLD_NS = 10_000, 50_000


class Progress(Protocol):
    """Who is told how far the experiment is; between rounds, when nobody dials."""

    def measuring(self, share: float, name: str) -> None:
        """Note what is measured next; ``share`` of all is done."""

    def measured(self, name: str, summary: Summary) -> None:
        """Note what a round came to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What an experiment came to: the fields of a result that are not of the run."""

    interrupted: bool
    variants: list[VariantResult]
    unavailable: list[UnavailableVariant]
    verdict: Verdict
    window: Window | None


class _Bench:
    """Runs rounds on a testbed and adds them up."""

    def __init__(self, settings: LabSettings, testbed: Testbed, cancelled: Callable[[], bool]) -> None:
        self._settings, self._testbed, self._cancelled = settings, testbed, cancelled

    def measure(self, into: VariantMeasurement, duration_s: float) -> bool:
        """Run one round and add it up; False, and nothing added, if it was interrupted."""
        testbed, pool, source = self._testbed, self._testbed.pool, self._testbed.topology.source
        testbed.variant_loader.load(into.variant)
        testbed.forget()
        began_at, began_s = utc_now(), time.monotonic()
        before, tally, accepted = testbed.read(), pool.counts(), testbed.server.accepted
        drained = pool.round(duration_s, every_s=_DRAIN_S, sweep_ns=into.sweep_ns)
        samples = [taken for each in drained for taken in each]
        testbed.server.require_alive()
        if self._cancelled():
            return False
        elapsed_s = time.monotonic() - began_s
        met = meetings(samples, self._settings.interval_us * 1000)
        if into.sweep:
            into.sweep.add(self._offsets_ns(met, into.sweep_ns), met.losers > 0)
        connected = into.total.recorded - into.total.failed
        for taken in samples:
            into.total.add(taken)
        connected = into.total.recorded - into.total.failed - connected
        into.accepted += self._accepted_since(accepted, connected)
        counted = pool.counts().since(tally)
        into.tally = into.tally.plus(counted)
        if into.variant.command and not into.translated:
            into.translated = counters.any_translated(source)
        risen = [now.since(before[name], netns=name) for name, now in testbed.read().items()]
        circumstances = Circumstances(
            elapsed_s=elapsed_s,
            began_at=began_at,
            pairs=met.pairs if testbed.scenario.rendezvous else None,
            counters=risen,
        )
        into.periods.append(period(np.concatenate(samples), counted, circumstances))
        return True

    def _offsets_ns(self, met: Meetings, sweep_ns: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return the offset between the two dials of each pair."""
        schedules = [placement.config.schedule for placement in self._testbed.placements]
        moving = {each.lane: each for each in schedules if each and each.sweeps}
        number = self._testbed.pool.round_number
        first = moving[0]
        offsets = [
            moving[first.lane_of(port, number)].swept_ns(port, number, sweep_ns)
            for port in met.ports.tolist()
        ]
        return np.array(offsets, np.int64)

    def _accepted_since(self, earlier: int, expected: int) -> int:
        """Return how many connections were accepted; the acceptor works in batches, so give it
        time to catch up.
        """
        server, deadline = self._testbed.server, time.monotonic() + _CATCH_UP_S
        while server.accepted - earlier < expected and time.monotonic() < deadline:
            time.sleep(_CATCH_UP_POLL_S)
        return server.accepted - earlier


def run(
    settings: LabSettings,
    scenario: Scenario,
    variants: Sequence[Variant],
    progress: Progress,
    cancelled: Callable[[], bool],
) -> Outcome:
    """Measure every variant in interleaved rounds: A B B A A B B A.

    Drift of the machine then hits all variants alike. An interrupt ends the run after the rounds
    that are complete.

    Raises:
        EnvironmentLacks: no privilege, or a kernel feature is missing.
        Interrupted: a signal came before every rule had had a round.
        SnatRaceError: a worker died.
        UsageError: a rule of the user's was refused.

    """
    with Testbed(settings, scenario, cancelled) as testbed:
        available, unavailable = _loadable(testbed, variants)
        testbed.set_up_source()
        measured = [
            VariantMeasurement(variant, Total(settings.interval_us * 1000)) for variant in available
        ]
        going = _run_rounds(_Bench(settings, testbed, cancelled), settings, measured, progress)
    swept = measured.pop() if measured[-1].sweep else None
    if not all(each.periods for each in measured):
        raise Interrupted("interrupted before every rule had been measured; there is nothing to report")
    cpus = len(settings.cpus or host.usable_cpus())
    spread = between_rounds(each.rounds for each in measured)
    results = [each.result(testbed, spread, cpus) for each in measured]
    return Outcome(
        interrupted=not going,
        variants=results,
        unavailable=unavailable,
        verdict=verdict_on(results),
        window=swept.window(settings.caches.value) if swept else None,
    )


def _loadable(
    testbed: Testbed, variants: Sequence[Variant]
) -> tuple[list[Variant], list[UnavailableVariant]]:
    """Load every variant once; return those that can be, and why the others cannot."""
    available, unavailable = [], []
    for variant in variants:
        try:
            testbed.require_trackable(variant)
            testbed.variant_loader.load(variant)
            available.append(variant)
        except Unavailable as refused:
            unavailable.append(UnavailableVariant(name=variant.name, reason=str(refused)))
    if not available:
        raise EnvironmentLacks("no rule can be measured here: " + unavailable[0].reason)
    return available, unavailable


def _run_rounds(
    bench: _Bench, settings: LabSettings, measured: list[VariantMeasurement], progress: Progress
) -> bool:
    """Warm up, then run all rounds; whether they were all run. A sweep is put last in the list."""
    rounds = _rounds(settings, len(measured))
    turns = [
        (each, settings.duration_s / rounds) for n in range(rounds) for each in measured[:: 1 - n % 2 * 2]
    ]
    first = measured[0].variant
    if settings.window_s:
        sweep_ns = _SWEEP_COLD_NS if settings.caches is Caches.cold else _SWEEP_NS
        measured.append(VariantMeasurement(first, Total(0), Sweep(sweep_ns), sweep_ns))
        sweeps = max(8, round(settings.window_s / _LONGEST_ROUND_S))
        turns += [(measured[-1], settings.window_s / sweeps)] * sweeps
    total_s = sum(duration_s for _, duration_s in turns)
    going, done_s = bench.measure(VariantMeasurement(first, Total(0)), _WARM_UP_S), 0.0
    for each, duration_s in turns:
        if not going:
            break
        name = f"{each.variant.name}{', swept' if each.sweep else ''}"
        progress.measuring(done_s / total_s, name)
        if going := bench.measure(each, duration_s):
            progress.measured(name, each.periods[-1])
        done_s += duration_s
    return going


def _rounds(settings: LabSettings, variants: int) -> int:
    """Return how many rounds each variant has: enough of all to see how far they drift."""
    wanted = max(round(settings.duration_s / _LONGEST_ROUND_S), min(8, 16 // variants), 4)
    possible = settings.duration_s * 1e6 / (_SLOTS_A_ROUND * settings.interval_us)
    return max(2, min(wanted, int(possible)))
