import dataclasses

from hypothesis import assume, given
from hypothesis import strategies as st

from snat_race.load.schedule import Schedule

SLOTS = st.integers(0, 1 << 45)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    low = draw(st.integers(1, 60000))
    high = draw(st.integers(low, 65535))
    lanes = draw(st.integers(1, min(64, high - low + 1)))
    return Schedule(
        interval_ns=draw(st.integers(1, 10**10)),
        low=low,
        high=high,
        lanes=lanes,
        lane=draw(st.integers(0, lanes - 1)),
        seed=draw(st.integers(0, 1 << 40)),
        dither_ns=draw(st.integers(0, 10_000)),
    )


@given(schedules(), st.integers(0, 1 << 62))
def test_the_first_slot_is_the_next_multiple_of_the_interval(schedule: Schedule, now_ns: int) -> None:
    start_ns = schedule.start_ns(schedule.first_slot(now_ns))
    assert start_ns % schedule.interval_ns == 0
    assert 0 <= start_ns - now_ns < schedule.interval_ns


@given(schedules(), SLOTS, st.integers(0, 1 << 40))
def test_two_processes_agree_on_slot_and_port(schedule: Schedule, slot: int, other_seed: int) -> None:

    other = dataclasses.replace(schedule, seed=other_seed)
    assert other.start_ns(slot) == schedule.start_ns(slot)
    assert other.source_port(slot) == schedule.source_port(slot)


@given(schedules(), SLOTS)
def test_lanes_never_share_a_port_within_a_slot(schedule: Schedule, slot: int) -> None:

    ports = {dataclasses.replace(schedule, lane=j).source_port(slot) for j in range(schedule.lanes)}
    assert len(ports) == schedule.lanes
    assert all(schedule.low <= port <= schedule.high for port in ports)


@given(st.integers(1, 8), st.integers(0, 200), SLOTS)
def test_a_port_returns_only_after_the_whole_range(lanes: int, spare: int, slot: int) -> None:
    span = lanes + spare
    seen: dict[int, int] = {}
    for ordinal in range(3 * span):
        lane, at = ordinal % lanes, slot + ordinal // lanes
        port = Schedule(interval_ns=1, low=1000, high=999 + span, lanes=lanes, lane=lane).source_port(at)
        if port in seen:
            assert ordinal - seen[port] == span
        seen[port] = ordinal
    assert len(seen) == span


@given(schedules(), SLOTS)
def test_dither_is_bounded_and_repeatable(schedule: Schedule, slot: int) -> None:
    offset = schedule.offset_ns(slot)
    assert abs(offset) <= schedule.dither_ns
    assert offset == schedule.offset_ns(slot)


@given(schedules(), st.integers(1, 1 << 20), st.integers(1, 10**5), st.integers(0, 1 << 30))
def test_the_offset_of_a_sweep_is_known_from_the_port(
    schedule: Schedule, number: int, sweep_ns: int, place: int
) -> None:
    moving = dataclasses.replace(schedule, by_round=True, sweeps=True)
    slot = (number << 32) + place % max(1, (moving.high - moving.low + 1) // moving.lanes)
    offset = moving.offset_ns(slot, sweep_ns)
    assert abs(offset) <= sweep_ns
    assert moving.swept_ns(moving.source_port(slot), number, sweep_ns) == offset
    assert moving.lane_of(moving.source_port(slot), number) == moving.lane
    other_lane = dataclasses.replace(moving, lane=0)
    assert other_lane.lane_of(moving.source_port(slot), number) == moving.lane
    assert dataclasses.replace(moving, sweeps=False).offset_ns(slot, sweep_ns) == 0


@given(schedules(), st.integers(0, 1 << 60), st.integers(0, 1 << 60), st.integers(1, 99))
def test_rounds_repeat_whatever_the_clock_says(
    schedule: Schedule, begin_ns: int, other_ns: int, number: int
) -> None:
    repeating = dataclasses.replace(schedule, by_round=True)
    first, other = (
        repeating.first_slot(each) + repeating.shift(each, number) for each in (begin_ns, other_ns)
    )
    assert first == other
    assert schedule.shift(begin_ns, number) == 0


@given(SLOTS, st.integers(0, 1 << 32), st.integers(0, 1 << 32))
def test_dithers_of_two_workers_are_not_correlated(slot: int, one: int, other: int) -> None:
    assume(one != other)
    a, b = (
        Schedule(interval_ns=10**6, low=1, high=9, lanes=1, lane=0, seed=seed, dither_ns=1000)
        for seed in (one, other)
    )
    differences = [a.offset_ns(k) - b.offset_ns(k) for k in range(slot, slot + 400)]
    # The difference of two even spreads is a triangle: a quarter lies within 268 of its middle.
    assert 40 < sum(abs(difference) < 268 for difference in differences) < 160
