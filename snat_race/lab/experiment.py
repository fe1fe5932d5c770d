"""One experiment: every variant in turns, on one testbed -> what was measured."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from snat_race.analysis.summary import PairedSlots, paired_slots
from snat_race.analysis.verdict import between_rounds, verdict_on
from snat_race.analysis.warnings import of_clock
from snat_race.errors import EnvironmentLacks, Interrupted, Unavailable
from snat_race.kernel import counters, host
from snat_race.kernel.host import utc_now
from snat_race.lab.measurement import Round, SweepMeasurement, VariantMeasurement, connected_in
from snat_race.lab.scenarios import Scenario, Serving
from snat_race.lab.settings import Caches, LabSettings
from snat_race.lab.testbed import Testbed
from snat_race.lab.variants import Variant
from snat_race.results.conclusions import MeasurementWarning, Verdict
from snat_race.results.schema import Summary, UnavailableVariant, VariantResult, Window

_LONGEST_ROUND_S = 0.5
_SLOTS_A_ROUND = 20  # at the least
_WARM_UP_S = 0.15  # a round that nobody counts, before all others
_DRAIN_INTERVAL_S = 0.1
# The acceptor works in batches, so it gets this long to catch up with what connected, if it accepts at all.
_CATCH_UP_S = 5.0
_CATCH_UP_POLL_S = 0.005
# How far a sweep reaches to either side. With cold caches SYNs take longer, and spread over more.
_SWEEP_NS = 10_000
_SWEEP_COLD_NS = 50_000
_FEWEST_SWEEPS = 8

Turn = tuple[VariantMeasurement | SweepMeasurement, float]
"""What is measured in one round, and for how many seconds."""


class Progress(Protocol):
    """Whoever wants to know how far the experiment is. It is called between rounds, when nobody dials."""

    def round_starts(self, done: float, name: str) -> None:
        """Note what is measured next; ``done``: the part of the experiment, 0 to 1, that is over."""

    def round_ended(self, name: str, summary: Summary) -> None:
        """Note what a round came to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """What an experiment came to."""

    # It ended before all rounds were run: by a signal, or by the fault.
    interrupted: bool
    # What ended it, if no signal did: a worker died, for example.
    fault: Exception | None
    # The variants in the order asked for, the baseline first.
    variants: list[VariantResult]
    # Those that could not be loaded here, or not be measured any more, and why.
    unavailable: list[UnavailableVariant]
    # The verdict on the baseline, and how far the others help.
    verdict: Verdict
    # The race window of the baseline; None if it was not wanted, or no dials met.
    window: Window | None
    # What was noticed on the way: that the clock was set.
    warnings: list[MeasurementWarning]


class RoundRunner:
    """Runs one round at a time on a testbed."""

    def __init__(self, settings: LabSettings, testbed: Testbed, cancelled: Callable[[], bool]) -> None:
        self._interval_ns = settings.interval_us * 1000
        self._testbed = testbed
        self._cancelled = cancelled

    def run(
        self, variant: Variant, duration_s: float, *, sweep_ns: int = 0, check_translation: bool = False
    ) -> Round | None:
        """Load a variant and let all dialers dial; None if the round was interrupted.

        Args:
            variant: the rule to measure.
            duration_s: for how long.
            sweep_ns: how far to either side one dialer of each lane moves; 0: none does.
            check_translation: look afterwards whether the rule translated anything.

        Raises:
            SnatRaceError: a worker died.

        """
        testbed, pool = self._testbed, self._testbed.pool
        testbed.variant_loader.load(variant)
        testbed.clear_last_round()
        if testbed.tracer:
            testbed.tracer.drain()  # what was seen since the last round is of no round
        began_at, began_s = utc_now(), time.monotonic()
        counters_before = testbed.read_counters()
        counts_before = pool.counts()
        accepted_before = testbed.server.accepted
        drains = pool.round(duration_s, every_s=_DRAIN_INTERVAL_S, sweep_ns=sweep_ns)
        samples = [part for drain in drains for part in drain]
        testbed.server.require_alive()
        if self._cancelled():
            return None
        elapsed_s = time.monotonic() - began_s
        met = paired_slots(samples, self._interval_ns) if testbed.scenario.rendezvous else None
        accepts = testbed.scenario.serving is not Serving.never_accept
        expected = connected_in(samples) if accepts else 0
        accepted = self._accepted_since(accepted_before, expected=expected)
        counts = pool.counts().since(counts_before)
        translated = counters.any_translated(testbed.topology.source) if check_translation else None
        counters_now = testbed.read_counters()
        proven = int(testbed.tracer.settle().raced.sum()) if testbed.tracer else None
        return Round(
            began_at=began_at,
            elapsed_s=elapsed_s,
            samples=samples,
            counts=counts,
            accepted=accepted,
            counters=[now.since(counters_before[name], netns=name) for name, now in counters_now.items()],
            meetings=met,
            offsets_ns=self._offsets_ns(met, sweep_ns) if sweep_ns and met else None,
            translated=translated,
            proven=proven,
        )

    def _accepted_since(self, earlier: int, *, expected: int) -> int:
        """Return how many connections were accepted since; wait for those that are expected."""
        server, deadline_s = self._testbed.server, time.monotonic() + _CATCH_UP_S
        while server.accepted - earlier < expected and time.monotonic() < deadline_s:
            time.sleep(_CATCH_UP_POLL_S)
        return server.accepted - earlier

    def _offsets_ns(self, met: PairedSlots, sweep_ns: int) -> NDArray[np.int64]:
        """Return how far the second dial of each meeting was moved, from the first, in ns."""
        schedules = [placement.config.schedule for placement in self._testbed.placements]
        moving = {schedule.lane: schedule for schedule in schedules if schedule and schedule.sweeps}
        number = self._testbed.pool.round_number
        offsets = []
        for port in met.ports.tolist():
            lane = moving[0].lane_of(port, number)
            offsets.append(moving[lane].swept_ns(port, number, sweep_ns))
        return np.array(offsets, np.int64)


