"""A single-producer single-consumer ring of samples in anonymous shared memory: the writer's side.

The mapping is shared across fork and has no name, so nothing can leak. ``head`` and the counters
are written by the worker only, ``tail`` by the parent only, on cache lines of their own. When the
ring is full the sample is dropped and counted; the worker never waits. ``attempted ==
recorded + overruns`` holds whenever no dial is in flight, even if the worker was killed.

The reader is in ``drain.py``: this side must not import numpy.
"""

from collections.abc import Callable
from mmap import mmap

from snat_race.results.sample import SIZE_BYTES

_WORD_BYTES = 8
_HEADER_WORDS = 32
# The worker's line of the header ...
HEAD, ATTEMPTED, LATE, OVERRUNS, PARKED = 0, 1, 2, 3, 4
RESENT = range(8, 16)  # slow connects, by how often their SYN was sent again: 0 to 7 or more
# ... and the parent's.
TAIL, QUOTA = 16, 17


class Ring:
    """Shared memory of one worker: ``capacity`` samples (a power of two) and its counters."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1 or capacity & (capacity - 1):
            raise ValueError(f"ring capacity must be a power of two, not {capacity}")
        self.capacity = capacity
        self.data_offset = _HEADER_WORDS * _WORD_BYTES
        self.memory = mmap(-1, self.data_offset + capacity * SIZE_BYTES)
        self.words = memoryview(self.memory).cast("Q")

    def writer(self) -> Callable[[int, int], None]:
        """Return ``store(start_ns, packed)``, a closure because the hot loop calls it."""
        words, mask = self.words, self.capacity - 1

        def store(start_ns: int, packed: int) -> None:
            head = words[HEAD]
            if head - words[TAIL] > mask:
                words[OVERRUNS] += 1
                return
            at = _HEADER_WORDS + ((head & mask) << 1)
            words[at] = start_ns
            words[at + 1] = packed
            words[HEAD] = head + 1

        return store

    def count(self, counter: int, more: int = 1) -> None:
        """Raise one of the worker's counters."""
        self.words[counter] += more
