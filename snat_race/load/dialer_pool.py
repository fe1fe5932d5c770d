"""The dialers of one run: fork, start together, drain, stop. Sole owner of their shared memory."""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from snat_race.errors import SnatRaceError
from snat_race.load.dialer import dial
from snat_race.load.drain import Drain
from snat_race.load.ring import ATTEMPTED, HEAD, LATE, OVERRUNS, PARKED, QUOTA, RESENT, Ring
from snat_race.load.round_control import RoundControl
from snat_race.load.sockets import DialerConfig
from snat_race.load.worker_processes import WorkerProcesses

if TYPE_CHECKING:
    from snat_race.results.sample import Samples

_TOTAL_SLOTS = 1 << 22  # 64 MiB for all rings together
_LARGEST_RING, _SMALLEST_RING = 1 << 16, 1 << 10
_PARKED_POLL_S = 0.0005
_STRAGGLING_S = 2.0
_UNLIMITED = (1 << 63) - 1
_POLL_S = 0.02
_STOP_GRACE_S = 0.3
_TURNS_A_SECOND = 4


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one dialer lives: its config, its CPUs, and what to do before dialling (enter a
    namespace, say).

    ``cpus``: none, one, or several, on each for a quarter of a second of CLOCK_REALTIME, in turn.
    """

    config: DialerConfig
    cpus: tuple[int, ...] = ()
    prepare: Callable[[], None] | None = None


class DialCounts(NamedTuple):
    """Counters, summed over all workers. ``attempted == recorded + overruns + cut_short``.

    ``cut_short`` dials were in flight when their worker was stopped: no outcome, no error.
    """

    attempted: int
    recorded: int
    late: int
    overruns: int
    cut_short: int

    def plus(self, other: "DialCounts") -> "DialCounts":
        """Return the sum of two tallies."""
        return DialCounts(*map(sum, zip(self, other, strict=True)))

    def since(self, earlier: "DialCounts") -> "DialCounts":
        """Return the difference from an earlier tally."""
        return DialCounts(*(now - then for now, then in zip(self, earlier, strict=True)))


NO_DIALS = DialCounts(0, 0, 0, 0, 0)


class DialerPool:
    """Dialers, from fork to reaping. A context manager; ``cancelled`` ends what it waits for."""

    def __init__(
        self, placements: list[Placement], cancelled: Callable[[], bool], largest_ring: int = _LARGEST_RING
    ) -> None:
        share = _TOTAL_SLOTS // len(placements)
        fitting = 1 << (share.bit_length() - 1)
        capacity = max(_SMALLEST_RING, min(largest_ring, fitting))
        self._placements, self._cancelled = placements, cancelled
        # However many workers share a CPU, those parked take the same small part of it.
        crowding = max(1.0, len(placements) / len(os.sched_getaffinity(0)))
        self._rounds = RoundControl(_PARKED_POLL_S * crowding)
        self._patience_s = (
            max(placement.config.timeout_ms for placement in placements) / 1000 + _STRAGGLING_S
        )
        self._rings = [Ring(capacity) for _ in placements]
        self._drains = [Drain(ring) for ring in self._rings]
        self._processes = WorkerProcesses(cancelled)
        self._turn = _turn()

    def __enter__(self) -> Self:
        try:
            for index, (placement, ring) in enumerate(zip(self._placements, self._rings, strict=True)):
                self._processes.fork(
                    f"worker {index}",
                    partial(dial, placement.config, self._rounds, ring),
                    cpu=self._cpu(placement),
                    prepare=placement.prepare,
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
        ``count`` is shared out evenly; the first workers take the remainder. ``sweep_ns``: see
        :meth:`Schedule.offset_ns`.

        Raises:
            SnatRaceError: a worker died, or did not come back from connect().

        """
        for index, ring in enumerate(self._rings):
            ring.words[QUOTA] = _share(count, len(self._rings), index) if count else _UNLIMITED
        head_start_s = 4 * self._rounds.parked_poll_s
        begin_ns = time.time_ns() + int(head_start_s * 1e9)
        end_ns = begin_ns + int(duration_s * 1e9) if duration_s else _UNLIMITED
        number = self._rounds.announce(begin_ns, end_ns, sweep_ns)
        due_s = time.monotonic() + head_start_s + every_s
        over_s = due_s + duration_s + self._patience_s if duration_s else math.inf
        while not all(ring.words[PARKED] == number for ring in self._rings):
            if self._cancelled():
                return
            time.sleep(min(_POLL_S, every_s))
            self._move()
            if time.monotonic() > over_s:
                raise SnatRaceError("a worker did not come back from connect() in time; was it stopped?")
            if time.monotonic() >= due_s:
                self._processes.require_alive()
                yield [drain.take() for drain in self._drains]
                due_s += every_s
        yield self.rest()

    def _move(self) -> None:
        before, self._turn = self._turn, _turn()
        if self._turn == before:
            return
        for member, placement in zip(self._processes.members, self._placements, strict=True):
            cpu = self._cpu(placement)
            if cpu is not None and len(placement.cpus) > 1:
                member.pin(cpu)

    def _cpu(self, placement: Placement) -> int | None:
        return placement.cpus[self._turn % len(placement.cpus)] if placement.cpus else None

    @property
    def round_number(self) -> int:
        """The number of the last round, counted from 1."""
        return self._rounds.number

    def rest(self) -> "list[Samples]":
        """Return each worker's last samples, once it has parked or is gone."""
        return [np.concatenate((drain.take(), drain.take())) for drain in self._drains]

    def stop(self) -> None:
        """Stop all workers, cutting short what blocks."""
        self._rounds.stop()
        self._processes.stop(_STOP_GRACE_S)

    def tally(self) -> DialCounts:
        """Return the totals, from the workers' own counters. Exact when none is dialling."""
        words = [ring.words for ring in self._rings]
        attempted, stored, late, overruns = (
            sum(w[counter] for w in words) for counter in (ATTEMPTED, HEAD, LATE, OVERRUNS)
        )
        recorded = sum(drain.recorded for drain in self._drains)
        return DialCounts(attempted, recorded, late, overruns, attempted - stored - overruns)

    def resent(self) -> list[int]:
        """Return the slow connects so far, by how often their SYN was sent again: 0, 1, ... 7 or more."""
        return [sum(ring.words[counter] for ring in self._rings) for counter in RESENT]


def _turn() -> int:
    return int(time.time() * _TURNS_A_SECOND)


def _share(total: int, workers: int, index: int) -> int:
    return total // workers + (index < total % workers)
