"""What a lab run proves: race reproduced, no race seen, or inconclusive, and what helps."""

from collections.abc import Iterable, Sequence

from snat_race.analysis.candidate_causes import RARE
from snat_race.analysis.intervals import FEW_LOSSES, dispersion, poisson_at_least, reduction
from snat_race.results.conclusions import Cause, CauseName, Mitigation, Outcome, Verdict, VerdictReason
from snat_race.results.schema import Summary, VariantResult

FEWEST_PAIRS = 100
"""Paired dials below which a run without a loss to the race proves nothing."""

# Other failures, before they blur the rates of the race: for each SYN lost to it ...
_MOST_OTHERS = 0.05
# ... for each dial, and in any case: a pause of the machine costs a few dials, however short the run.
_STRAY_SHARE = 0.001
_STRAY = 2
# SYNs that draw the same port for each pair, before chance cannot be told from the race.
_MOST_SAME_DRAWS = 0.05

_OUTCOMES = {
    VerdictReason.lost_to_race: Outcome.reproduced,
    VerdictReason.none_lost: Outcome.not_seen,
    VerdictReason.by_chance: Outcome.not_seen,
}


def race_losses(diagnosis: Iterable[Cause]) -> int:
    """Return the losses to the race, by the diagnosis."""
    return sum(cause.losses for cause in diagnosis if cause.cause == CauseName.snat_race)


def all_losses(diagnosis: Iterable[Cause]) -> int:
    """Return all losses: dials that failed, and SYNs lost of those that connected late by a retransmit."""
    return sum(cause.losses for cause in diagnosis)


def outcome_of(reason: VerdictReason) -> Outcome:
    """Return the outcome that a reason stands for."""
    return _OUTCOMES.get(reason, Outcome.inconclusive)


def verdict_reason(
    summary: Summary, diagnosis: Sequence[Cause], same_draws: float, cpus: int, *, translated: bool = True
) -> VerdictReason:
    """Judge one variant, as measured on that many CPUs; :func:`outcome_of` gives the outcome.

    ``same_draws``: how many simultaneous SYNs are expected to draw the same port, at the most; 0
    where the NAT draws none. ``translated`` False: the rule matched nothing.
    """
    lost = race_losses(diagnosis)
    if not translated:
        return VerdictReason.nothing_translated
    if _blurred(summary, diagnosis):
        return VerdictReason.other_causes if _not_the_race(diagnosis) else VerdictReason.mixed_causes
    if summary.paired is None:
        return VerdictReason.dials_do_not_meet
    chance_hides_it = same_draws > summary.paired * _MOST_SAME_DRAWS
    beyond_chance = lost > 0 and poisson_at_least(lost, same_draws) <= RARE
    if summary.paired and beyond_chance and not chance_hides_it:
        return VerdictReason.lost_to_race
    return _without_race(summary.paired, lost, cpus, chance_hides_it=chance_hides_it)


def _without_race(paired: int, lost: int, cpus: int, *, chance_hides_it: bool) -> VerdictReason:
    """Say what not seeing the race is worth."""
    if cpus < 2:
        return VerdictReason.one_cpu
    if paired < FEWEST_PAIRS:
        return VerdictReason.too_few_pairs
    if chance_hides_it:
        return VerdictReason.too_few_ports
    return VerdictReason.by_chance if lost else VerdictReason.none_lost


def as_expected(outcome: Outcome, *, race: bool) -> bool | None:
    """Whether an outcome is the expected one: a race, or none; None if it cannot tell."""
    if outcome == Outcome.inconclusive:
        return None
    return (outcome == Outcome.reproduced) == race


def verdict_on(variants: Sequence[VariantResult]) -> Verdict:
    """Return the verdict on the first variant, and compare every other one with it."""
    base = variants[0]
    spread = between_rounds(pairs_of(variant.periods) for variant in variants)
    return Verdict(
        outcome=base.outcome,
        reason=base.reason,
        dispersion=round(spread, 3),
        mitigations=[_mitigation(base, other, spread) for other in variants[1:]],
    )


def between_rounds(rounds: Iterable[list[tuple[int, int]]]) -> float:
    """Return the dispersion of collisions between rounds, each given as (paired, collisions)."""
    return dispersion([(collisions, paired) for paired, collisions in variant] for variant in rounds)


def pairs_of(periods: Iterable[Summary]) -> list[tuple[int, int]]:
    """Return paired slots and collisions, round by round; none where dials do not meet."""
    return [(period.paired, period.collisions or 0) for period in periods if period.paired is not None]


def discounted(collisions: int, paired: int, spread: float) -> tuple[float, float]:
    """Return counts that carry as much weight as the given ones do under this dispersion.

    Rounds with next to no collisions do not drift, so they keep their weight.
    """
    weight = spread if collisions >= FEW_LOSSES else 1.0
    return collisions / weight, paired / weight


def _blurred(summary: Summary, diagnosis: Sequence[Cause]) -> bool:
    """Whether so many losses are, or may be, of other causes that the race's rate means little."""
    lost = race_losses(diagnosis)
    others = all_losses(diagnosis) - lost
    return others > lost * _MOST_OTHERS + max(_STRAY, summary.attempted * _STRAY_SHARE)


def _not_the_race(diagnosis: Sequence[Cause]) -> bool:
    """Whether next to none of the losses were, or may have been, to the race."""
    possible = (CauseName.snat_race, CauseName.inconclusive)
    losses = sum(cause.losses for cause in diagnosis if cause.cause in possible)
    return losses <= all_losses(diagnosis) * _MOST_OTHERS


def _mitigation(base: VariantResult, other: VariantResult, spread: float) -> Mitigation:
    compared = reduction(discounted(*_pairs(base), spread), discounted(*_pairs(other), spread))
    return Mitigation(
        name=other.name,
        loss_reduction=compared[0] if compared else None,
        ci95=compared[1] if compared else None,
    )


def _pairs(variant: VariantResult) -> tuple[int, int]:
    return variant.summary.collisions or 0, variant.summary.paired or 0
