"""A histogram of latencies that keeps 3 significant digits, in the layout of HdrHistogram.

The counts are a numpy array, so that a million latencies are recorded at once. The package
``hdrhistogram`` is used only to encode them as HdrHistogram's V2 text, and to decode that.

The layout is that of ``HdrHistogram(1, 2**40, 3)``. A bucket is a range of latencies that share a
count. It is as wide as the leading 11 bits of a latency allow::

    index of the count   lowest latency of the bucket   width of the bucket
        0 ..  2047              0 ..  2047 ns                  1 ns
     2048 ..  3071           2048 ..  4094 ns                  2 ns
     3072 ..  4095           4096 ..  8184 ns                  4 ns
     ...                    (1,024 buckets for each further doubling)
    31744 .. 32767           2**40 ns and above            2**30 ns
"""

from base64 import b64decode
from collections.abc import Iterable, Iterator
from math import log, sqrt
from typing import NamedTuple, Self
from zlib import decompressobj

import numpy as np
from hdrh.codec import HdrHistogramEncoder
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from snat_race.errors import UsageError

HIGHEST_NS = 1 << 40  # 18 minutes; a longer latency counts as this one
SUB_BUCKETS = 2048  # how many values 3 significant digits keep apart: 2 * 10**3, as a power of two
DOUBLINGS = 31  # how often the width doubles until HIGHEST_NS has a bucket, the first width included

_LOWEST_NS = 1
_DIGITS = 3
_KEPT_BITS = 11  # of a latency: log2(SUB_BUCKETS)
_HALF = SUB_BUCKETS // 2  # the number of buckets of each width but the first
_BUCKETS = (DOUBLINGS + 1) * _HALF
_MOST_COUNTED = 1 << 53  # in one bucket: no run dials so often, and the sum of 1,000 such fits 64 bits

_OUTER_HEADER_BYTES = 8  # a cookie and the length of what is compressed
_LARGEST_PAYLOAD = 40 + 9 * _BUCKETS  # bytes: a header, and at most 9 for each count (ZigZag LEB128)
_LARGEST_ENCODED = 2 * _LARGEST_PAYLOAD  # characters: base64 makes 4 of 3 bytes

_MOST_STAND_INS = 100  # for the slots that one dial hid; each then stands for several slots
_STEPS_PER_HALVING = 5  # HdrHistogram's default for the steps of a percentile distribution


class PercentileStep(NamedTuple):
    """A line of a percentile distribution: ``total_count`` latencies are at most ``value_ns``."""

    value_ns: int  # the highest latency of a bucket
    percent: float  # the percentage that was due, 0 to 100
    total_count: int  # of the latencies up to this value: at least ``percent`` of all


