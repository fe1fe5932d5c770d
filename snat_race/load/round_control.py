"""The timetable that the parent writes and every worker reads: rounds of dialling, and the stop.

A round is a window of CLOCK_MONOTONIC, which nobody can set. Between rounds workers are parked: alive,
warm, silent. Announcing a round in the near future is the barrier on which all workers start together.
"""

import ctypes
import time
from collections.abc import Callable, Iterator
from mmap import mmap
from typing import NamedTuple

from snat_race.load.clock import ClockOffset
from snat_race.load.worker_state import WORD, WorkerState

_LONGEST_NAP_NS = 20_000_000


class Round(NamedTuple):
    """One round, as a worker sees it at a moment; instants are in ns."""

    number: int  # counted from 1
    begin_ns: int  # no slot before this instant is dialled
    end_ns: int  # no slot from this instant on is dialled; 0 once stopped
    origin_ns: int  # CLOCK_REALTIME at the begin, the same for all workers
    sweep_ns: int = 0  # how far to either side the round sweeps; 0: it does not

    def on_realtime(self, offset_ns: int) -> "Round":
        """Return the same round, with its begin and end moved to CLOCK_REALTIME."""
        return self._replace(begin_ns=self.begin_ns + offset_ns, end_ns=self.end_ns + offset_ns)


class RoundOrders(ctypes.Structure):
    """What the parent writes and every worker reads; the first five are of the present round."""

    number: int  # counted from 1
    begin_ns: int
    end_ns: int  # 0 once stopped
    origin_ns: int
    sweep_ns: int
    stopped: int  # 1: no dial starts any more

    _fields_ = tuple(
        (name, WORD) for name in ("number", "begin_ns", "end_ns", "origin_ns", "sweep_ns", "stopped")
    )


class RoundControl:
    """Shared orders. The parent announces, ends and stops; workers attend.

    Args:
        parked_poll_s: how often a parked worker looks for the next round.
        realtime_ns: reads CLOCK_REALTIME.

    Attributes:
        orders: in shared memory, for workers to read.
        clock: what slots are counted by; after the fork each process has its own.

    """

    def __init__(self, parked_poll_s: float, realtime_ns: Callable[[], int] = time.time_ns) -> None:
        self.parked_poll_s = parked_poll_s
        self.clock = ClockOffset(realtime_ns)
        self.orders = RoundOrders.from_buffer(mmap(-1, ctypes.sizeof(RoundOrders)))

    def announce(self, begin_ns: int, end_ns: int, sweep_ns: int = 0) -> int:
        """Open a round from ``begin_ns`` to ``end_ns``; return its number, counted from 1."""
        orders = self.orders
        orders.sweep_ns = sweep_ns
        orders.origin_ns = begin_ns + self.clock.offset_ns
        orders.begin_ns = begin_ns
        orders.end_ns = end_ns
        orders.number += 1  # last: workers look for it
        return orders.number

    def stop(self) -> None:
        """End the round and the run: no dial starts after a worker has seen this."""
        self.orders.stopped = 1
        self.orders.end_ns = 0

    @property
    def present(self) -> Round:
        """The present round."""
        orders = self.orders
        return Round(orders.number, orders.begin_ns, orders.end_ns, orders.origin_ns, orders.sweep_ns)

    def attend(self, state: WorkerState) -> Iterator[int]:
        """Yield the number of each new round; park in between; return on stop."""
        orders, seen = self.orders, 0
        while not orders.stopped:
            if orders.number != seen:
                seen = orders.number
                yield seen
            state.parked_round = seen
            time.sleep(self.parked_poll_s)

    def sleep_until(self, instant_ns: int) -> bool:
        """Sleep until CLOCK_MONOTONIC reaches ``instant_ns``; return False if the round ended before."""
        now_ns = time.monotonic_ns()
        while now_ns < instant_ns < self.orders.end_ns:
            time.sleep(min(instant_ns - now_ns, _LONGEST_NAP_NS) / 1e9)
            now_ns = time.monotonic_ns()
        return instant_ns < self.orders.end_ns
