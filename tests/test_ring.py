import os
import time

import numpy as np
import pytest

from snat_race.load.drain import Drain
from snat_race.load.ring import Ring
from snat_race.load.worker_state import LINE_WORDS, WorkerState


def test_capacity_is_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="power of two"):
        Ring(12)


def test_wrap_around_keeps_order() -> None:
    ring = Ring(8)
    store, drain = ring.writer(), Drain(ring)
    taken: list[int] = []
    for number in range(1, 101):
        store(number, number)
        taken += drain.take()["start_ns"].tolist()
    taken += drain.take()["start_ns"].tolist()
    assert taken == list(range(1, 101))
    assert ring.overruns == 0


def test_a_full_ring_drops_and_counts() -> None:
    ring = Ring(4)
    store, drain = ring.writer(), Drain(ring)
    for number in range(1, 11):
        store(number, number)
    drain.take()
    assert drain.take()["packed"].tolist() == [1, 2, 3, 4]
    assert ring.overruns == 6
    store(11, 11)
    drain.take()
    assert drain.take()["packed"].tolist() == [11]


def test_a_drain_takes_only_what_was_announced_one_drain_earlier() -> None:
    ring = Ring(8)
    store, drain = ring.writer(), Drain(ring)
    store(1, 1)
    assert not drain.take().size
    store(2, 2)
    assert drain.take()["start_ns"].tolist() == [1]
    assert drain.take()["start_ns"].tolist() == [2]


def test_fast_writer_slow_reader_loses_nothing_uncounted() -> None:
    ring, state, total = Ring(256), WorkerState.shared(), 200_000
    writer = os.fork()
    if not writer:
        store = ring.writer()
        for number in range(1, total + 1):
            state.attempted += 1
            store(number, number << 24 | 1)
        os._exit(0)
    drain, taken = Drain(ring), []
    while os.waitpid(writer, os.WNOHANG) == (0, 0):
        taken.append(drain.take())
        time.sleep(0.001)
    taken += [drain.take(), drain.take()]
    samples = np.concatenate(taken)
    assert state.attempted == total == len(samples) + ring.overruns
    assert len(samples) == drain.recorded == ring.head
    assert ring.overruns > 0, "the reader was not slow enough to prove anything"
    assert (np.diff(samples["start_ns"].astype(np.int64)) > 0).all()
    assert (samples["packed"] >> 24 == samples["start_ns"]).all(), "a torn sample"


def test_worker_and_parent_write_on_different_cache_lines() -> None:
    line_bytes = 8 * LINE_WORDS
    by_worker = ("attempted", "late", "parked_round", "slow_connects")
    lines = {getattr(WorkerState, name).offset // line_bytes for name in by_worker}
    assert lines == {0}
    assert WorkerState.quota.offset // line_bytes == 1  # type: ignore[attr-defined]


def test_what_a_worker_counts_its_parent_reads() -> None:
    state = WorkerState.shared()
    state.quota = 3
    worker = os.fork()
    if not worker:
        state.late += state.quota
        for retransmits in (0, 1, 1, 7, 99):
            state.count_slow_connect(retransmits)
        os._exit(0)
    os.waitpid(worker, 0)
    assert state.late == 3
    assert list(state.slow_connects) == [1, 2, 0, 0, 0, 0, 0, 2]
