"""What a lab run proves: race reproduced, no race seen, or inconclusive, and what helps."""

from collections.abc import Iterable

from snat_race.analysis.candidate_causes import RARE
from snat_race.analysis.intervals import FEW_LOSSES, dispersion, poisson_at_least, reduction
from snat_race.results.cause import Cause
from snat_race.results.schema import Mitigation, Outcome, Summary, VariantResult, Verdict

FEWEST_PAIRS = 100
_MOST_OTHERS = 0.05  # other failures for each SYN lost to the race, before they blur its rates ...
_STRAY, _FEW = 0.001, 2  # ... and for each dial; a pause of the machine costs a few, however short the run
_MOST_SAME_DRAWS = 0.05  # for each pair, before chance cannot be told from the race
_WHERE = "in the lab the uplink is eth0, and the containers are 172.17.0.0/16 on docker0"
ADVERSARIAL = "These rates are adversarial: every dial was timed to collide; production sees far fewer."
MEANING: dict[Outcome, str] = {
    "reproduced": (
        "Two connections behind this NAT were given the same port at the same moment, and the kernel "
        "dropped the first packet of one; its application waits a second or times out."
    ),
    "not_seen": "Either this kernel and rule do not race, or two dials never met closely enough.",
    "inconclusive": "This run proves nothing either way.",
}


def race_losses(diagnosis: list[Cause]) -> int:
    """Return the losses to the race, by the diagnosis."""
    return sum(cause.losses for cause in diagnosis if cause.cause == "snat_race")


def not_the_race(variant: VariantResult) -> bool:
    """Whether next to none of the losses were, or may have been, to the race."""
    may_be = [each for each in variant.diagnosis if each.cause in {"snat_race", "inconclusive"}]
    return sum(each.losses for each in may_be) <= variant.summary.failed * _MOST_OTHERS


def outcome(
    summary: Summary, diagnosis: list[Cause], same_draws: float, cpus: int, *, translated: bool = True
) -> Outcome:
    """Judge one variant as measured on so many CPUs.

    ``same_draws``: how many simultaneous SYNs are expected to draw the same port, at the most; 0
    where the NAT draws none. ``translated`` False: the rule matched nothing.
    """
    lost, paired = race_losses(diagnosis), summary.paired or 0
    if not translated or not paired or _blurred(summary, lost) or same_draws > paired * _MOST_SAME_DRAWS:
        return "inconclusive"
    if lost and poisson_at_least(lost, same_draws) <= RARE:
        return "reproduced"
    return "inconclusive" if cpus < 2 or paired < FEWEST_PAIRS else "not_seen"


def as_expected(found: Outcome, expected: str) -> bool | None:
    """Whether an outcome is the expected one, "race" or "no-race"; None if it cannot tell."""
    if found == "inconclusive":
        return None
    return (found == "reproduced") == (expected == "race")


def judge(variants: list[VariantResult], cpus: int) -> Verdict:
    """Put the first variant's outcome into words, and compare every other one with it."""
    base, spread = variants[0], between_rounds(pairs_of(each.periods) for each in variants)
    return Verdict(
        outcome=base.outcome,
        text=_WORDS[base.outcome](base, cpus),
        dispersion=round(spread, 3),
        mitigations=[_mitigation(base, other, spread) for other in variants[1:]],
    )


def between_rounds(rounds: Iterable[list[tuple[int, int]]]) -> float:
    """Return the dispersion of collisions between rounds, each given as (paired, collisions)."""
    return dispersion([(collisions, paired) for paired, collisions in each] for each in rounds)


def pairs_of(periods: list[Summary]) -> list[tuple[int, int]]:
    """Return paired slots and collisions, round by round; none where dials do not meet."""
    return [(each.paired, each.collisions or 0) for each in periods if each.paired is not None]


def discounted(collisions: int, paired: int, spread: float) -> tuple[float, float]:
    """Return counts that carry as much weight as the given ones do under this dispersion.

    RoundControl with next to no collisions do not drift, so they keep their weight.
    """
    weight = spread if collisions >= FEW_LOSSES else 1.0
    return collisions / weight, paired / weight


def _blurred(summary: Summary, lost: int) -> bool:
    return summary.failed - lost > lost * _MOST_OTHERS + max(_FEW, summary.attempted * _STRAY)


def _reproduced(base: VariantResult, _cpus: int) -> str:
    collisions, paired = _pairs(base)
    low, high = base.collision_rate_ci95 or (0.0, 1.0)
    return (
        f"race reproduced: '{base.name}' lost {race_losses(base.diagnosis):,} dials to it; "
        f"{collisions / max(paired, 1):.1%} of {paired:,} paired dials collided "
        f"(95 % interval {low:.1%} to {high:.1%})"
    )


def _not_seen(base: VariantResult, _cpus: int) -> str:
    lost, paired = race_losses(base.diagnosis), base.summary.paired or 0
    if lost:
        return (
            f"no race seen under '{base.name}' beyond chance: {lost} of {paired:,} paired dials drew the "
            f"same one of {base.drawn_ports:,} ports at the same moment"
        )
    high = (base.collision_rate_ci95 or (0.0, 1.0))[1]
    return (
        f"no race seen under '{base.name}' in {paired:,} paired dials: at most {high:.2%} of them "
        "collide (upper end of the 95 % interval)"
    )


def _inconclusive(base: VariantResult, cpus: int) -> str:
    summary, lost = base.summary, race_losses(base.diagnosis)
    if base.translated is False:
        return f"inconclusive: '{base.name}' translated no connection; {_WHERE}"
    if _blurred(summary, lost):
        return _of_other_causes(base, lost)
    if summary.paired is None:
        return "inconclusive: in this scenario dials do not meet, so it says nothing about the race"
    if cpus < 2:
        return "inconclusive: the race needs two CPUs, and this process may use only one"
    if summary.paired < FEWEST_PAIRS:
        return (
            f"inconclusive: only {summary.paired:,} paired dials under '{base.name}'; raise --duration "
            f"until there are {FEWEST_PAIRS:,}"
        )
    return (
        f"inconclusive: '{base.name}' draws from so few ports ({base.drawn_ports:,}) that chance alone "
        "makes dials collide; give it more"
    )


def _of_other_causes(base: VariantResult, lost: int) -> str:
    failed = base.summary.failed
    named = ", ".join(
        f"{each.cause} {each.losses:,}" for each in base.diagnosis if each.cause != "snat_race"
    )
    if not_the_race(base):
        return f"not the race: {failed - lost:,} of {failed:,} losses are of other causes ({named})"
    return (
        f"inconclusive: of {failed:,} dials that failed under '{base.name}', {failed - lost:,} did for "
        f"other reasons than the race, or may have ({named}); mend them, and measure again"
    )


_WORDS = {"reproduced": _reproduced, "not_seen": _not_seen, "inconclusive": _inconclusive}


def _mitigation(base: VariantResult, other: VariantResult, spread: float) -> Mitigation:
    found = reduction(discounted(*_pairs(base), spread), discounted(*_pairs(other), spread))
    return Mitigation(
        name=other.name,
        loss_reduction=found[0] if found else None,
        ci95=found[1] if found else None,
    )


def _pairs(variant: VariantResult) -> tuple[int, int]:
    return variant.summary.collisions or 0, variant.summary.paired or 0
