"""The consumer's side of the ring: copies finished samples out as numpy arrays."""

from typing import TYPE_CHECKING

import numpy as np

from snat_race.load.ring import Ring
from snat_race.results.sample import FIELDS

if TYPE_CHECKING:
    from snat_race.results.sample import Samples


class Drain:
    """The one consumer of ``ring``. ``recorded`` counts the samples it has taken."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._mask = ring.capacity - 1
        self._samples = np.frombuffer(ring.memory, dtype=FIELDS, offset=ring.samples_at)
        self._visible = 0
        self.recorded = 0

    def take(self) -> "Samples":
        """Return a copy of the samples that are certainly visible, oldest first.

        Python has no memory barriers. On a weakly ordered CPU ``head`` may be seen before the
        sample it announces, so each call takes only what ``head`` announced one call *earlier*.
        Once the worker is parked or reaped, two calls take everything.
        """
        begin, end = self.recorded, self._visible
        self._visible = self._ring.head
        if begin == end:
            return self._samples[:0].copy()
        first, last = begin & self._mask, end & self._mask
        if first < last:
            taken = self._samples[first:last].copy()
        else:
            taken = np.concatenate((self._samples[first:], self._samples[:last]))
        self.recorded = end
        self._ring.release(end)
        return taken

    def take_rest(self) -> "Samples":
        """Return all samples that are left. Call it once the worker is parked or reaped."""
        return np.concatenate((self.take(), self.take()))
