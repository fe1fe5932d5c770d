"""CLOCK_REALTIME as seen from CLOCK_MONOTONIC.

All that takes time is counted by CLOCK_MONOTONIC. Only slots follow CLOCK_REALTIME, because that is what
strangers share. The one is the other plus an offset. Both are slewed alike, so the offset stays the same
to the ns until CLOCK_REALTIME is set: by hand, by NTP's first correction, by a leap second, or because
the machine slept, which CLOCK_MONOTONIC does not count (clock_gettime(2); timekeeping_inject_offset()).
"""

import time
from collections.abc import Callable
from typing import NamedTuple

STEP_NS = 50_000_000
"""By how far the clock must be set for a run to say so: less than that moves no second of a report."""

_TRIES = 3
_RESOLUTION_NS = 1000  # a step is more than that


class OffsetReading(NamedTuple):
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, as it was read."""

    window_ns: int  # how long the reading took; it is wrong by half of that at the most
    offset_ns: int


def read_offset(
    realtime_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
) -> OffsetReading:
    """Read the offset between the two clocks.

    This process may lose its CPU between two readings. So CLOCK_REALTIME is read between two readings
    of CLOCK_MONOTONIC, several times, and the try whose two readings lie closest together counts.
    """
    tries = []
    for _ in range(_TRIES):
        before_ns = monotonic_ns()
        real_ns = realtime_ns()
        after_ns = monotonic_ns()
        tries.append(OffsetReading(after_ns - before_ns, real_ns - (before_ns + after_ns) // 2))
    return min(tries)


class ClockOffset:
    """The offset between the two clocks, and whether it is still the same.

    Attributes:
        offset_ns: add it to a CLOCK_MONOTONIC of about now to get CLOCK_REALTIME.
        largest_step_ns: by how far CLOCK_REALTIME was set between two readings, with its sign: the
            largest step so far; 0: it was not set by ``STEP_NS`` or more.

    """

    def __init__(self, realtime_ns: Callable[[], int] = time.time_ns) -> None:
        self._realtime_ns = realtime_ns
        self._window_ns, self.offset_ns = read_offset(realtime_ns)
        self.largest_step_ns = 0

    def update(self) -> int:
        """Read the offset again; return by how much CLOCK_REALTIME was set since; 0: it was not."""
        window_ns, offset_ns = read_offset(self._realtime_ns)
        step_ns = offset_ns - self.offset_ns
        if abs(step_ns) <= (window_ns + self._window_ns) // 2 + _RESOLUTION_NS:
            return 0
        self._window_ns, self.offset_ns = window_ns, offset_ns
        if abs(step_ns) > max(STEP_NS, abs(self.largest_step_ns)):
            self.largest_step_ns = step_ns
        return step_ns
