"""One dial in 16 bytes: when it started, how it ended, from which port, how long it took.

::

    word 0   start_ns    CLOCK_MONOTONIC just before connect()
    word 1   packed      latency_ns << 24 | source port << 8 | errno

errno 0 means connected; EINPROGRESS means that SO_SNDTIMEO ran out. Port 0 means "not known".
``packed`` is never 0, so a slot of fresh shared memory can never pass for a sample.

The field functions take an int or a numpy array of words; this module itself must not import
numpy, because the dialer imports it.
"""

from errno import EINPROGRESS
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = TypeVar("Words", int, NDArray[Any])
    Samples = NDArray[Any]

FIELDS = [("start_ns", "u8"), ("packed", "u8")]
SIZE_BYTES = 16
TIMED_OUT = EINPROGRESS

PORT_SHIFT = 8
LATENCY_SHIFT = 24
MAX_LATENCY_NS = (1 << 40) - 1
_ERRNO_MASK = 0xFF
_PORT_MASK = 0xFFFF


def pack(error: int, port: int, latency_ns: int) -> int:
    """Pack one outcome; a latency outside 1 ns .. 18 min is clamped to that range."""
    clamped = min(max(latency_ns, 1), MAX_LATENCY_NS)
    return clamped << LATENCY_SHIFT | (port & _PORT_MASK) << PORT_SHIFT | (error & _ERRNO_MASK)


def errors(packed: "Words") -> "Words":
    """Return the errno of each packed word."""
    return packed & _ERRNO_MASK


def ports(packed: "Words") -> "Words":
    """Return the source port of each packed word."""
    return packed >> PORT_SHIFT & _PORT_MASK


def latencies_ns(packed: "Words") -> "Words":
    """Return the connect latency of each packed word, in ns."""
    return packed >> LATENCY_SHIFT
