"""The last seconds of a run, for whoever watches it. Memory does not grow with the run's length."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from snat_race.analysis.summary import Samples, exact
from snat_race.results import sample
from snat_race.results.counters import CounterDelta
from snat_race.results.schema import Latency, Summary

WINDOW_S, BIN_S, MOST_BINS = 2.0, 1.0, 40
_ENOUGH_LATENCIES = 20_000  # for the 99th percentile, to a few per cent of its rank


class Figures(NamedTuple):
    """Dials over ``elapsed_s``. ``insert_failed`` None: nobody reads it. ``latency_ns``: of all dials,
    those that failed included.
    """

    elapsed_s: float
    dials: int
    lost: int
    insert_failed: int | None
    latency_ns: Latency | None = None

    @property
    def rate_per_s(self) -> float:
        """Dials a second."""
        return self.dials / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def loss_rate(self) -> float:
        """The share that was lost."""
        return self.lost / self.dials if self.dials else 0.0


class Worker(NamedTuple):
    """One worker: dials and losses since the start; then, bin by bin, oldest first, its dials a second
    and how many were lost.
    """

    number: int
    dials: int
    lost: int
    rates_per_s: list[float]
    losses: list[int]


class _Drained(NamedTuple):
    at_s: float
    latencies_ns: NDArray[np.uint64]
    lost: int
    insert_failed: int | None


class _Bin(NamedTuple):
    elapsed_s: float
    dials: NDArray[np.int64]
    lost: NDArray[np.int64]


class Recent:
    """Fed with what is drained; tells of the last :data:`WINDOW_S`, and of each worker's last bins."""

    def __init__(self, workers: int) -> None:
        self._window: deque[_Drained] = deque([_Drained(0.0, np.empty(0, np.uint64), 0, 0)])
        self._bins: deque[_Bin] = deque(maxlen=MOST_BINS)
        self._dials, self._lost = np.zeros((2, workers), np.int64)
        self._bin_began_s, self._binned = 0.0, np.zeros((2, workers), np.int64)

    def add(self, at_s: float, drained: Sequence[Samples], watched: Sequence[CounterDelta]) -> None:
        """Add each worker's samples, drained ``at_s`` after the start; ``watched`` counts since then."""
        dials = np.fromiter(map(len, drained), np.int64, len(drained))
        # Of thousands of arrays of records, np.concatenate() takes twenty times as long.
        packed = np.frombuffer(b"".join(cast("Sequence[bytes]", drained)), sample.FIELDS)["packed"]
        failed = np.flatnonzero(sample.errors(packed))
        whose = np.searchsorted(np.cumsum(dials), failed, side="right")
        lost = np.bincount(whose, minlength=len(drained))
        self._dials += dials
        self._lost += lost
        self._window.append(
            _Drained(at_s, sample.latencies_ns(packed), len(failed), insert_failed(watched))
        )
        while at_s - self._window[1].at_s >= WINDOW_S:
            self._window.popleft()
        self._bin(at_s)

    def _bin(self, at_s: float) -> None:
        """Close the bin, once it is long enough: a whole number of drains, so none is split."""
        if (elapsed_s := at_s - self._bin_began_s) >= BIN_S:
            dials, lost = self._dials - self._binned[0], self._lost - self._binned[1]
            self._bins.append(_Bin(elapsed_s, dials, lost))
            self._bin_began_s, self._binned = at_s, np.stack((self._dials, self._lost))

    @property
    def last(self) -> Figures:
        """The window; its first entry only marks where it begins."""
        first, *others = self._window
        elapsed_s, latest = self._window[-1].at_s - first.at_s, self._window[-1].insert_failed
        dials = sum(len(each.latencies_ns) for each in others)
        rise = None if latest is None else latest - (first.insert_failed or 0)
        lost = sum(each.lost for each in others)
        return Figures(elapsed_s, dials, lost, rise, _latency([each.latencies_ns for each in others]))

    @property
    def total(self) -> Figures:
        """All since the start, but for the latencies."""
        latest = self._window[-1]
        return Figures(latest.at_s, int(self._dials.sum()), int(self._lost.sum()), latest.insert_failed)

    def worst(self, most: int) -> list[Worker]:
        """Return those that lost most, then those that dialled most, in the order of their numbers."""
        ranked = np.lexsort((-self._dials, -self._lost))[:most]
        return [self._worker(index) for index in sorted(ranked.tolist())]

    def _worker(self, index: int) -> Worker:
        return Worker(
            index,
            int(self._dials[index]),
            int(self._lost[index]),
            [float(each.dials[index] / each.elapsed_s) for each in self._bins],
            [int(each.lost[index]) for each in self._bins],
        )


@dataclass(slots=True)
class Standing:
    """What the rounds of one rule have come to so far."""

    dials: int = 0
    lost: int = 0
    insert_failed: int = 0
    paired: int = 0
    collisions: int = 0

    def add(self, summary: Summary) -> None:
        """Add a round."""
        self.dials += summary.attempted
        self.lost += summary.failed
        self.insert_failed += insert_failed(summary.watched) or 0
        self.paired += summary.paired or 0
        self.collisions += summary.collisions or 0

    @property
    def collided(self) -> float | None:
        """The share of the paired slots that collided; None as long as there is none."""
        return self.collisions / self.paired if self.paired else None


def figures_of(summary: Summary) -> Figures:
    """Return what a round came to."""
    counted = summary.attempted, summary.failed, insert_failed(summary.watched)
    return Figures(summary.elapsed_s, *counted, summary.latency_all_ns)


def insert_failed(watched: Sequence[CounterDelta]) -> int | None:
    """Add insert_failed up, over CPUs and namespaces; None if nobody read it."""
    read = [sum(each.conntrack.insert_failed) for each in watched if each.conntrack]
    return sum(read) if read else None


def _latency(latencies_ns: list[NDArray[Any]]) -> Latency | None:
    """Return the percentiles: of so many dials that sorting them costs little. The maximum is of all."""
    count = sum(map(len, latencies_ns))
    stride = -(-count // _ENOUGH_LATENCIES) or 1
    latency = exact(np.concatenate([each[::stride] for each in latencies_ns])) if count else None
    return latency and latency.model_copy(
        update={"max": max(int(each.max()) for each in latencies_ns if each.size)}
    )