class Histogram:
    """How many dials took how long. Its size, 256 kB, does not depend on their number."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(_BUCKETS, np.int64)

    @classmethod
    def of(cls, encoded: Iterable[str]) -> Self:
        """Return the sum of encoded histograms.

        Raises:
            UsageError: one is damaged, or is of another layout.

        """
        total = cls()
        for text in encoded:
            total._counts += _decoded(text)
        return total

    def add(self, other: Self) -> None:
        """Add all latencies of another histogram."""
        self._counts += other._counts

    def record(self, latencies_ns: NDArray[np.uint64], weight: NDArray[np.uint64] | None = None) -> None:
        """Add latencies, each ``weight`` times (once by default)."""
        values = np.minimum(latencies_ns, np.uint64(HIGHEST_NS))
        bits = np.frexp(values.astype(np.float64))[1]  # the length in bits; exact below 2**53
        surplus = np.maximum(bits - _KEPT_BITS, 0).astype(np.uint64)
        index = surplus * np.uint64(_HALF) + (values >> surplus)
        np.add.at(self._counts, index.astype(np.intp), 1 if weight is None else weight.astype(np.int64))

    def record_from_schedule(self, latencies_ns: NDArray[np.uint64], interval_ns: int) -> None:
        """Add latencies, and those of the slots that passed while a dial was in flight.

        A worker that waits for a slow dial does not dial in the slots that pass meanwhile. Such
        dials are missing from the sample just when the path is slow ("coordinated omission": Gil
        Tene, "How NOT to Measure Latency"). A dial of such a slot would have begun later and ended
        at the same time. So a latency L stands for further latencies L - I, L - 2 I, ... down to 0,
        where I is ``interval_ns``; HdrHistogram's recordValueWithExpectedInterval() stops above 0.

        A single dial may hide very many slots. Then 100 of them are recorded, evenly spread, and
        each counts for as many as it stands for. ``interval_ns`` 0: there are no slots.
        """
        self.record(latencies_ns)
        if not interval_ns:
            return
        interval = np.uint64(interval_ns)
        slow = latencies_ns[latencies_ns > interval]
        hidden = slow // interval
        stands_for = (hidden + np.uint64(_MOST_STAND_INS - 1)) // np.uint64(_MOST_STAND_INS)
        most = int(min(hidden.max(initial=0), _MOST_STAND_INS))
        for number in range(1, most + 1):
            slots_later = np.uint64(number) * stands_for
            was_hidden = slots_later <= hidden
            waited = slow[was_hidden] - slots_later[was_hidden] * interval
            self.record(np.maximum(waited, np.uint64(1)), stands_for[was_hidden])

    @property
    def count(self) -> int:
        """The number of latencies recorded."""
        return int(self._counts.sum())

    @property
    def mean_ns(self) -> float:
        """The mean, to 3 digits: each latency counts as the middle of its bucket. 0 if there is none."""
        middles, counts = self._middles()
        return float(middles @ counts / counts.sum()) if counts.size else 0.0

    @property
    def standard_deviation_ns(self) -> float:
        """The standard deviation of all latencies recorded, to 3 digits. 0 if there is none."""
        middles, counts = self._middles()
        if not counts.size:
            return 0.0
        squares = (middles - self.mean_ns) ** 2
        return sqrt(float(squares @ counts / counts.sum()))

    def percentile_ns(self, percent: float) -> int:
        """Return a percentile, 0 to 100, to 3 digits; 0 if nothing was recorded.

        It is the nearest rank, and the highest value of its bucket. Percentile 0 is the lowest value
        of the first bucket. Both are as in HdrHistogram, whose own search takes 10 ms.
        """
        lowest, widths, counts = self._used_buckets()
        if not counts.size:
            return 0
        up_to = np.cumsum(counts)
        rank = max(1, int(percent * int(up_to[-1]) / 100 + 0.5))
        at = np.searchsorted(up_to, rank)
        if not percent:
            return int(lowest[at])
        return int(lowest[at] + widths[at] - 1)

    def percentile_steps(self) -> Iterator[PercentileStep]:
        """Yield the distribution in steps that get finer towards 100 %, as HdrHistogram's iterator does.

        Each step is a tenth of what is left to 100 %. It names the first bucket that reaches its
        percentage. The last two steps name the last bucket: at the percentage that was due, and at 100.
        """
        lowest, widths, counts = self._used_buckets()
        if not counts.size:
            return
        highest = lowest + widths - 1
        up_to = np.cumsum(counts)
        percents = 100.0 * up_to / up_to[-1]
        last = len(counts) - 1
        at, wanted = 0, 0.0
        while at < last:
            yield PercentileStep(int(highest[at]), wanted, int(up_to[at]))
            wanted += _step_from(wanted)
            at = min(last, int(np.searchsorted(percents, wanted)))
        yield PercentileStep(int(highest[last]), wanted, int(up_to[last]))
        yield PercentileStep(int(highest[last]), 100.0, int(up_to[last]))

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Yield the distinct latencies recorded, in ns and to 3 digits, ascending, and how many of each."""
        lowest, _, counts = self._used_buckets()
        yield from zip(lowest.tolist(), counts.tolist(), strict=True)

    def encode(self) -> str:
        """Return the histogram in HdrHistogram's V2 encoding, base64."""
        codec = HdrHistogram(_LOWEST_NS, HIGHEST_NS, _DIGITS)
        np.frombuffer(codec.counts, np.int64)[:] = self._counts
        used = np.flatnonzero(self._counts)
        if used.size:
            codec.set_internal_tacking_values(int(used[0]), int(used[-1]), self.count)
        encoded: bytes = codec.encode()
        return encoded.decode()

    def _used_buckets(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the lowest value, the width and the count of each bucket that holds any."""
        index = np.flatnonzero(self._counts)
        surplus = np.maximum(index // _HALF - 1, 0)
        lowest = np.where(index < SUB_BUCKETS, index, (index % _HALF + _HALF) << surplus)
        return lowest, np.int64(1) << surplus, self._counts[index]

    def _middles(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the middle, as HdrHistogram rounds it, and the count of each bucket that holds any.

        The middles are floats because the sum of all latencies may exceed 64 bits.
        """
        lowest, widths, counts = self._used_buckets()
        return (lowest + widths // 2).astype(np.float64), counts


def _step_from(percent: float) -> float:
    """Return the size of the step at ``percent``, a tenth of what is left to 100.

    The power is 200 / left; it is written as HdrHistogram writes it, so that rounding falls alike.
    """
    left = 100.0 - percent
    if not left:
        return 0.0
    ticks: float = _STEPS_PER_HALVING * 2 ** (log(100 / left) / log(2) + 1)
    return 100.0 / ticks


def _decoded(text: str) -> NDArray[np.int64]:
    """Return the counts of an encoded histogram.

    HdrHistogram.decode() would do, but its objects refer to one another, so 64 results held 29 MB
    until the garbage collector came.
    """
    try:
        _require_bounded(text)
        codec = HdrHistogramEncoder.decode(text)
        codec.init_counts(_BUCKETS)
        counts = np.frombuffer(codec.counts, np.int64)
    except Exception as failed:  # of base64, zlib, ctypes, and the package's own, which have no base
        raise UsageError("a result holds a histogram that is damaged; measure again") from failed
    header = codec.payload
    layout = header.lowest_trackable_value, header.highest_trackable_value, header.significant_figures
    if layout != (_LOWEST_NS, HIGHEST_NS, _DIGITS) or counts.max() > _MOST_COUNTED:
        raise UsageError("a result holds a histogram that is damaged; measure again")
    return counts


def _require_bounded(text: str) -> None:
    """Check that a histogram is no larger than ours can be: a small text may unpack to gigabytes.

    Raises:
        ValueError: it is larger.

    """
    if len(text) > _LARGEST_ENCODED:
        raise ValueError("too long")
    unpacking = decompressobj()
    unpacking.decompress(b64decode(text)[_OUTER_HEADER_BYTES:], _LARGEST_PAYLOAD)
    if not unpacking.eof:
        raise ValueError("it unpacks to more than there are buckets")
