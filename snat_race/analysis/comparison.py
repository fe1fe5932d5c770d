"""Two loss rates, compared: fewer, more, no difference detected, or too little to tell. Pure.

The unit is the dial, or a lab's pair of dials; or, where the machine drifts from round to round by more
than a coin would, fewer of them: counts are divided by the dispersion between rounds, see
``intervals.dispersion``. Labs differ from run to run by still more, see ``loss_rates.BETWEEN_RUNS``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import Any, Literal

from snat_race.analysis.intervals import (
    Z95,
    Proportion,
    counts_divisor,
    dispersion_and_freedom,
    newcombe,
    reduction,
)
from snat_race.analysis.loss_rates import LossCounts, Unit, collision_counts, loss_counts
from snat_race.errors import UsageError
from snat_race.results.conclusions import MeasurementWarning, WarningKind
from snat_race.results.model import SCHEMA_VERSION, Model
from snat_race.results.schema import ClientResult, LabResult, MergedResult

_POWER_Z = 0.8416212335729143  # of 80 %
_WORTHWHILE = 0.5  # of the baseline's losses: a change that a test should be able to see
_STEADY = 2.0  # Student's widening, squared: that of four degrees of freedom
_NEGLIGIBLE = 0.001  # a loss rate that nobody minds, where the baseline has none to compare with
_MOST_UNEVEN = 0.1  # of the baseline's dials: a difference in work that leaves rates comparable
_COMPARED_ENVIRONMENT = ("kernel", "machine", "cpus", "usable_cpus")
_MAY_DIFFER = frozenset(
    {"seed", "variants", "rules", "nft", "watch_netns", "duration_s", "count", "window_s"}
)
"""Settings that two results may differ in and be compared all the same."""


class ComparisonOutcome(StrEnum):
    """What a comparison shows of the losses."""

    fewer = "fewer"  # than the baseline's
    more = "more"
    no_difference = "no difference detected"  # where one worth while would have been
    inconclusive = "inconclusive"


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
    unit: Unit = Unit.dial
    """What is counted: dials, or a lab's paired slots."""
    lost: int
    """Dials that failed, and those that connected late by a retransmit; pairs that collided."""
    late_by_retransmit: int = 0
    """Of these: dials that connected all the same, a second late or more."""
    dialled: int
    """Its dials, or pairs, whose outcome is known."""
    rounds: int
    """How many rounds or periods it was measured in."""
    loss_rate: float
    """Losses per dial, or pair, 0 to 1."""
    loss_rate_ci95: tuple[float, float]
    """Its 95 % interval, as its own report has it."""


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
    """Dials, or pairs, more that it takes of either to see losses halve, or grow by half, four times in
    five: the larger of the next two. Null: not known, or no number of them is enough."""
    more_dials_of_base: int | None = None
    """How many of these the baseline lacks; null as above."""
    more_dials_of_other: int | None = None
    """How many of these the other lacks; null as above."""


class OnlyIn(Model):
    """Rules that one lab measured and the one that it is compared with did not."""

    name: str
    """What people call the lab's result."""
    rules: list[str]
    """The names of the rules."""


class Compared(Model):
    """All comparisons with the baseline."""

    schema_version: Literal[2] = SCHEMA_VERSION
    """Version of this contract."""
    kind: Literal["comparison"] = "comparison"
    """Kind of result."""
    baseline: str
    """What people call the result that the others are compared with."""
    comparisons: list[Comparison]
    """One for each thing that was compared."""
    only_in: list[OnlyIn]
    """Rules of labs that were not compared, because the other lab did not measure them."""
    warnings: list[MeasurementWarning]
    """What makes them doubtful."""


def comparable_client(name: str, result: ClientResult | MergedResult) -> Comparable:
    """Return what a client's run, or that of several, has to compare."""
    counts = loss_counts(name, result.summary, result.periods)
    return Comparable(name=name, result=result, counts={"": counts}, single_period=len(result.periods) < 2)


def comparable_lab(name: str, result: LabResult) -> Comparable:
    """Return what a lab's run has to compare."""
    counts = {
        variant.name: collision_counts(f"{name}, {variant.name}", variant) for variant in result.variants
    }
    return Comparable(name=name, result=result, counts=counts, single_period=False)


def compared(base: Comparable, others: Sequence[Comparable]) -> Compared:
    """Compare each of the others with the baseline: rules of the same name, or the only rule of both.

    Raises:
        UsageError: one has no rule in common with the baseline, or its dials do not meet as those do.

    """
    pairs = [pair for other in others for pair in _pairs(base, other)]
    warnings = list(_uneven(base, pairs))
    if any(counts.unit is Unit.dial and counts.lost for pair in pairs for counts in pair):
        warnings += _of_skew([base, *others])
    for other in others:
        warnings += _unlike(base, other)
    unique = [warning for at, warning in enumerate(warnings) if warning not in warnings[:at]]
    return Compared(
        baseline=base.name,
        comparisons=[compare(*pair) for pair in pairs],
        only_in=[only_in for other in others for only_in in _only_in(base, other)],
        warnings=unique,
    )


