"""The dialers of one run: fork, start together, drain, stop. Sole owner of their shared memory."""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self

from snat_race.errors import SnatRaceError
from snat_race.load.clock import ClockOffset
from snat_race.load.dialer import dial
from snat_race.load.dialer_config import DialerConfig
from snat_race.load.drain import Drain
from snat_race.load.ring import Ring
from snat_race.load.round_control import RoundControl
from snat_race.load.worker_processes import WorkerProcess, WorkerProcesses
from snat_race.load.worker_state import WorkerState

if TYPE_CHECKING:
    from snat_race.results.sample import Samples

_TOTAL_SLOTS = 1 << 22  # 64 MiB for all rings together
_LARGEST_RING, _SMALLEST_RING = 1 << 16, 1 << 10
_PARKED_POLL_S = 0.0005
_HEAD_START_POLLS = 4  # a round begins this many polls ahead, so that every worker has seen it
_STRAGGLING_S = 20.0  # a busy machine may leave a worker without a CPU for seconds
_UNLIMITED = (1 << 63) - 1
_POLL_S = 0.02
_STOP_GRACE_S = 0.3
_QUARTER_NS = 250_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where one dialer lives, and what it dials."""

    config: DialerConfig
    # Pinned to each in turn, for a quarter of a second of CLOCK_REALTIME. (): not pinned.
    cpus: tuple[int, ...] = ()
    # What the worker does before all else: enter a network namespace, say.
    prepare: Callable[[], None] | None = None


class DialCounts(NamedTuple):
    """Counters, summed over all workers. ``attempted == recorded + overruns + cut_short``."""

    attempted: int  # dials begun
    recorded: int  # samples taken out of the rings
    late: int  # slots, or ticks, that passed without a dial
    overruns: int  # samples dropped because a ring was full: dials whose outcome is not known
    cut_short: int  # dials in flight when their worker was stopped: no outcome, no error

    def plus(self, other: "DialCounts") -> "DialCounts":
        """Return the sum of two counts."""
        return DialCounts(*map(sum, zip(self, other, strict=True)))

    def since(self, earlier: "DialCounts") -> "DialCounts":
        """Return the difference from an earlier count."""
        return DialCounts(*(now - then for now, then in zip(self, earlier, strict=True)))


NO_DIALS = DialCounts(attempted=0, recorded=0, late=0, overruns=0, cut_short=0)


class _Worker:
    """One worker as its parent sees it: where it lives, what it tells, how its samples come out."""

    def __init__(self, placement: Placement, ring_capacity: int) -> None:
        self.placement = placement
        self.state = WorkerState.shared()
        self.ring = Ring(ring_capacity)
        self.drain = Drain(self.ring)
        self.process: WorkerProcess | None = None

    def cpu(self, quarter: int) -> int | None:
        """Return the CPU to be on in that quarter of a second; None: any."""
        cpus = self.placement.cpus
        return cpus[quarter % len(cpus)] if cpus else None

    def move(self, quarter: int) -> None:
        """Pin the worker to its CPU of that quarter of a second, if it changes at all."""
        cpu = self.cpu(quarter)
        if self.process and cpu is not None and len(self.placement.cpus) > 1:
            self.process.pin(cpu)


class DialerPool:
    """Dialers, from fork to reaping. A context manager.

    Args:
        placements: a worker each.
        cancelled: ends what it waits for.
        largest_ring: the most samples that a worker's ring holds, a power of two.
        realtime_ns: reads CLOCK_REALTIME.

    """

    def __init__(
        self,
        placements: list[Placement],
        cancelled: Callable[[], bool],
        largest_ring: int = _LARGEST_RING,
        realtime_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._cancelled = cancelled
        self._realtime_ns = realtime_ns
        # However many workers are on one CPU, those parked take the same small part of it.
        crowding = max(1.0, len(placements) / len(os.sched_getaffinity(0)))
        self._rounds = RoundControl(_PARKED_POLL_S * crowding, realtime_ns)
        longest_timeout_ms = max(placement.config.timeout_ms for placement in placements)
        self._patience_s = longest_timeout_ms / 1000 + _STRAGGLING_S
        capacity = _ring_capacity(len(placements), largest_ring)
        self._workers = [_Worker(placement, capacity) for placement in placements]
        self._processes = WorkerProcesses(cancelled)
        self._quarter = self._quarter_now()

    def __enter__(self) -> Self:
        try:
            for index, worker in enumerate(self._workers):
                worker.process = self._processes.fork(
                    f"worker {index}",
                    partial(dial, worker.placement.config, self._rounds, worker.state, worker.ring),
                    cpu=worker.cpu(self._quarter),
                    prepare=worker.placement.prepare,
                )
            self._processes.wait_ready()
        except BaseException:
            self._processes.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._rounds.stop()
        self._processes.__exit__()

    def round(
        self, duration_s: float | None, count: int | None = None, *, every_s: float, sweep_ns: int = 0
    ) -> "Iterator[list[Samples]]":
        """Let all workers dial, from one instant on, for a time or (and) a total number of dials.

        Yields each worker's new samples, oldest first, every ``every_s`` and, all that are left,
        when every worker is done. Ends early, with workers still dialling, once cancelled.
        ``count`` is divided evenly; the first workers take the remainder. ``sweep_ns``: see
        :meth:`Schedule.offset_ns`.

        Raises:
            SnatRaceError: a worker died, or did not come back from connect().

        """
        for index, worker in enumerate(self._workers):
            worker.state.quota = _quota(count, len(self._workers), index) if count else _UNLIMITED
        self.clock.update()
        head_start_s = _HEAD_START_POLLS * self._rounds.parked_poll_s
        begin_ns = time.monotonic_ns() + int(head_start_s * 1e9)
        end_ns = begin_ns + int(duration_s * 1e9) if duration_s else _UNLIMITED
        number = self._rounds.announce(begin_ns, end_ns, sweep_ns)
        due_s = begin_ns / 1e9 + every_s
        poll_s = min(_POLL_S, every_s)
        patience = math.ceil(self._patience_s / poll_s)
        while not all(worker.state.parked_round == number for worker in self._workers):
            if self._cancelled():
                return
            time.sleep(poll_s)
            self._move_workers()
            # Counted in polls, because who was stopped himself has not been waiting.
            patience -= time.monotonic_ns() > end_ns
            if not patience:
                raise SnatRaceError("a worker did not come back from connect() in time; was it stopped?")
            if time.monotonic() >= due_s:
                self._processes.require_alive()
                self.clock.update()
                yield [worker.drain.take() for worker in self._workers]
                due_s += every_s
        self.clock.update()
        yield self.rest()

    def _move_workers(self) -> None:
        before, self._quarter = self._quarter, self._quarter_now()
        if self._quarter != before:
            for worker in self._workers:
                worker.move(self._quarter)

    def _quarter_now(self) -> int:
        return self._realtime_ns() // _QUARTER_NS

    @property
    def clock(self) -> ClockOffset:
        """The clock as of the last drain, and whether it was set since the start."""
        return self._rounds.clock

    @property
    def round_number(self) -> int:
        """The number of the last round, counted from 1."""
        return self._rounds.orders.number

    def rest(self) -> "list[Samples]":
        """Return each worker's last samples, once it has parked or is gone."""
        return [worker.drain.take_rest() for worker in self._workers]

    def stop(self) -> None:
        """Stop all workers, cutting short what blocks."""
        self._rounds.stop()
        self._processes.stop(_STOP_GRACE_S)
        self.clock.update()

    def counts(self) -> DialCounts:
        """Return the totals since the start, by the workers' counters. Exact when none is dialling."""
        attempted = sum(worker.state.attempted for worker in self._workers)
        stored = sum(worker.ring.head for worker in self._workers)
        overruns = sum(worker.ring.overruns for worker in self._workers)
        return DialCounts(
            attempted=attempted,
            recorded=sum(worker.drain.recorded for worker in self._workers),
            late=sum(worker.state.late for worker in self._workers),
            overruns=overruns,
            cut_short=attempted - stored - overruns,
        )

    def slow_connects(self) -> list[int]:
        """Return the connects of over 0.9 s since the start, by how often their SYN was sent again:
        0, 1, ... 7 or more.
        """
        return [
            sum(counts)
            for counts in zip(*(worker.state.slow_connects for worker in self._workers), strict=True)
        ]


def _ring_capacity(workers: int, largest: int) -> int:
    """Return the largest power of two that fits, within bounds."""
    slots_each = _TOTAL_SLOTS // workers
    fitting = 1 << (slots_each.bit_length() - 1)
    return max(_SMALLEST_RING, min(largest, fitting))


def _quota(total: int, workers: int, index: int) -> int:
    return total // workers + (index < total % workers)
