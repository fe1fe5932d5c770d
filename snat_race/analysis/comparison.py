"""Two loss rates, compared: fewer, more, no difference detected, or too little to tell. Pure.

The unit is the dial, or, where the machine drifts from round to round by more than a coin would,
fewer of them: counts are divided by the dispersion between rounds, see ``intervals.dispersion``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import Any, Literal

from snat_race.analysis.intervals import (
    Z95,
    counts_divisor,
    dispersion_and_freedom,
    newcombe,
    reduction,
    wilson,
)
from snat_race.results.conclusions import MeasurementWarning, WarningKind
from snat_race.results.model import SCHEMA_VERSION, Model
from snat_race.results.schema import ClientResult, LabResult, MergedResult, Summary

_POWER_Z = 0.8416212335729143  # of 80 %
_WORTHWHILE = 0.5  # of the baseline's losses: a change that a test should be able to see
_STEADY = 2.0  # Student's widening, squared: that of four degrees of freedom
_NEGLIGIBLE = 0.001  # a loss rate that nobody minds, where the baseline has none to compare with
_MOST_UNEVEN = 0.1  # of the baseline's dials: a difference in work that leaves rates comparable
_COMPARED_ENVIRONMENT = ("kernel", "machine", "cpus", "usable_cpus")
_MAY_DIFFER = frozenset({"seed", "variants", "rules", "nft", "watch_netns", "duration_s", "count"})
"""Settings that two results may differ in and be compared all the same."""


class ComparisonOutcome(StrEnum):
    """What a comparison shows of the losses."""

    fewer = "fewer"  # than the baseline's
    more = "more"
    no_difference = "no difference detected"  # where one worth while would have been
    inconclusive = "inconclusive"


@dataclass(frozen=True, kw_only=True, slots=True)
class LossCounts:
    """What was measured of one thing: a client's run, or a lab's variant."""

    name: str  # what people call it
    rounds: tuple[tuple[int, int], ...]  # (lost, dialled) of each round or period, one or many
    due: int = 0  # dials that were due, those of late slots too

    @property
    def lost(self) -> int:
        """All losses."""
        return sum(lost for lost, _ in self.rounds)

    @property
    def dialled(self) -> int:
        """All dials whose outcome is known."""
        return sum(dialled for _, dialled in self.rounds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparable:
    """A result that can be compared."""

    name: str  # what people call it
    result: ClientResult | LabResult | MergedResult
    counts: dict[str, LossCounts]  # by rule; a client has but one, of which nobody knows: ""
    single_period: bool  # drift of the machine does not show in it


class Rate(Model):
    """Losses of one thing."""

    name: str
    """What people call it."""
    lost: int
    """Its losses."""
    dialled: int
    """Its dials whose outcome is known."""
    rounds: int
    """How many rounds or periods it was measured in."""
    loss_rate: float
    """Losses per dial, 0 to 1."""
    loss_rate_ci95: tuple[float, float]
    """Its 95 % interval, which allows for the dispersion."""


class Comparison(Model):
    """One thing against the baseline."""

    base: Rate
    """The baseline."""
    other: Rate
    """What is compared with it."""
    difference: float
    """Loss rate of other minus that of base."""
    difference_ci95: tuple[float, float]
    """Its 95 % interval (Newcombe's)."""
    reduction: float | None
    """Share of the losses that is gone, 1: all; null: base has none."""
    reduction_ci95: tuple[float, float] | None
    """Its 95 % interval (MOVER-R); null as above."""
    dispersion: float
    """Variance between rounds over that of a binomial."""
    outcome: ComparisonOutcome
    """What that shows."""
    more_dials: int | None
    """Dials more that each takes to see losses halve, or grow by half, four times in five.

    Null: not known."""


class Compared(Model):
    """All comparisons with the baseline."""

    schema_version: Literal[2] = SCHEMA_VERSION
    """Version of this contract."""
    kind: Literal["comparison"] = "comparison"
    """Kind of result."""
    comparisons: list[Comparison]
    """One for each thing that was compared."""
    warnings: list[MeasurementWarning]
    """What makes them doubtful."""


def comparable_client(name: str, result: ClientResult | MergedResult) -> Comparable:
    """Return what a client's run, or that of several, has to compare."""
    counts = _loss_counts(name, result.summary, result.periods)
    return Comparable(name=name, result=result, counts={"": counts}, single_period=len(result.periods) < 2)


def comparable_lab(name: str, result: LabResult) -> Comparable:
    """Return what a lab's run has to compare."""
    counts = {
        variant.name: _loss_counts(f"{name}, {variant.name}", variant.summary, variant.periods)
        for variant in result.variants
    }
    return Comparable(name=name, result=result, counts=counts, single_period=False)


def _loss_counts(name: str, summary: Summary, periods: Iterable[Summary]) -> LossCounts:
    """Take (lost, dialled) of each period, and of what came after the last."""
    rounds = [(period.failed, period.attempted - period.overruns) for period in periods]
    lost = summary.failed - sum(lost for lost, _ in rounds)
    dialled = summary.attempted - summary.overruns - sum(dialled for _, dialled in rounds)
    if dialled > 0 and lost >= 0:
        rounds.append((lost, dialled))
    return LossCounts(name=name, rounds=tuple(rounds), due=summary.attempted + summary.late)


def compared(base: Comparable, others: Sequence[Comparable]) -> Compared:
    """Compare each of the others with the baseline.

    That is rule by rule where both measured the same rules, else with the baseline's first rule.
    """
    pairs = [pair for other in others for pair in _pairs(base, other)]
    warnings = list(_uneven(pairs))
    for other in others:
        warnings += _unlike(base, other)
    unique = [warning for at, warning in enumerate(warnings) if warning not in warnings[:at]]
    return Compared(comparisons=[compare(*pair) for pair in pairs], warnings=unique)


def _pairs(base: Comparable, other: Comparable) -> list[tuple[LossCounts, LossCounts]]:
    if len(base.counts) > 1 and base.counts.keys() == other.counts.keys():
        return [(base.counts[rule], other.counts[rule]) for rule in base.counts]
    first = next(iter(base.counts.values()))
    return [(first, counts) for counts in other.counts.values()]


def _uneven(pairs: Iterable[tuple[LossCounts, LossCounts]]) -> Iterator[MeasurementWarning]:
    for base, other in pairs:
        if abs(other.due - base.due) > _MOST_UNEVEN * base.due:
            yield MeasurementWarning(
                kind=WarningKind.unequal_work,
                values={"name": other.name, "dials": other.due, "baseline": base.due},
            )


def _unlike(base: Comparable, other: Comparable) -> Iterator[MeasurementWarning]:
    settings = [key for key in base.result.spec if key not in _MAY_DIFFER]
    yield from _differences(
        WarningKind.unlike_environment,
        other.name,
        base.result.environment,
        other.result.environment,
        _COMPARED_ENVIRONMENT,
    )
    yield from _differences(
        WarningKind.unlike_setting, other.name, base.result.spec, other.result.spec, settings
    )
    for comparable in (base, other):
        if comparable.single_period:
            yield MeasurementWarning(kind=WarningKind.single_period, values={"name": comparable.name})


def _differences(
    kind: WarningKind, name: str, base: dict[str, Any], other: dict[str, Any], keys: Iterable[str]
) -> Iterator[MeasurementWarning]:
    for key in keys:
        if base.get(key) != other.get(key):
            values: dict[str, int | float | str] = {
                "name": name,
                "key": key,
                "value": str(other.get(key)),
                "baseline": str(base.get(key)),
            }
            yield MeasurementWarning(kind=kind, values=values)


def compare(base: LossCounts, other: LossCounts) -> Comparison:
    """Compare two loss rates.

    The interval of the difference is Newcombe's, that of the reduction MOVER-R, both from Wilson
    intervals.
    """
    weight, spread = _weight((base, other))
    base_counts = (base.lost / weight, base.dialled / weight)
    other_counts = (other.lost / weight, other.dialled / weight)
    low, high = newcombe(base_counts, other_counts)
    reduced = reduction(base_counts, other_counts)
    # Of a few rounds nobody knows how far they drift; dials alone would not tell.
    more_dials = None if weight > spread * _STEADY else _more_dials(base, other, weight)
    return Comparison(
        base=_rate(base, weight),
        other=_rate(other, weight),
        difference=_loss_rate(other) - _loss_rate(base),
        difference_ci95=(low, high),
        reduction=reduced[0] if reduced else None,
        reduction_ci95=reduced[1] if reduced else None,
        dispersion=round(spread, 3),
        outcome=_outcome(low, high, base, other),
        more_dials=more_dials,
    )


def _loss_rate(counts: LossCounts) -> float:
    return counts.lost / counts.dialled if counts.dialled else 0.0


def _rate(counts: LossCounts, weight: float) -> Rate:
    return Rate(
        name=counts.name,
        lost=counts.lost,
        dialled=counts.dialled,
        rounds=len(counts.rounds),
        loss_rate=_loss_rate(counts),
        loss_rate_ci95=wilson(counts.lost / weight, counts.dialled / weight),
    )


def _weight(measured: Sequence[LossCounts]) -> tuple[float, float]:
    """Return what counts are divided by, and the dispersion.

    Of a single round each, no dispersion is known, and counts keep their weight.
    """
    spread, freedom = dispersion_and_freedom([counts.rounds for counts in measured])
    return (counts_divisor(spread, freedom) if freedom else 1.0), spread


def _outcome(low: float, high: float, base: LossCounts, other: LossCounts) -> ComparisonOutcome:
    """Name the outcome; no difference is detected only where one worth while would have been."""
    if not base.dialled or not other.dialled:
        return ComparisonOutcome.inconclusive
    if high < 0:
        return ComparisonOutcome.fewer
    if low > 0:
        return ComparisonOutcome.more
    worthwhile = _WORTHWHILE * _loss_rate(base) or _NEGLIGIBLE
    if low < -worthwhile or high > worthwhile:
        return ComparisonOutcome.inconclusive
    return ComparisonOutcome.no_difference


def _more_dials(base: LossCounts, other: LossCounts, weight: float) -> int | None:
    """Return the dials that each still lacks to tell half of the losses from all of them.

    That is the normal approximation for two proportions, J. L. Fleiss, "Statistical Methods for Rates
    and Proportions", 2nd ed. (1981), section 3.2. If neither lost any: until Wilson's interval rules out
    what matters. None: it cannot be told.
    """
    rate = _loss_rate(base)
    if rate >= 1 or (not rate and other.lost):
        return None
    wanted = Z95**2 / _NEGLIGIBLE
    if rate:
        halved = rate * (1 - _WORTHWHILE)
        variances = rate * (1 - rate) + halved * (1 - halved)
        wanted = (Z95 + _POWER_Z) ** 2 * variances / (rate - halved) ** 2 * weight
    return max(0, ceil(wanted) - min(base.dialled, other.dialled))
