"""The periods of a run that its result keeps: however long it runs, no more than :data:`MOST_PERIODS`.

While there are fewer, each is kept as it was. As soon as there are that many, neighbours are added up two
by two. So half as many are left, each twice as long, and all that come later are made as long as these::

    periods of 1 s     1  2  3 ... 1023                       kept as they were, up to 17 minutes
    periods of 2 s     1+2  3+4 ... 1023+1024 ...             up to 34 minutes
    periods of 4 s     1+2+3+4 ...                            and so on

Counts and counters stay exact. Percentiles cannot be added up, so a sum of periods has none; those of the
whole run come from its histograms.
"""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from snat_race.analysis.merge import merged_summary
from snat_race.results.counters import CounterDelta, CounterSum, total_of
from snat_race.results.model import Model
from snat_race.results.schema import Summary

MOST_PERIODS = 1024

_AT_ONCE = 32  # added up together: two take 34 us a period, 8 take 14 us, 32 take 9 us; more saves little

Period = TypeVar("Period", bound=Model)


class Sum(Protocol[Period]):
    """Adds periods up that follow one another."""

    def add(self, period: Period, /) -> None:
        """Add the next period."""

    def total(self) -> Period:
        """Return them as one; a single one as it was."""


class KeptPeriods(Generic[Period]):
    """Takes in periods, in their order; memory does not grow with their number.

    They are held as JSON, which takes an eighth of the memory of the objects (1.3 kB of 10 kB).

    Args:
        kind: what a period is.
        sum_from: begins a sum with a period.

    """

    def __init__(self, kind: type[Period], sum_from: Callable[[Period], Sum[Period]]) -> None:
        self._kind = kind
        self._sum_from = sum_from
        self._kept: list[str] = []
        self._stride = 1  # how many periods each of these is
        self._open: Sum[Period] | None = None  # of the periods that will be the next
        self._in_open = 0  # how many these are

    def __bool__(self) -> bool:
        return bool(self._kept or self._open)

    def add(self, period: Period) -> None:
        """Add the next period."""
        if self._open:
            self._open.add(period)
        else:
            self._open = self._sum_from(period)
        self._in_open += 1
        if self._in_open == self._stride:
            self._kept.append(self._open.total().model_dump_json())
            self._open = None
            self._in_open = 0
            if len(self._kept) == MOST_PERIODS:
                self._halve()

    def _halve(self) -> None:
        pairs = zip(self._kept[::2], self._kept[1::2], strict=True)
        self._kept = [self._added_up(*map(self._loaded, pair)).model_dump_json() for pair in pairs]
        self._stride *= 2

    def all(self) -> list[Period]:
        """Return what is kept; the last may be shorter than the others."""
        last = [self._open.total()] if self._open else []
        return [*map(self._loaded, self._kept), *last]

    def _added_up(self, first: Period, second: Period) -> Period:
        both = self._sum_from(first)
        both.add(second)
        return both.total()

    def _loaded(self, text: str) -> Period:
        return self._kind.model_validate_json(text)


class DialSum:
    """Adds up periods of a client."""

    def __init__(self, first: Summary) -> None:
        self._parts = [first]  # periods, and sums of them

    def add(self, period: Summary) -> None:
        """Add the next period."""
        self._parts.append(period)
        if len(self._parts) == _AT_ONCE:
            self._parts = [self.total()]

    def total(self) -> Summary:
        """Return what became of all dials; of one period, itself."""
        return self._parts[0] if len(self._parts) == 1 else dials_added_up(self._parts)


def periods_of_client() -> KeptPeriods[Summary]:
    """Return what keeps the periods of a client."""
    return KeptPeriods(Summary, DialSum)


def periods_of_watch() -> KeptPeriods[CounterDelta]:
    """Return what keeps the periods of a watch: those of one namespace."""
    return KeptPeriods(CounterDelta, CounterSum)


def dials_added_up(periods: Sequence[Summary]) -> Summary:
    """Add up periods that followed one another in one run; what was counted, namespace by namespace."""
    namespaces: dict[tuple[str, int], list[CounterDelta]] = {}
    for period in periods:
        for delta in period.counters:
            namespaces.setdefault((delta.netns, delta.inode), []).append(delta)
    counters = [total for deltas in namespaces.values() if (total := total_of(deltas))]
    return merged_summary(periods, counters, elapsed_s=sum(period.elapsed_s for period in periods))
