"""CLOCK_REALTIME against CLOCK_MONOTONIC: samples have the one, people and slots the other.

Slots follow CLOCK_REALTIME, because that is what strangers share. If it is set during a run, slots are
skipped or come again, and that is no fault of the network: the run must say so.
"""

import time
from collections.abc import Callable

STEP_NS = 50_000_000
"""A difference between two readings that is a step. NTP slews by less than 1 ms a second (adjtimex(2))."""

_TRIES = 3


def realtime_offset_ns(
    realtime_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
) -> int:
    """Return CLOCK_REALTIME minus CLOCK_MONOTONIC, in ns.

    This process may lose its CPU between two readings. So CLOCK_REALTIME is read between two readings
    of CLOCK_MONOTONIC, several times, and the try whose two readings lie closest together counts.
    """
    tries = []
    for _ in range(_TRIES):
        before_ns = monotonic_ns()
        real_ns = realtime_ns()
        after_ns = monotonic_ns()
        tries.append((after_ns - before_ns, real_ns - (before_ns + after_ns) // 2))
    return min(tries)[1]


class ClockOffset:
    """The offset between the two clocks, read again and again.

    Attributes:
        offset_ns: the last reading; add it to a CLOCK_MONOTONIC of about then to get CLOCK_REALTIME.
        largest_step_ns: by how far CLOCK_REALTIME was set between two readings, with its sign: the
            largest step so far; 0: it was not set. Waking from a suspend counts, because
            CLOCK_MONOTONIC stands still meanwhile.

    """

    def __init__(self, read: Callable[[], int] = realtime_offset_ns) -> None:
        self._read = read
        self.offset_ns = read()
        self.largest_step_ns = 0

    def update(self) -> int:
        """Read the offset again, note whether it stepped, and return it."""
        before_ns, self.offset_ns = self.offset_ns, self._read()
        step_ns = self.offset_ns - before_ns
        if abs(step_ns) > max(STEP_NS, abs(self.largest_step_ns)):
            self.largest_step_ns = step_ns
        return self.offset_ns
