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
        port = Schedule(1, 1000, 999 + span, lanes, lane).source_port(at)
        if port in seen:
            assert ordinal - seen[port] == span
        seen[port] = ordinal
    assert len(seen) == span


@given(schedules(), SLOTS)
def test_dither_is_bounded_and_repeatable(schedule: Schedule, slot: int) -> None:
    offset = schedule.offset_ns(slot)
    assert abs(offset) <= schedule.dither_ns
    assert offset == schedule.offset_ns(slot)


@given(SLOTS, st.integers(0, 1 << 32), st.integers(0, 1 << 32))
def test_dithers_of_two_workers_are_not_correlated(slot: int, one: int, other: int) -> None:
    assume(one != other)
    a, b = (Schedule(10**6, 1, 9, 1, 0, seed, 1000) for seed in (one, other))
    differences = [a.offset_ns(k) - b.offset_ns(k) for k in range(slot, slot + 400)]
    # The difference of two even spreads is a triangle: a quarter lies within 268 of its middle.
    assert 40 < sum(abs(difference) < 268 for difference in differences) < 160
