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
from typing import Generic, TypeVar

from snat_race.analysis.merge import merged_summary
from snat_race.results.counters import CounterDelta, total_of
from snat_race.results.model import Model
from snat_race.results.schema import Summary

MOST_PERIODS = 1024

_AT_ONCE = 32  # added up together: two take 34 us a period, 8 take 14 us, 32 take 9 us; more saves little

Period = TypeVar("Period", bound=Model)


class KeptPeriods(Generic[Period]):
    """Takes in periods, in their order; memory does not grow with their number.

    They are held as JSON, which takes an eighth of the memory of the objects (1.3 kB of 10 kB).

    Args:
        kind: what a period is.
        add_up: adds neighbours up; takes one or more.

    """

    def __init__(self, kind: type[Period], add_up: Callable[[Sequence[Period]], Period]) -> None:
        self._kind = kind
        self._add_up = add_up
        self._kept: list[str] = []
        self._stride = 1  # how many periods each of these is
        self._open: list[Period] = []  # periods, and sums of them, that will be one
        self._in_open = 0  # how many periods they are

    def __bool__(self) -> bool:
        return bool(self._kept or self._open)

    def add(self, period: Period) -> None:
        """Add the next period."""
        self._open.append(period)
        self._in_open += 1
        is_complete = self._in_open == self._stride
        if is_complete or len(self._open) == _AT_ONCE:
            self._open = [self._sum(self._open)]
        if is_complete:
            self._kept.append(self._open.pop().model_dump_json())
            self._in_open = 0
        if len(self._kept) == MOST_PERIODS:
            pairs = zip(self._kept[::2], self._kept[1::2], strict=True)
            self._kept = [self._sum([*map(self._loaded, pair)]).model_dump_json() for pair in pairs]
            self._stride *= 2

    def all(self) -> list[Period]:
        """Return what is kept; the last may be shorter than the others."""
        last = [self._sum(self._open)] if self._open else []
        return [*map(self._loaded, self._kept), *last]

    def _sum(self, periods: Sequence[Period]) -> Period:
        return periods[0] if len(periods) == 1 else self._add_up(periods)

    def _loaded(self, text: str) -> Period:
        return self._kind.model_validate_json(text)


def periods_of_client() -> KeptPeriods[Summary]:
    """Return what keeps the periods of a client."""
    return KeptPeriods(Summary, dials_added_up)


def periods_of_watch() -> KeptPeriods[CounterDelta]:
    """Return what keeps the periods of a watch: those of one namespace."""
    return KeptPeriods(CounterDelta, lambda periods: total_of(periods) or periods[0])


def dials_added_up(periods: Sequence[Summary]) -> Summary:
    """Add up periods that followed one another in one run; what was counted, namespace by namespace."""
    namespaces: dict[tuple[str, int], list[CounterDelta]] = {}
    for period in periods:
        for delta in period.counters:
            namespaces.setdefault((delta.netns, delta.inode), []).append(delta)
    counters = [total for deltas in namespaces.values() if (total := total_of(deltas))]
    return merged_summary(periods, counters, elapsed_s=sum(period.elapsed_s for period in periods))
