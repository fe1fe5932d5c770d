"""From samples to summaries: accumulate, then derive once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from errno import errorcode
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from snat_race.analysis.histogram import Histogram
from snat_race.analysis.intervals import wilson
from snat_race.results import sample
from snat_race.results.counters import CounterDelta
from snat_race.results.schema import Latency, Summary

Samples = NDArray[Any]


class Counts(Protocol):
    """The workers' own counters over the dials to summarise.

    A dial whose sample was dropped because the ring was full is in ``overruns``; its outcome is not known.
    """

    @property
    def recorded(self) -> int: ...  # noqa: D102
    @property
    def late(self) -> int: ...  # noqa: D102
    @property
    def overruns(self) -> int: ...  # noqa: D102
    @property
    def cut_short(self) -> int: ...  # noqa: D102


class Failure(NamedTuple):
    """One dial that did not connect."""

    ended_ns: int  # CLOCK_REALTIME when it was given up
    latency_ns: int  # how long it took
    source: str  # address and port it was dialled from; port *: not known
    remote: str  # address and port that it dialled
    errno: int


class Pairs(NamedTuple):
    """How many slots were paired: two or more containers dialled in them."""

    paired: int
    collisions: int  # of these, the slots in which at least one dial was lost


class PairedSlots(NamedTuple):
    """The slots of a round in which two or more containers dialled."""

    ports: NDArray[np.uint64]  # the source port of each
    losers: NDArray[np.int64]  # how many of its dials were lost

    @property
    def pairs(self) -> Pairs:
        """How many there are, and how many lost a dial."""
        return Pairs(len(self.ports), int((self.losers > 0).sum()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Circumstances:
    """What a summary says besides what became of its dials."""

    elapsed_s: float  # length of the period or run
    began_at: str | None = None  # its beginning: UTC, ISO 8601; None: not known
    pairs: Pairs | None = None  # None: one client cannot know which of its dials met another's
    syn_retransmits: Mapping[str, int] = field(default_factory=dict)  # slow connects by SYNs sent again
    counters: Sequence[CounterDelta] = ()  # what the kernel counted meanwhile, a delta a namespace


_ERROR_NAMES = {sample.TIMED_OUT: "TIMEOUT", sample.UNKNOWN_ERROR: "UNKNOWN"}


def error_name(error: int) -> str:
    """Return the name of a dial's errno; a timeout, and an error without an errno, have names of ours."""
    return _ERROR_NAMES.get(error) or errorcode.get(error, f"errno {error}")