def _pairs(base: Comparable, other: Comparable) -> list[tuple[LossCounts, LossCounts]]:
    """Return what is compared with what: first the counts of the baseline."""
    pairs = [(base.counts[rule], other.counts[rule]) for rule in base.counts if rule in other.counts]
    if len(base.counts) == len(other.counts) == 1:
        pairs = list(zip(base.counts.values(), other.counts.values(), strict=True))
    if not pairs:
        raise UsageError(
            f"{other.name}: measured none of the rules of {base.name}; measure a rule of one name in both, "
            "or a single rule in each"
        )
    if any(counts.unit is not base_counts.unit for base_counts, counts in pairs):
        raise UsageError(
            f"{other.name}: dials meet in pairs there or in {base.name}, not in both; compare labs of one "
            "scenario"
        )
    return pairs


def _only_in(base: Comparable, other: Comparable) -> Iterator[OnlyIn]:
    """Yield the rules of two labs that only one of them measured; none if each measured a single one."""
    if len(base.counts) == len(other.counts) == 1:
        return
    for one, another in ((base, other), (other, base)):
        rules = [rule for rule in one.counts if rule not in another.counts]
        if rules:
            yield OnlyIn(name=one.name, rules=rules)


def _uneven(
    baseline: Comparable, pairs: Iterable[tuple[LossCounts, LossCounts]]
) -> Iterator[MeasurementWarning]:
    of_labs = baseline.result.kind == "lab"
    for base, other in pairs:
        if abs(other.due - base.due) > _MOST_UNEVEN * base.due:
            yield MeasurementWarning(
                kind=WarningKind.unequal_work_of_labs if of_labs else WarningKind.unequal_work,
                values={"name": other.name, "dials": other.due, "baseline": base.due},
            )


def _of_skew(compared_results: Iterable[Comparable]) -> Iterator[MeasurementWarning]:
    """Warn of clients in rendezvous: how far their runs differ was not measured, as that of labs was."""
    if any(comparable.result.spec.get("mode") == "rendezvous" for comparable in compared_results):
        yield MeasurementWarning(kind=WarningKind.rendezvous_runs_differ)


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
    intervals. The dispersion is that of both, so these intervals fit the difference, not either rate.
    """
    weight, spread = _weight((base, other))
    base_counts = _discounted(base, weight)
    other_counts = _discounted(other, weight)
    low, high = newcombe(base_counts, other_counts)
    reduced = reduction(base_counts, other_counts)
    # Of a few rounds nobody knows how far they drift; dials alone would not tell.
    wanted = None if weight > spread * _STEADY else _wanted_dials(base, other, weight)
    lacking = [None if wanted is None else max(0, wanted - counts.dialled) for counts in (base, other)]
    return Comparison(
        base=_rate(base),
        other=_rate(other),
        difference=other.loss_rate - base.loss_rate,
        difference_ci95=(low, high),
        reduction=reduced[0] if reduced else None,
        reduction_ci95=reduced[1] if reduced else None,
        dispersion=round(spread, 3),
        outcome=_outcome(low, high, base, other),
        more_dials=max((lack for lack in lacking if lack is not None), default=None),
        more_dials_of_base=lacking[0],
        more_dials_of_other=lacking[1],
    )


def _rate(counts: LossCounts) -> Rate:
    return Rate(
        name=counts.name,
        unit=counts.unit,
        lost=counts.lost,
        late_by_retransmit=counts.late_by_retransmit,
        dialled=counts.dialled,
        rounds=len(counts.rounds),
        loss_rate=counts.loss_rate,
        loss_rate_ci95=counts.interval,
    )


def _weight(measured: Sequence[LossCounts]) -> tuple[float, float]:
    """Return what counts are divided by, and the dispersion.

    Of a single round each, no dispersion is known, and counts keep their weight.
    """
    spread, freedom = dispersion_and_freedom([counts.rounds for counts in measured])
    return (counts_divisor(spread, freedom) if freedom else 1.0), spread


def _discounted(counts: LossCounts, weight: float) -> Proportion:
    """Return losses and trials that weigh as little as drift within a run, and between runs, allows."""
    divisor = weight + counts.between_runs
    return counts.lost / divisor, counts.dialled / divisor


def _outcome(low: float, high: float, base: LossCounts, other: LossCounts) -> ComparisonOutcome:
    """Name the outcome; no difference is detected only where one worth while would have been."""
    if not base.dialled or not other.dialled:
        return ComparisonOutcome.inconclusive
    if high < 0:
        return ComparisonOutcome.fewer
    if low > 0:
        return ComparisonOutcome.more
    worthwhile = _WORTHWHILE * base.loss_rate or _NEGLIGIBLE
    if low < -worthwhile or high > worthwhile:
        return ComparisonOutcome.inconclusive
    return ComparisonOutcome.no_difference


def _wanted_dials(base: LossCounts, other: LossCounts, weight: float) -> int | None:
    """Return the dials that it takes of each to tell half of the losses from all of them.

    That is the normal approximation for two proportions, J. L. Fleiss, "Statistical Methods for Rates
    and Proportions", 2nd ed. (1981), section 3.2. If neither lost any: until Wilson's interval rules out
    what matters. None: it cannot be told, or drift from run to run hides it however many there are.
    """
    rate = base.loss_rate
    if rate >= 1 or (not rate and other.lost):
        return None
    if not rate:
        return ceil(Z95**2 / _NEGLIGIBLE)
    halved = rate * (1 - _WORTHWHILE)
    variances = rate * (1 - rate) + halved * (1 - halved)
    independent = (Z95 + _POWER_Z) ** 2 * variances / (rate - halved) ** 2
    # Of n trials only n / (weight + n d) count, where d is what drift between runs adds for each.
    left = 1 - independent * base.between_runs / base.dialled
    return ceil(independent * weight / left) if left > 0 else None
