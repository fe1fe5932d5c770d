"""CLOCK_REALTIME may be set during a run; here it is set on paper, not on this machine."""

import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snat_race.analysis import warnings
from snat_race.kernel import netns_lookup
from snat_race.kernel.counters import CounterReader
from snat_race.lab import testbed
from snat_race.lab.scenarios import SCENARIOS
from snat_race.lab.settings import Backend, Caches, LabSettings, Wiring
from snat_race.lab.variants import variant_named
from snat_race.load.clock import ClockOffset, OffsetReading, read_offset
from snat_race.load.dialer_config import UNPREPARED
from snat_race.load.dialer_pool import DialerPool
from snat_race.load.pacers import RendezvousPacer
from snat_race.load.round_control import RoundControl
from snat_race.load.schedule import Schedule
from snat_race.load.worker_state import WorkerState
from snat_race.report.registry import document
from snat_race.report.renderers.text import text
from snat_race.report.wording import warnings as wording
from snat_race.results.conclusions import WarningKind
from snat_race.results.schema import ClientResult, LabResult, WatchResult
from snat_race.runs import client, lab, watch
from snat_race.runs.settings import ClientSettings, Close, Mode, WatchSettings
from snat_race.runs.worker_placement import find_remote, find_target
from tests.conftest import PRIVATE, SOON_S, TWO_CPUS, in_fork, in_sandbox
from tests.interruptions import stepping_clock

MS = 1_000_000
HOUR_NS = 3600 * 1000 * MS


@pytest.mark.parametrize(
    ("steps_ns", "largest_ns"),
    [
        ([], 0),
        ([0, 0], 0),
        ([49 * MS], 0),
        ([51 * MS], 51 * MS),
        ([51 * MS, 0, 0], 51 * MS),
        ([-HOUR_NS], -HOUR_NS),
        ([60 * MS, -100 * MS, 0], -100 * MS),  # the largest of two
        ([-100 * MS, 60 * MS], -100 * MS),
    ],
)
def test_the_largest_step_is_kept(steps_ns: list[int], largest_ns: int) -> None:
    set_to_ns = [0]
    clock = ClockOffset(lambda: time.time_ns() + set_to_ns[0])
    before_ns = clock.offset_ns
    for step_ns in steps_ns:
        set_to_ns[0] += step_ns
        assert clock.update() == pytest.approx(step_ns, abs=MS)
    assert clock.largest_step_ns == pytest.approx(largest_ns, abs=MS)
    assert clock.offset_ns - before_ns == pytest.approx(sum(steps_ns), abs=MS)


@given(
    moments=st.lists(st.integers(1, 10**9), min_size=18, max_size=18),
    offset_ns=st.integers(-(2**60), 2**60),
)
def test_losing_the_cpu_while_reading_is_no_step(moments: list[int], offset_ns: int) -> None:
    """Any time may pass between two readings."""
    now_ns = itertools.accumulate(moments)
    readings = [
        read_offset(lambda: next(now_ns) + offset_ns, lambda: next(now_ns)),
        read_offset(lambda: next(now_ns) + offset_ns, lambda: next(now_ns)),
    ]
    for reading in readings:
        assert abs(reading.offset_ns - offset_ns) <= reading.window_ns / 2 + 1


def test_the_shortest_reading_counts() -> None:
    monotonic_ns = itertools.chain([0, 900 * MS], [1000 * MS, 1000 * MS + 40], [1001 * MS, 1300 * MS])
    realtime_ns = iter([5 * MS, 1005 * MS + 20, 1006 * MS])
    assert read_offset(lambda: next(realtime_ns), lambda: next(monotonic_ns)) == OffsetReading(40, 5 * MS)


