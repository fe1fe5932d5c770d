"""A latency histogram with 3 significant digits: HdrHistogram, fed by numpy."""

import io
from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from snat_race.errors import UsageError

HIGHEST_NS = 1 << 40
_DIGITS = 3
_KEPT_BITS = 11  # HdrHistogram keeps 2048 sub-buckets for 3 digits: the leading 11 bits
_PHANTOMS = 100


class Histogram:
    """Latencies in ns."""

    def __init__(self) -> None:
        self._hdr = HdrHistogram(1, HIGHEST_NS, _DIGITS)

    @classmethod
    def of(cls, encoded: Iterable[str]) -> Self:
        """Return the sum of encoded histograms.

        Raises:
            UsageError: one is no histogram of ours.

        """
        total = cls()
        for text in encoded:
            try:
                total._hdr.decode_and_add(text)
            except Exception as failed:
                raise UsageError("a result holds a histogram that is damaged; measure again") from failed
        return total

    def record(self, latencies_ns: NDArray[np.uint64], weight: NDArray[np.uint64] | None = None) -> None:
        """Add latencies, each ``weight`` times (once by default)."""
        if not latencies_ns.size:
            return
        surplus = np.maximum(np.frexp(latencies_ns.astype(float))[1] - _KEPT_BITS, 0).astype(np.uint64)
        values, index, counts = np.unique(
            latencies_ns >> surplus << surplus, return_inverse=True, return_counts=True
        )
        if weight is not None:
            counts = np.bincount(index, weights=weight)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._hdr.record_value(min(value, HIGHEST_NS), int(count))

    def record_from_schedule(self, latencies_ns: NDArray[np.uint64], interval_ns: int) -> None:
        """Add latencies together with those of the slots that passed meanwhile.

        A dial that took longer than the interval hides the dials that should have begun during
        it: they would have waited the rest of that time (coordinated omission; the correction is
        HdrHistogram's). More than 100 hidden slots are stood for by 100, weighted.
        """
        self.record(latencies_ns)
        if not interval_ns:
            return
        long = latencies_ns[latencies_ns > interval_ns]
        hidden = long // interval_ns
        stride = -(-hidden.astype(np.int64) // _PHANTOMS).astype(np.uint64)
        for k in range(1, int(min(hidden.max(initial=0), _PHANTOMS)) + 1):
            within = k * stride <= hidden
            waited = (long - k * stride * np.uint64(interval_ns))[within]
            self.record(np.maximum(waited, 1), stride[within])

    @property
    def count(self) -> int:
        """The number of latencies recorded."""
        return int(self._hdr.get_total_count())

    @property
    def mean_ns(self) -> float:
        """The mean, to 3 digits: each latency counts as the middle of its bucket."""
        lowest, widths, counts = self._buckets()
        return float((lowest + widths / 2) @ counts / self.count) if self.count else 0.0

    def percentile_ns(self, percent: float) -> int:
        """Return a percentile; 0 and 100 are the smallest and largest recorded, to 3 digits; 0 if
        nothing was recorded.

        The nearest rank, and the highest value of its bucket, as HdrHistogram has it; its own search
        takes 10 ms.
        """
        lowest, widths, counts = self._buckets()
        if not counts.size:
            return 0
        up_to = np.cumsum(counts)
        at = np.searchsorted(up_to, max(1, int(percent * up_to[-1] / 100 + 0.5)))
        return int(lowest[at] + (widths[at] - 1 if percent else 0))

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Yield the distinct latencies recorded, to 3 digits, ascending, and how many of each."""
        lowest, _, counts = self._buckets()
        yield from zip(lowest.tolist(), counts.tolist(), strict=True)

    def _buckets(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the lowest value, the width and the count of each bucket that holds any.

        HdrHistogram's layout: 2048 values of one width, then halves of as many, each twice as wide.
        Its own iterator takes 40 ms.
        """
        every = np.frombuffer(self._hdr.counts, np.int64)
        index = np.flatnonzero(every)
        half = 1 << (_KEPT_BITS - 1)
        doubled = np.maximum(index // half - 1, 0)
        lowest = np.where(index < 2 * half, index, (index % half + half) << doubled)
        return lowest, np.int64(1) << doubled, every[index]

    def percentile_distribution(self, unit_ns: float) -> str:
        """Return HdrHistogram's own text format, ``.hgrm``, with values in units of so many ns."""
        out = io.BytesIO()
        self._hdr.output_percentile_distribution(out, unit_ns)
        return out.getvalue().decode()

    def encode(self) -> str:
        """Return the histogram in HdrHistogram's V2 encoding, base64."""
        encoded: bytes = self._hdr.encode()
        return encoded.decode()
