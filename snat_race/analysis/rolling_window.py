"""The last seconds of a run, for whoever looks on. Memory does not grow with the run's length."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from snat_race.analysis.summary import Samples, exact_latency
from snat_race.results import sample
from snat_race.results.counters import CounterDelta, conntrack_of
from snat_race.results.schema import Latency, Summary

WINDOW_S = 2.0  # how long what was drained counts as of late
BIN_S = 1.0  # the least length of a bin of a worker's history
MOST_BINS = 40  # of a worker's history
_ENOUGH_LATENCIES = 20_000  # for the 99th percentile, to a few per cent of its rank


class DialStatistics(NamedTuple):
    """The dials of a stretch of time."""

    elapsed_s: float  # its length
    dials: int  # with an outcome
    lost: int  # of these, the dials that failed
    insert_failed: int | None  # by how much the counter went up; None: nobody reads it
    latency_ns: Latency | None = None  # of all dials, those that failed included; None: not known
    late_by_retransmit: int = 0  # of the dials, those that connected only after a lost SYN was sent again

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """Return those of a period or a round."""
        return cls(
            elapsed_s=summary.elapsed_s,
            dials=summary.attempted,
            lost=summary.failed,
            insert_failed=insert_failed_in(summary.counters),
            latency_ns=summary.latency_all_ns,
            late_by_retransmit=summary.late_by_retransmit,
        )

    @property
    def rate_per_s(self) -> float:
        """Dials a second."""
        return self.dials / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def loss_rate(self) -> float:
        """The part of the dials that was lost, 0 to 1."""
        return self.lost / self.dials if self.dials else 0.0


class WorkerHistory(NamedTuple):
    """What one worker process did."""

    number: int  # of the worker, from 0
    dials: int  # since the start
    lost: int  # since the start
    rates_per_s: list[float]  # dials a second, bin by bin, the oldest first
    losses: list[int]  # lost dials, bin by bin, the oldest first


class _Drain(NamedTuple):
    """What was drained at one time, of all workers."""

    at_s: float  # when, after the start
    latencies_ns: NDArray[np.uint64]  # of the dials drained
    lost: int  # of the dials drained
    insert_failed: int | None  # since the start, unlike the others before
    late_by_retransmit: int = 0  # likewise


class _Bin(NamedTuple):
    """A stretch of the workers' histories."""

    elapsed_s: float  # its length
    dials: NDArray[np.int64]  # by worker
    lost: NDArray[np.int64]  # by worker