STEPS_NS = [-HOUR_NS, -40 * MS, -3 * MS // 2, 3 * MS // 2, 40 * MS, HOUR_NS]


@pytest.mark.parametrize("step_ns", STEPS_NS)
def test_a_worker_joins_the_slots_of_the_new_time(step_ns: int) -> None:
    """Each slot that passes in the time of the round is dialled or late, however the clock is set."""
    interval_ns, slots = 2 * MS, 150
    schedule = Schedule(interval_ns=interval_ns, low=20000, high=29999, lanes=1, lane=0)
    set_at_ns, offset_ns = time.monotonic_ns() + 100 * MS, ClockOffset().offset_ns
    realtime_ns = stepping_clock(set_at_ns, step_ns)
    rounds, state = RoundControl(0.0005, realtime_ns), WorkerState.shared()
    begin_ns = time.monotonic_ns() + 5 * MS
    rounds.announce(begin_ns, begin_ns + slots * interval_ns)
    pacer = RendezvousPacer(rounds, state, schedule, UNPREPARED, lambda: 0)
    connects_ns, of_the_old_time = [], 0
    for port in pacer.slots():
        pacer.wait()
        connects_ns.append(pacer._connect_ns)
        real_ns = pacer._connect_ns + (step_ns if pacer._connect_ns >= set_at_ns else 0) + offset_ns
        of_the_old_time += port != schedule.source_port(schedule.slot_at(real_ns + interval_ns // 2))
    assert abs(len(connects_ns) + state.late - slots) <= 1
    assert len(connects_ns) > 10, "the machine was too busy to prove anything"
    assert (np.diff(connects_ns) > 0).all()
    assert of_the_old_time <= 1, "only the slot that was being prepared when the clock was set"


class Silent:
    """An observer that only keeps the failures, and counts rounds."""

    def __init__(self) -> None:
        self.failures: list[Any] = []
        self.rounds = 0

    def started(self, *_: Any) -> None: ...

    def failure(self, failure: Any) -> None:
        self.failures.append(failure)

    def period(self, *_: Any) -> None: ...

    def drained(self, *_: Any) -> None: ...

    def round_starts(self, *_: Any) -> None: ...

    def round_ended(self, *_: Any) -> None:
        self.rounds += 1


def settings(port: int, mode: Mode, interval_us: int) -> ClientSettings:
    return ClientSettings(
        remote_addr=f"127.0.0.1:{port}",
        workers=1,
        local_ips=(),
        timeout_ms=100,
        dial_interval_us=interval_us,
        summary_interval_sec=60,
        mode=mode,
        source_ports=(20000, 29999),
        lanes=1,
        close=Close.rst,
        duration_s=1.0,
        count=None,
        warmup_s=None,
        pin=False,
    )


def dialled(
    chosen: ClientSettings, realtime_ns: Callable[[], int], observer: Silent
) -> tuple[ClientResult, list[int]]:
    """Dial where nobody listens; return the result, and when each failure that was listed ended."""

    def run() -> tuple[ClientResult, list[int]]:
        target = find_target(chosen, find_remote(chosen.remote_addr, chosen.timeout_ms))
        result, fault = client.run(chosen, target, [], observer, realtime_ns=realtime_ns)
        assert fault is None
        return result, [failure.ended_ns for failure in observer.failures]

    found: tuple[ClientResult, list[int]] = in_fork(run)
    return found


def test_a_step_during_a_run_becomes_a_warning_and_moves_the_time_stamps(port: int) -> None:
    chosen, observer = settings(port, Mode.independent, 120_000), Silent()
    result, ended_ns = dialled(
        chosen, lambda: time.time_ns() + (HOUR_NS if observer.failures else 0), observer
    )
    (warning,) = [one for one in result.warnings if one.kind is WarningKind.clock_stepped]
    assert warning.values["step_s"] == pytest.approx(3600.0, abs=0.001)
    assert "+3,600.00 s" in wording.sentence(warning)
    assert wording.sentence(warning) in " ".join(text(document(result)).split())
    assert max(ended_ns) - min(ended_ns) > 3599 * 1000 * MS


@pytest.mark.parametrize("after_s", [0.0, 0.5], ids=["before it begins", "amid"])
@pytest.mark.parametrize("step_ns", [-HOUR_NS, HOUR_NS], ids=["back", "forward"])
@pytest.mark.parametrize(
    ("mode", "interval_us"), [(Mode.rendezvous, 10_000), (Mode.independent, 10_000), (Mode.independent, 0)]
)
def test_a_run_takes_its_time_however_the_clock_is_set(
    port: int, mode: Mode, interval_us: int, step_ns: int, after_s: float
) -> None:
    began_s = time.monotonic()
    set_at_ns = int((began_s + after_s) * 1e9)
    result, _ = dialled(settings(port, mode, interval_us), stepping_clock(set_at_ns, step_ns), Silent())
    elapsed_s = time.monotonic() - began_s
    assert 1.0 <= elapsed_s < SOON_S
    summary = result.summary
    assert 1.0 <= summary.elapsed_s < SOON_S
    assert summary.failed == summary.attempted
    if interval_us:
        assert abs(summary.attempted + summary.late - 100) <= 2
    else:
        assert summary.late == 0
    assert summary.attempted >= 20


@PRIVATE
def test_a_watch_says_that_the_clock_was_set() -> None:
    def watched() -> WatchResult:
        periods: list[Any] = []
        chosen = WatchSettings(netns=None, interval_s=0.1, duration_s=0.4)
        reader = CounterReader(netns_lookup.here())
        result: WatchResult
        result, _ = watch.run(
            chosen, reader, periods.append, realtime_ns=lambda: time.time_ns() - HOUR_NS * bool(periods)
        )
        return result

    result = in_sandbox(watched)
    (warning,) = [one for one in warnings.of_watch(result) if one.kind is WarningKind.clock_stepped]
    assert warning.values["step_s"] == pytest.approx(-3600.0, abs=0.001)


@PRIVATE
@TWO_CPUS
def test_a_lab_says_that_the_clock_was_set() -> None:
    def measured() -> LabResult:
        observer = Silent()
        vars(testbed)["DialerPool"] = partial(
            DialerPool, realtime_ns=lambda: time.time_ns() + 5000 * MS * bool(observer.rounds)
        )
        chosen = LabSettings(
            scenario="tcp-snat",
            variants=("masquerade",),
            containers=2,
            workers=1,
            topology=Wiring.bridge,
            backend=Backend.netlink,
            cpus=(),
            duration_s=2.0,
            interval_us=1000,
            timeout_ms=4,
            window_s=0,
            caches=Caches.warm,
            seed=1,
        )
        rules = [variant_named("masquerade")]
        result: LabResult
        result, _ = lab.run(chosen, SCENARIOS["tcp-snat"], rules, observer)
        return result

    result = in_fork(measured)
    (warning,) = [one for one in warnings.of_lab(result) if one.kind is WarningKind.clock_stepped]
    assert warning.values["step_s"] == pytest.approx(5.0, abs=0.001)
    assert sum(variant.summary.connected for variant in result.variants) > 100
