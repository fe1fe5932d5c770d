"""One dial in 16 bytes, two words of 8: when it started, how it ended, from which port, how long it took.

::

    word 0   start_ns              CLOCK_MONOTONIC just before connect(), in ns
    word 1   packed    bits 24-63  latency of connect() in ns, clamped to 1 .. 2^40 - 1 (18 minutes)
                       bits  8-23  source port; 0: not known
                       bits  0-7   errno; 0: connected; 255: an error without an errno that fits

EINPROGRESS means that SO_SNDTIMEO ran out before the server answered (socket(7)). ``packed`` is
never 0, because a latency is at least 1 ns. So a slot of fresh shared memory never passes for a sample.

The field functions take an int or a numpy array of words. This module itself must not import
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
UNKNOWN_ERROR = 255  # Linux's own errnos end at 133 on most machines (asm-generic/errno.h)

_PORT_SHIFT = 8
_LATENCY_SHIFT = 24
MAX_LATENCY_NS = (1 << 40) - 1
_ERRNO_MASK = 0xFF
_PORT_MASK = 0xFFFF


def pack(error: int, port: int, latency_ns: int) -> int:
    """Pack one outcome.

    ``port``: 0 .. 65535. A latency outside 1 .. ``MAX_LATENCY_NS`` is clamped to that range. An
    errno outside 0 .. 255 becomes ``UNKNOWN_ERROR``: it stays an error, and the port stays what it is.
    """
    # The hot loop calls this for every dial; min() and max() would take twice as long.
    if latency_ns < 1:
        latency_ns = 1
    elif latency_ns > MAX_LATENCY_NS:
        latency_ns = MAX_LATENCY_NS
    if error < 0 or error > _ERRNO_MASK:
        error = UNKNOWN_ERROR
    return latency_ns << _LATENCY_SHIFT | port << _PORT_SHIFT | error


def errors(packed: "Words") -> "Words":
    """Return the errno of each packed word."""
    return packed & _ERRNO_MASK


def ports(packed: "Words") -> "Words":
    """Return the source port of each packed word."""
    return packed >> _PORT_SHIFT & _PORT_MASK


def latencies_ns(packed: "Words") -> "Words":
    """Return the connect latency of each packed word, in ns."""
    return packed >> _LATENCY_SHIFT