class RollingWindow:
    """Takes in what is drained; tells of the last :data:`WINDOW_S`, and of each worker's last bins."""

    def __init__(self, workers: int) -> None:
        start = _Drain(at_s=0.0, latencies_ns=np.empty(0, np.uint64), lost=0, insert_failed=0)
        self._drains: deque[_Drain] = deque([start])  # the first only marks where the window begins
        self._bins: deque[_Bin] = deque(maxlen=MOST_BINS)
        self._dials = np.zeros(workers, np.int64)  # by worker, since the start
        self._lost = np.zeros(workers, np.int64)  # likewise
        self._bin_began_s = 0.0
        self._dials_at_bin = self._dials.copy()  # as they were when the present bin began
        self._lost_at_bin = self._lost.copy()

    def add(
        self,
        at_s: float,
        drained: Sequence[Samples],
        counters: Sequence[CounterDelta],
        *,
        late_by_retransmit: int = 0,
    ) -> None:
        """Add what was drained.

        Args:
            at_s: when, in seconds after the start.
            drained: the samples of each worker.
            counters: what the kernel has counted since the start.
            late_by_retransmit: dials that connected late by a retransmit since the start.

        """
        dials = np.fromiter(map(len, drained), np.int64, len(drained))
        # Of thousands of arrays of records, np.concatenate() takes twenty times as long.
        joined = b"".join(cast("Sequence[bytes]", drained))
        packed = np.frombuffer(joined, sample.FIELDS)["packed"]
        failed = np.flatnonzero(sample.errors(packed))
        worker_of_failed = np.searchsorted(np.cumsum(dials), failed, side="right")
        self._dials += dials
        self._lost += np.bincount(worker_of_failed, minlength=len(drained))
        self._drains.append(
            _Drain(
                at_s=at_s,
                latencies_ns=sample.latencies_ns(packed),
                lost=len(failed),
                insert_failed=insert_failed_in(counters),
                late_by_retransmit=late_by_retransmit,
            )
        )
        while at_s - self._drains[1].at_s >= WINDOW_S:
            self._drains.popleft()
        self._close_bin(at_s)

    def _close_bin(self, at_s: float) -> None:
        """Close the present bin, if it is long enough: a whole number of drains, so none is split."""
        elapsed_s = at_s - self._bin_began_s
        if elapsed_s < BIN_S:
            return
        dials = self._dials - self._dials_at_bin
        lost = self._lost - self._lost_at_bin
        self._bins.append(_Bin(elapsed_s, dials, lost))
        self._bin_began_s = at_s
        self._dials_at_bin = self._dials.copy()
        self._lost_at_bin = self._lost.copy()

    @property
    def last(self) -> DialStatistics:
        """The dials of the window."""
        before, *drains = self._drains
        latest = self._drains[-1]
        counted = latest.insert_failed
        return DialStatistics(
            elapsed_s=latest.at_s - before.at_s,
            dials=sum(len(drain.latencies_ns) for drain in drains),
            lost=sum(drain.lost for drain in drains),
            insert_failed=None if counted is None else counted - (before.insert_failed or 0),
            latency_ns=_latency([drain.latencies_ns for drain in drains]),
            late_by_retransmit=latest.late_by_retransmit - before.late_by_retransmit,
        )

    @property
    def total(self) -> DialStatistics:
        """All dials since the start; their latencies are not kept."""
        latest = self._drains[-1]
        return DialStatistics(
            elapsed_s=latest.at_s,
            dials=int(self._dials.sum()),
            lost=int(self._lost.sum()),
            insert_failed=latest.insert_failed,
            late_by_retransmit=latest.late_by_retransmit,
        )

    def worst(self, most: int) -> list[WorkerHistory]:
        """Return ``most`` workers at most, in the order of their numbers.

        They are those that lost most; of those that lost as much, those that dialled most.
        """
        ranked = np.lexsort((-self._dials, -self._lost))[:most]
        return [self._history(number) for number in sorted(ranked.tolist())]

    def _history(self, number: int) -> WorkerHistory:
        return WorkerHistory(
            number=number,
            dials=int(self._dials[number]),
            lost=int(self._lost[number]),
            rates_per_s=[float(bin_.dials[number] / bin_.elapsed_s) for bin_ in self._bins],
            losses=[int(bin_.lost[number]) for bin_ in self._bins],
        )


@dataclass(kw_only=True, slots=True)
class VariantTotals:
    """What the rounds of one variant add up to so far."""

    dials: int = 0  # with an outcome
    lost: int = 0  # of these, the dials that failed
    insert_failed: int = 0  # of all namespaces that were read; 0 also if none was
    paired: int = 0  # slots in which two or more containers dialled
    collisions: int = 0  # of these, the slots in which at least one lost

    def add(self, summary: Summary) -> None:
        """Add a round."""
        self.dials += summary.attempted
        self.lost += summary.failed
        self.insert_failed += insert_failed_in(summary.counters) or 0
        self.paired += summary.paired or 0
        self.collisions += summary.collisions or 0

    @property
    def collision_rate(self) -> float | None:
        """The part of the paired slots that collided, 0 to 1; None as long as there is none."""
        return self.collisions / self.paired if self.paired else None


def insert_failed_in(counters: Iterable[CounterDelta]) -> int | None:
    """Add insert_failed up, over CPUs and namespaces; None if nobody read it."""
    conntrack = conntrack_of(counters)
    return sum(conntrack.insert_failed) if conntrack else None


def _latency(latencies_ns: Sequence[NDArray[np.uint64]]) -> Latency | None:
    """Return the percentiles of every n-th latency, so few that sorting them costs little.

    The maximum is of all latencies. None if there are none.
    """
    count = sum(map(len, latencies_ns))
    if not count:
        return None
    stride = -(-count // _ENOUGH_LATENCIES)
    longest_ns = max(int(drained.max()) for drained in latencies_ns if drained.size)
    return exact_latency(np.concatenate([drained[::stride] for drained in latencies_ns]), longest_ns)
