"""A single-producer single-consumer ring of samples in anonymous shared memory: the producer's side.

``head`` and ``overruns`` are written by the worker only, ``tail`` by the parent only, on cache lines
of their own. A full ring drops the sample and counts it, because the worker must never wait.
``attempted == recorded + overruns`` holds whenever no dial is in flight, even if the worker was killed.

The consumer is in ``drain.py``: this side must not import numpy.
"""

import ctypes
from collections.abc import Callable
from mmap import MAP_ANONYMOUS, MAP_POPULATE, MAP_SHARED, PAGESIZE, mmap

from snat_race.load.worker_state import LINE_WORDS, WORD
from snat_race.results.sample import SIZE_BYTES


class _Header(ctypes.Structure):
    """What stands before the samples; counts since the fork."""

    head: int  # samples stored; written by the worker, after the sample itself
    overruns: int  # samples dropped because the ring was full; written by the worker
    tail: int  # samples taken; written by the parent

    _fields_ = (
        ("head", WORD),
        ("overruns", WORD),
        ("_rest_of_the_workers_lines", WORD * (LINE_WORDS - 2)),
        ("tail", WORD),
        ("_rest_of_the_parents_lines", WORD * (LINE_WORDS - 1)),
    )


class Ring:
    """Shared memory of one worker: ``capacity`` samples, a power of two."""

    samples_at = ctypes.sizeof(_Header)  # offset of the first sample in ``memory``, in bytes

    def __init__(self, capacity: int) -> None:
        if capacity < 1 or capacity & (capacity - 1):
            raise ValueError(f"ring capacity must be a power of two, not {capacity}")
        self.capacity = capacity
        # All pages are there from the start: memory does not seem to grow until the ring was full once.
        populated = MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE
        self.memory = mmap(-1, self.samples_at + capacity * SIZE_BYTES, flags=populated)
        self._header = _Header.from_buffer(self.memory)

    @property
    def head(self) -> int:
        """How many samples were stored."""
        return self._header.head

    @property
    def overruns(self) -> int:
        """How many samples were dropped because the ring was full."""
        return self._header.overruns

    def release(self, tail: int) -> None:
        """Let the producer use the room of all samples before number ``tail`` again."""
        self._header.tail = tail

    def writer(self) -> Callable[[int, int], None]:
        """Return ``store(start_ns, packed)``, a closure because the hot loop calls it."""
        header = self._header
        words = memoryview(self.memory)[self.samples_at :].cast("Q")
        mask = self.capacity - 1
        for at in range(0, len(words), PAGESIZE // words.itemsize):
            words[at] = words[at]  # the page is mapped here now, and not amid a dial

        def store(start_ns: int, packed: int) -> None:
            head = header.head
            if head - header.tail > mask:
                header.overruns += 1
                return
            at = (head & mask) << 1
            words[at] = start_ns
            words[at + 1] = packed
            header.head = head + 1  # last: it announces the sample

        return store
