"""The timetable that the parent writes and every worker reads: rounds of dialling, and the stop.

A round is a window of CLOCK_REALTIME. Between rounds workers are parked: alive, warm, silent.
Announcing a round in the near future is the barrier on which all workers start together.
"""

import ctypes
import time
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

from snat_race.load.worker_state import WORD, WorkerState

_LONGEST_NAP_NS = 20_000_000


class Round(NamedTuple):
    """One round, as a worker sees it at a moment; instants are CLOCK_REALTIME in ns."""

    number: int  # counted from 1
    begin_ns: int  # no slot before this instant is dialled
    end_ns: int  # no slot from this instant on is dialled; 0 once stopped
    sweep_ns: int = 0  # how far to either side the round sweeps; 0: it does not


class RoundOrders(ctypes.Structure):
    """What the parent writes and every worker reads; the first four are of the present round."""

    number: int  # counted from 1
    begin_ns: int
    end_ns: int  # 0 once stopped
    sweep_ns: int
    stopped: int  # 1: no dial starts any more

    _fields_ = tuple((name, WORD) for name in ("number", "begin_ns", "end_ns", "sweep_ns", "stopped"))


class RoundControl:
    """Shared orders. The parent announces, ends and stops; workers attend.

    ``parked_poll_s``: how often a parked worker looks for the next round.
    ``orders``: in shared memory, for workers to read.
    """

    def __init__(self, parked_poll_s: float) -> None:
        self.parked_poll_s = parked_poll_s
        self.orders = RoundOrders.from_buffer(mmap(-1, ctypes.sizeof(RoundOrders)))

    def announce(self, begin_ns: int, end_ns: int, sweep_ns: int = 0) -> int:
        """Open a round from ``begin_ns`` to ``end_ns``; return its number, counted from 1."""
        orders = self.orders
        orders.sweep_ns = sweep_ns
        orders.begin_ns = begin_ns
        orders.end_ns = end_ns
        orders.number += 1  # last: workers look for it
        return orders.number

    def end_at(self, end_ns: int) -> None:
        """Move the end of the present round."""
        self.orders.end_ns = end_ns

    def stop(self) -> None:
        """End the round and the run: no dial starts after a worker has seen this."""
        self.orders.stopped = 1
        self.orders.end_ns = 0

    @property
    def present(self) -> Round:
        """The present round."""
        orders = self.orders
        return Round(orders.number, orders.begin_ns, orders.end_ns, orders.sweep_ns)

    def attend(self, state: WorkerState) -> Iterator[int]:
        """Yield the number of each new round; park in between; return on stop."""
        orders, seen = self.orders, 0
        while not orders.stopped:
            if orders.number != seen:
                seen = orders.number
                yield seen
            state.parked_round = seen
            time.sleep(self.parked_poll_s)

    def sleep_until(self, instant_ns: int, since_ns: int | None = None) -> bool:
        """Sleep until CLOCK_REALTIME reaches ``instant_ns``; return False if the round ended before.

        Returns early, with True, if the clock is set back to before ``since_ns``, by default the time
        of the call: the caller must look at the clock again.
        """
        now_ns = time.time_ns()
        since_ns = now_ns if since_ns is None else since_ns
        while since_ns <= now_ns < instant_ns < self.orders.end_ns:
            time.sleep(min(instant_ns - now_ns, _LONGEST_NAP_NS) / 1e9)
            now_ns = time.time_ns()
        return instant_ns < self.orders.end_ns
