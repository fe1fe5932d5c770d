"""One namespace, drain by drain: sightings in, SYNs that left and SYNs that were lost out."""

import time
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from snat_race.packets.capture import DEFAULT_RING_MIB, Capture
from snat_race.packets.matching import WINDOW_NS, Journeys, Judged, Matcher, distinct, hashed
from snat_race.packets.syn import SIGHTING, address, sightings

_NOTHING = np.zeros(0, SIGHTING)


class Tracer:
    """Sees and judges every SYN of the namespace that this thread is in when it is made. A context manager.

    Args:
        keeps: whether a SYN for an address was not for this host to forward. It is asked about those that
            did not leave, with the device if that was the port of a bridge, else with 0.
        ring_mib: size of the ring, as for :class:`Capture`.

    Attributes:
        sightings: how many there were.
        dropped: how many more there would have been, had the ring not been full.
        unknown: SYNs of which nothing can be said, because sightings of them are missing.

    Raises:
        EnvironmentLacks: as for :class:`Capture`.

    """

    def __init__(self, keeps: Callable[[str, int], bool], ring_mib: int = DEFAULT_RING_MIB) -> None:
        self._capture = Capture(ring_mib)
        self._matcher = Matcher()
        self._keeps = keeps
        self._drained_ns = time.time_ns()
        self.sightings = 0
        self.dropped = 0
        self.unknown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.close()

    def drain(self) -> Judged:
        """Read what was seen since the last call; return the journeys that are over, with lost SYNs only.

        A SYN that this host was not to forward is not lost. One that has a winner was lost all the same: a
        DNAT stands in front of the address.
        """
        now_ns = time.time_ns()
        parts = [sightings(frames) for frames in self._capture.drain()]
        dropped = self._capture.statistics().dropped
        if dropped:
            self.dropped += dropped
            self._matcher.miss(self._drained_ns, time.time_ns())
        self._drained_ns = now_ns
        seen = np.concatenate(parts) if parts else _NOTHING
        self.sightings += len(seen)
        judged = self._matcher.judge(seen, now_ns)
        self.unknown += judged.unknown
        lost = judged.raced | ~self._is_kept(judged.vanished)
        return Judged(
            left=judged.left,
            vanished=judged.vanished[lost],
            winners=judged.winners[lost],
            unknown=judged.unknown,
        )

    def settle(self) -> Judged:
        """Wait until every SYN that has come in so far is either gone or lost; then drain."""
        time.sleep((WINDOW_NS + 1_000_000) / 1e9)  # what a loss is, not how long something takes
        return self.drain()

    def forget(self) -> None:
        """Give up the journeys that are not over, because the clock was set meanwhile."""
        self.drain()
        self.unknown += self._matcher.forget()

    def _is_kept(self, vanished: Journeys) -> NDArray[np.bool_]:
        """Return which of those that did not leave were not meant to."""
        destinations: NDArray[Any] = vanished["last_destination"].copy()
        destinations["port"] = 0
        rows = np.arange(len(vanished))
        last = vanished["devices"][rows, np.count_nonzero(vanished["devices"], axis=1) - 1]
        ports = np.where(vanished["passing"], last, 0)
        first, _, numbers = distinct(hashed(destinations) ^ ports.astype(np.uint64))
        kept = [
            self._keeps(address(destination), port)
            for destination, port in zip(destinations[first], ports[first].tolist(), strict=True)
        ]
        return np.array(kept, bool)[numbers]