def run(
    settings: LabSettings,
    scenario: Scenario,
    variants: Sequence[Variant],
    progress: Progress,
    cancelled: Callable[[], bool],
) -> Measurements:
    """Measure every variant in interleaved rounds: A B B A A B B A.

    Drift of the machine then hits all variants alike. An interrupt or a fault ends the run after the
    rounds that are complete, and these count.

    Raises:
        EnvironmentLacks: no privilege, or a kernel feature is missing.
        Interrupted: a signal came before the first rule had had a round.
        SnatRaceError: a worker died before that.
        UsageError: a rule of the user's was refused.

    """
    with Testbed(settings, scenario, cancelled) as testbed:
        available, unavailable = _loadable(testbed, variants)
        testbed.set_up_source()
        interval_ns = settings.interval_us * 1000
        measurements = [VariantMeasurement(variant, interval_ns) for variant in available]
        sweep = SweepMeasurement(available[0], _sweep_ns(settings)) if settings.window_s else None
        turns = _interleaved(measurements, settings) + (_sweeps(sweep, settings) if sweep else [])
        runner = RoundRunner(settings, testbed, cancelled)
        fault: Exception | None = None
        complete = False
        try:
            complete = _run_turns(runner, turns, progress)
        except Exception as failed:  # a fault of ours too must not lose what was measured
            if not measurements[0].periods:
                raise
            fault = failed
    if not measurements[0].periods:
        raise Interrupted("interrupted before the first rule had been measured; there is nothing to report")
    measured = [measurement for measurement in measurements if measurement.periods]
    unavailable += [
        UnavailableVariant(name=measurement.name, reason="the run ended before it was measured")
        for measurement in measurements
        if not measurement.periods
    ]
    cpus = len(settings.cpus or host.usable_cpus())
    spread = between_rounds(measurement.rounds for measurement in measured)
    results = [measurement.result(testbed, spread=spread, cpus=cpus) for measurement in measured]
    return Measurements(
        interrupted=not complete,
        fault=fault,
        variants=results,
        unavailable=unavailable,
        verdict=verdict_on(results),
        window=sweep.window(settings.caches.value) if sweep else None,
        warnings=of_clock(testbed.pool.clock.largest_step_ns),
    )


def _loadable(
    testbed: Testbed, variants: Sequence[Variant]
) -> tuple[list[Variant], list[UnavailableVariant]]:
    """Load every variant once; return those that can be loaded, and why the others cannot.

    Raises:
        EnvironmentLacks: none can.
        UsageError: a rule of the user's was refused.

    """
    available, unavailable = [], []
    for variant in variants:
        try:
            testbed.require_possible(variant)
            testbed.variant_loader.load(variant)
            available.append(variant)
        except Unavailable as refused:
            unavailable.append(UnavailableVariant(name=variant.name, reason=str(refused)))
    if not available:
        raise EnvironmentLacks("no rule can be measured here: " + unavailable[0].reason)
    return available, unavailable


def _run_turns(runner: RoundRunner, turns: Sequence[Turn], progress: Progress) -> bool:
    """Warm up, then run all rounds; return whether all were run."""
    first, _ = turns[0]
    if runner.run(first.variant, _WARM_UP_S) is None:
        return False
    total_s = sum(duration_s for _, duration_s in turns)
    done_s = 0.0
    for measurement, duration_s in turns:
        progress.round_starts(done_s / total_s, measurement.name)
        measured = runner.run(
            measurement.variant,
            duration_s,
            sweep_ns=measurement.sweep_ns,
            check_translation=measurement.needs_translation_check,
        )
        if measured is None:
            return False
        measurement.add(measured)
        progress.round_ended(measurement.name, measured.summary)
        done_s += duration_s
    return True


def _interleaved(measurements: Sequence[VariantMeasurement], settings: LabSettings) -> list[Turn]:
    """Return the rounds of all variants, every other time in reverse order."""
    rounds = _rounds_each(settings, len(measurements))
    turns: list[Turn] = []
    for number in range(rounds):
        order = measurements if number % 2 == 0 else measurements[::-1]
        turns += [(measurement, settings.duration_s / rounds) for measurement in order]
    return turns


def _rounds_each(settings: LabSettings, variants: int) -> int:
    """Return how many rounds each variant has: enough of all to see how far they drift."""
    wanted = max(round(settings.duration_s / _LONGEST_ROUND_S), min(8, 16 // variants), 4)
    possible = settings.duration_s * 1e6 / (_SLOTS_A_ROUND * settings.interval_us)
    return max(2, min(wanted, int(possible)))


def _sweep_ns(settings: LabSettings) -> int:
    return _SWEEP_COLD_NS if settings.caches is Caches.cold else _SWEEP_NS


def _sweeps(sweep: SweepMeasurement, settings: LabSettings) -> list[Turn]:
    """Return the rounds of the sweep, which come after all others."""
    rounds = max(_FEWEST_SWEEPS, round(settings.window_s / _LONGEST_ROUND_S))
    return [(sweep, settings.window_s / rounds)] * rounds
