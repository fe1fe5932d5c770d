"""When a worker dials: arithmetic without clocks, and what a pacer learns from each dial."""

from dataclasses import replace
from errno import ECONNREFUSED

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snat_race.load.dialer_config import Preparation
from snat_race.load.pacers import BIND_NS, MARGIN_NS, Lead, RendezvousPacer, Slot, next_slot, next_tick
from snat_race.load.round_control import Round, RoundControl
from snat_race.load.schedule import Schedule
from snat_race.load.worker_state import WorkerState
from snat_race.results.sample import TIMED_OUT

US, MS = 1000, 1_000_000
SCHEDULE = Schedule(interval_ns=MS, low=20000, high=29999, lanes=2, lane=1)
WINDOW = Round(number=1, begin_ns=100 * MS, end_ns=200 * MS, origin_ns=100 * MS)
LEAD = Lead(spin_ns=300 * US, probes_ns=120 * US, syn_ns=20 * US, lag_ns=3 * US)
NEEDED_NS = 140 * US + MARGIN_NS


def slot_at(now_ns: int, last: int | None = 149, window: Round = WINDOW) -> Slot:
    return next_slot(now_ns, last, SCHEDULE, window, LEAD)


def test_the_steps_of_a_slot() -> None:
    assert slot_at(149 * MS + 50 * US) == Slot(
        number=150,
        missed=0,
        start_ns=150 * MS,
        nap_end_ns=150 * MS - 300 * US,
        probes_begin_ns=150 * MS - 140 * US - BIND_NS,
        probes_end_ns=150 * MS - 20 * US - BIND_NS,
        connect_ns=150 * MS - 23 * US,
        source_port=20000 + 150 * 2 + 1,
    )


@pytest.mark.parametrize(
    ("now_ns", "last", "number", "missed"),
    [
        (0, None, 100, 0),  # long before the round
        (100 * MS - NEEDED_NS, None, 100, 0),  # just in time for its first slot
        (100 * MS - NEEDED_NS + 1, None, 101, 1),  # just too late
        (103 * MS, None, 104, 4),  # a worker that woke late
        (149 * MS, 149, 150, 0),  # right after a dial
        (150 * MS - NEEDED_NS, 149, 150, 0),
        (150 * MS - NEEDED_NS + 1, 149, 151, 1),
        (154 * MS, 149, 155, 5),  # a dial that took five slots
        (199 * MS, 198, 200, 1),  # the first slot after the round: one was missed
        (250 * MS, 150, 251, 49),  # a dial that outlived the round: only the round's own slots were missed
        (250 * MS, 199, 251, 0),
    ],
)
def test_which_slot_is_next(now_ns: int, last: int | None, number: int, missed: int) -> None:
    slot = slot_at(now_ns, last)
    assert (slot.number, slot.missed) == (number, missed)


def test_a_stop_makes_nothing_late() -> None:
    stopped = WINDOW._replace(end_ns=0)
    slot = slot_at(154 * MS, window=stopped)
    assert slot.missed == 0
    assert slot.start_ns >= stopped.end_ns


def test_a_sweep_and_a_dither_move_the_dial_and_nothing_else() -> None:
    now_ns = 149 * MS
    dithered = replace(SCHEDULE, dither_ns=500)
    slot = next_slot(now_ns, 149, dithered, WINDOW, LEAD)
    assert replace(slot, connect_ns=0) == replace(slot_at(now_ns), connect_ns=0)
    assert slot.connect_ns == slot_at(now_ns).connect_ns + dithered.offset_ns(150)
    swept = replace(dithered, sweeps=True)
    sweeping = WINDOW._replace(sweep_ns=40 * US)
    slot = next_slot(now_ns, 149, swept, sweeping, LEAD)
    assert slot.connect_ns == slot_at(now_ns).connect_ns + swept.offset_ns(150, 40 * US)
    assert slot.probes_end_ns == slot_at(now_ns).probes_end_ns - 40 * US


def test_slots_of_a_round_that_can_be_repeated_have_the_rounds_own_numbers() -> None:
    repeating = replace(SCHEDULE, by_round=True)
    slot = next_slot(99 * MS, None, repeating, WINDOW, LEAD)
    assert slot.source_port == SCHEDULE.source_port(1 << 32)


@given(
    now_ns=st.integers(0, 300 * MS),
    last=st.one_of(st.none(), st.integers(100, 200)),
    interval_ns=st.integers(100 * US, 10 * MS),
    lead=st.builds(
        Lead,
        spin_ns=st.integers(0, 2 * MS),
        probes_ns=st.integers(0, MS),
        syn_ns=st.integers(0, MS),
        lag_ns=st.integers(0, 6400),
    ),
    sweep_ns=st.integers(0, 50 * US),
)
def test_whatever_the_clock_says_the_steps_are_in_order_and_can_be_kept(
    now_ns: int, last: int | None, interval_ns: int, lead: Lead, sweep_ns: int
) -> None:
    schedule = replace(SCHEDULE, interval_ns=interval_ns, sweeps=True)
    slot = next_slot(now_ns, last, schedule, WINDOW._replace(sweep_ns=sweep_ns), lead)
    assert slot.nap_end_ns < slot.probes_begin_ns <= slot.probes_end_ns < slot.connect_ns + lead.lag_ns
    assert now_ns < slot.probes_begin_ns, "there is time for all of it"
    assert slot.connect_ns <= slot.start_ns + sweep_ns
    assert slot.missed >= 0
    assert slot.number != last


@pytest.mark.parametrize(
    ("now_ns", "missed", "tick_ns"),
    [
        (1000, 0, 1100),  # right on the tick
        (1050, 0, 1100),  # a short dial
        (1100, 0, 1100),  # one that took the whole interval
        (1199, 0, 1100),  # the tick has passed: dial at once
        (1200, 1, 1200),  # another has: it takes the place of the first
        (1350, 2, 1300),
        (9999, 9, 2000),  # those of the round, which ends at 2000, were missed; there are no others
    ],
)
def test_which_tick_is_next(now_ns: int, missed: int, tick_ns: int) -> None:
    assert next_tick(now_ns, 1000, 100, end_ns=2000) == (missed, tick_ns)


def test_a_stop_misses_no_tick() -> None:
    assert next_tick(5000, 1000, 100, end_ns=0) == (0, 1100)


def pacer(*, balances: bool = True) -> RendezvousPacer:
    preparation = Preparation(balances=balances)
    return RendezvousPacer(RoundControl(0.001), WorkerState.shared(), SCHEDULE, preparation, lambda: 0)


def test_only_a_timeout_is_a_lost_syn() -> None:
    pacing = pacer()
    for error in (0, ECONNREFUSED):
        pacing.done(error)
    assert pacing._lead().lag_ns == 0
    pacing.done(TIMED_OUT)
    assert pacing._lead().lag_ns == 100
    pacing.done(TIMED_OUT)
    assert pacing._lead().lag_ns == 198
    for _ in range(64):
        pacing.done(0)
    assert 60 < pacing._lead().lag_ns < 80


def test_who_does_not_balance_never_moves() -> None:
    pacing = pacer(balances=False)
    pacing.done(TIMED_OUT)
    assert pacing._lead().lag_ns == 0
