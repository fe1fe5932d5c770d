"""The reader's side of the ring: copies finished samples out as numpy arrays."""

from typing import TYPE_CHECKING

import numpy as np

from snat_race.load.ring import HEAD, TAIL, Ring
from snat_race.results.sample import FIELDS

if TYPE_CHECKING:
    from snat_race.results.sample import Samples


class Drain:
    """The one consumer of ``ring``. ``recorded`` counts the samples it has taken."""

    def __init__(self, ring: Ring) -> None:
        self._words = ring.words
        self._mask = ring.capacity - 1
        self._slots = np.frombuffer(ring.memory, dtype=FIELDS, offset=ring.data_offset)
        self._visible = 0
        self.recorded = 0

    def take(self) -> "Samples":
        """Return a copy of the samples that are certainly visible, oldest first.

        Python has no memory barriers. On a weakly ordered CPU ``head`` may be seen before the
        sample it announces, so each call takes only what ``head`` announced one call *earlier*.
        Once the worker is parked or reaped, two calls take everything.
        """
        tail, limit = self.recorded, self._visible
        self._visible = self._words[HEAD]
        if limit == tail:
            return self._slots[:0].copy()
        first, last = tail & self._mask, limit & self._mask
        if first < last:
            taken = self._slots[first:last].copy()
        else:
            taken = np.concatenate((self._slots[first:], self._slots[:last]))
        self.recorded = limit
        self._words[TAIL] = limit
        return taken