def order_statistic(ordered: NDArray[Any], per_mille: int) -> int:
    """Return the exact percentile of sorted values, at index ``(n - 1) * p``, as the ancestor."""
    return int(ordered[(len(ordered) - 1) * per_mille // 1000])


class Total:
    """The dials of a period, a variant or a whole run. Memory does not grow with their number.

    Args:
        interval_ns: length of a slot; 0: there is no schedule to be late for.

    Attributes:
        recorded: dials added so far.

    """

    def __init__(self, interval_ns: int) -> None:
        self._interval_ns = interval_ns
        self._connected = Histogram()
        self._all = Histogram()
        self._from_slot = Histogram()
        self._errors: Counter[str] = Counter()
        self.recorded = 0

    def add(self, samples: Samples) -> None:
        """Add the samples of any worker."""
        packed = samples["packed"]
        latencies_ns = sample.latencies_ns(packed)
        errors = sample.errors(packed)
        self.recorded += len(packed)
        self._errors.update(count_errors(errors))
        self._connected.record(latencies_ns[errors == 0])
        self._all.record(latencies_ns)
        if self._interval_ns:
            self._from_slot.record_from_schedule(latencies_ns, self._interval_ns)

    def add_total(self, part: Self) -> None:
        """Add all dials of a part, a period say, that has slots of the same length."""
        self.recorded += part.recorded
        self._errors.update(part._errors)
        self._connected.add(part._connected)
        self._all.add(part._all)
        self._from_slot.add(part._from_slot)

    @property
    def failed(self) -> int:
        """The dials recorded that did not connect."""
        return self._errors.total()

    def summary(self, counts: Counts, circumstances: Circumstances) -> Summary:
        """Derive the summary; ``counts`` are the workers' own counters over the same dials."""
        return Summary(
            **_counted(counts, circumstances, self._errors),
            latency_ns=from_histogram(self._connected),
            latency_all_ns=from_histogram(self._all),
            latency_from_slot_ns=from_histogram(self._from_slot),
            histogram=self._connected.encode(),
            histogram_all=self._all.encode(),
            histogram_from_slot=self._from_slot.encode() if self._interval_ns else None,
        )

    def period(self, counts: Counts, circumstances: Circumstances) -> Summary:
        """Derive the summary of a period, which is short: it has no histograms, and none from its slots."""
        return Summary(
            **_counted(counts, circumstances, self._errors),
            latency_ns=from_histogram(self._connected),
            latency_all_ns=from_histogram(self._all),
        )


def count_errors(errors: NDArray[np.uint64]) -> Counter[str]:
    """Count errno values by name; 0 is not an error."""
    codes, counts = np.unique(errors[errors != 0], return_counts=True)
    return Counter(
        {error_name(code): count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)}
    )


def failures(
    samples: Samples, source_ip: str, remote: str, clock_offset_ns: int, most: int
) -> tuple[list[Failure], Counter[str]]:
    """Return the first ``most`` failed dials of one worker, and a count of the others by errno.

    ``clock_offset_ns``: CLOCK_REALTIME minus CLOCK_MONOTONIC.
    """
    packed = samples["packed"]
    errors = sample.errors(packed)
    failed = np.flatnonzero(errors)
    failed = failed[np.argsort(samples["start_ns"][failed])]
    listed = []
    for at in failed[:most]:
        word = int(packed[at])
        start_ns = int(samples["start_ns"][at])
        latency_ns = sample.latencies_ns(word)
        listed.append(
            Failure(
                ended_ns=start_ns + clock_offset_ns + latency_ns,
                latency_ns=latency_ns,
                source=f"{source_ip}:{sample.ports(word) or '*'}",
                remote=remote,
                errno=sample.errors(word),
            )
        )
    return listed, count_errors(errors[failed[most:]])


def paired_slots(samples: list[Samples], interval_ns: int) -> PairedSlots:
    """Find the dials that met: same source port, less than half an interval apart.

    ``samples`` are all those of a round, an array per worker; the workers of one container must
    not share ports, unless they share the socket.
    """
    dials = np.concatenate(samples)
    order = np.lexsort((dials["start_ns"], sample.ports(dials["packed"])))
    dials = dials[order]
    ports = sample.ports(dials["packed"])
    start_ns = dials["start_ns"].astype(np.int64)
    lost = sample.errors(dials["packed"]) == sample.TIMED_OUT
    # A slot begins where the port changes, or the dial before is too long ago.
    begins = np.ones(len(dials), bool)
    begins[1:] = (np.diff(ports) != 0) | (np.diff(start_ns) >= interval_ns // 2)
    slot = np.cumsum(begins) - 1
    paired = np.bincount(slot) >= 2
    losers = np.bincount(slot, weights=lost)[paired].astype(np.int64)
    return PairedSlots(ports[begins][paired], losers)


def _counted(counts: Counts, circumstances: Circumstances, errors: Counter[str]) -> dict[str, Any]:
    """Return the fields of a summary that are not latencies."""
    failed = errors.total()
    attempted = counts.recorded + counts.overruns
    elapsed_s = circumstances.elapsed_s
    pairs = circumstances.pairs
    return {
        "attempted": attempted,
        "connected": counts.recorded - failed,
        "failed": failed,
        "late": counts.late,
        "overruns": counts.overruns,
        "cut_short": counts.cut_short,
        "began_at": circumstances.began_at,
        "paired": pairs.paired if pairs else None,
        "collisions": pairs.collisions if pairs else None,
        **rates(attempted=attempted, failed=failed, recorded=counts.recorded, elapsed_s=elapsed_s),
        "errors": dict(errors.most_common()),
        "syn_retransmits": dict(circumstances.syn_retransmits),
        "counters": list(circumstances.counters),
    }


def rates(*, attempted: int, failed: int, recorded: int, elapsed_s: float) -> dict[str, Any]:
    """Return the fields of a summary that follow from its counts and its length.

    ``recorded``: the dials whose outcome is known. Only of those is it known whether they failed.
    """
    return {
        "elapsed_s": round(elapsed_s, 6),
        "rate_per_s": round(attempted / elapsed_s, 3) if elapsed_s else 0.0,
        "loss_rate": failed / recorded if recorded else 0.0,
        "loss_rate_ci95": wilson(failed, recorded),
    }


def from_histogram(histogram: Histogram) -> Latency | None:
    """Derive the percentiles; None if nothing was recorded."""
    if not histogram.count:
        return None
    at = histogram.percentile_ns
    return Latency(
        min=at(0),
        p50=at(50),
        p90=at(90),
        p95=at(95),
        p99=at(99),
        p999=at(99.9),
        p9999=at(99.99),
        max=at(100),
        mean=histogram.mean_ns,
    )


def exact_latency(latencies_ns: NDArray[np.uint64], longest_ns: int | None = None) -> Latency | None:
    """Return the order statistics of exactly these latencies; None if there are none.

    ``longest_ns``: the maximum, where these are only some of the latencies.
    """
    if not latencies_ns.size:
        return None
    ordered = np.sort(latencies_ns)
    at = order_statistic
    return Latency(
        min=at(ordered, 0),
        p50=at(ordered, 500),
        p90=at(ordered, 900),
        p95=at(ordered, 950),
        p99=at(ordered, 990),
        p999=at(ordered, 999),
        max=at(ordered, 1000) if longest_ns is None else longest_ns,
        mean=float(ordered.mean()),
    )
