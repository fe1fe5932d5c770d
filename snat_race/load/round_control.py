"""The timetable that the parent writes and every worker reads: rounds of dialling, and the stop.

A round is a window of CLOCK_REALTIME. Between rounds workers are parked: alive, warm, silent.
Announcing a round in the near future is the barrier on which all workers start together.
"""

import time
from collections.abc import Iterator
from mmap import mmap

from snat_race.load.ring import PARKED, Ring

_ROUND, _BEGIN_NS, _END_NS, _STOP, _SWEEP_NS = range(5)
_LONGEST_NAP_NS = 20_000_000


class RoundControl:
    """Shared control words. The parent announces and stops; workers attend.

    ``parked_poll_s``: how often a parked worker looks for the next round.
    """

    def __init__(self, parked_poll_s: float) -> None:
        self.parked_poll_s = parked_poll_s
        self._memory = mmap(-1, 4096)
        self._words = memoryview(self._memory).cast("Q")

    def announce(self, begin_ns: int, end_ns: int, sweep_ns: int = 0) -> int:
        """Open a round from ``begin_ns`` to ``end_ns``; return its number, counted from 1."""
        self._words[_SWEEP_NS] = sweep_ns
        self._words[_BEGIN_NS] = begin_ns
        self._words[_END_NS] = end_ns
        self._words[_ROUND] += 1
        return self._words[_ROUND]

    def stop(self) -> None:
        """End the round and the run: no dial starts after a worker has seen this."""
        self._words[_STOP] = 1
        self._words[_END_NS] = 0

    @property
    def end_ns(self) -> int:
        """The end of the present round; 0 once stopped."""
        return self._words[_END_NS]

    @property
    def number(self) -> int:
        """The number of the present round."""
        return self._words[_ROUND]

    @property
    def sweep_ns(self) -> int:
        """How far to either side the present round sweeps; 0 if it does not."""
        return self._words[_SWEEP_NS]

    def attend(self, ring: Ring) -> Iterator[int]:
        """Yield the ``begin_ns`` of each new round; park in between; return on stop."""
        words, seen = self._words, 0
        while not words[_STOP]:
            if words[_ROUND] != seen:
                seen = words[_ROUND]
                yield words[_BEGIN_NS]
            ring.words[PARKED] = seen
            time.sleep(self.parked_poll_s)

    def sleep_until(self, instant_ns: int) -> bool:
        """Sleep until CLOCK_REALTIME reaches ``instant_ns``; False if the round ended before."""
        while (left_ns := instant_ns - time.time_ns()) > 0:
            if instant_ns >= self._words[_END_NS]:
                return False
            time.sleep(min(left_ns, _LONGEST_NAP_NS) / 1e9)
        return instant_ns < self._words[_END_NS]
