"""What one worker and its parent tell each other while it dials: counters and orders, in shared memory.

The mapping is shared across fork and has no name, so nothing can leak. Each field has one side that
writes it. What the worker writes and what the parent writes lie on different cache lines, so neither
takes the line away from the other. A field is one aligned word of 8 bytes: no reader sees it half written.
"""

import ctypes
from mmap import mmap
from typing import Self

WORD = ctypes.c_uint64
LINE_WORDS = 16  # 128 bytes: a cache line and its neighbour, which many CPUs fetch together

_RETRANSMIT_COUNTS = 8


class WorkerState(ctypes.Structure):
    """The state of one worker. Make it with :meth:`shared`, before the fork.

    A ctypes structure, because its attributes are faster than the items of a memoryview.
    """

    # Written by the worker, read by the parent.
    attempted: int  # dials begun since the fork
    late: int  # slots, or ticks, that passed without a dial since the fork
    parked_round: int  # number of the last round this worker has finished; 0: none yet
    slow_connects: (
        "ctypes.Array[WORD]"  # connects of over 0.9 s since the fork, by retransmits of their SYN
    )

    # Written by the parent, read by the worker.
    quota: int  # the most dials of the next round

    _fields_ = (
        ("attempted", WORD),
        ("late", WORD),
        ("parked_round", WORD),
        ("slow_connects", WORD * _RETRANSMIT_COUNTS),
        ("_rest_of_the_workers_lines", WORD * (LINE_WORDS - 3 - _RETRANSMIT_COUNTS)),
        ("quota", WORD),
    )

    @classmethod
    def shared(cls) -> Self:
        """Return a new state, all zero, that this process will share with those it forks."""
        return cls.from_buffer(mmap(-1, ctypes.sizeof(cls)))

    def count_slow_connect(self, retransmits: int) -> None:
        """Count a slow connect by how often its SYN was sent again; the last count is 7 or more."""
        self.slow_connects[min(retransmits, _RETRANSMIT_COUNTS - 1)] += 1
