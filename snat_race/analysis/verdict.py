"""What a lab run proves: race reproduced, no race seen, or inconclusive, and what helps."""

from typing import Literal

from snat_race.analysis.intervals import reduction, wilson
from snat_race.analysis.result import Mitigation, VariantResult, Verdict

Outcome = Literal["reproduced", "not_seen", "inconclusive"]

FEWEST_PAIRS = 100
_MOST_OTHERS = 0.05  # other failures for each SYN lost to the race, before they blur its rates
ADVERSARIAL = "These rates are adversarial: every dial was timed to collide; production sees far fewer."
MEANING: dict[Outcome, str] = {
    "reproduced": (
        "Two connections behind this NAT were given the same port at the same moment, and the kernel "
        "dropped the SYN of one; its application waits a second or times out."
    ),
    "not_seen": "Either this kernel and rule do not race, or the two SYNs never met closely enough.",
    "inconclusive": "This run proves nothing either way.",
}


def judge(variants: list[VariantResult], cpus: int) -> Verdict:
    """Judge the first variant, and every other one against it, as measured on so many CPUs."""
    base = variants[0]
    outcome, text = _outcome(base, cpus)
    mitigations = [_mitigation(base, other) for other in variants[1:]]
    return Verdict(outcome=outcome, text=text, mitigations=mitigations)


def race_losses(variant: VariantResult) -> int:
    """Return the SYNs that the variant lost to the race, by its diagnosis."""
    return sum(cause.losses for cause in variant.diagnosis if cause.cause == "snat_race")


def _outcome(base: VariantResult, cpus: int) -> tuple[Outcome, str]:
    summary, lost = base.summary, race_losses(base)
    collisions, paired = _pairs(base)
    low, high = wilson(collisions, paired)
    others = summary.failed - lost
    if others > lost * _MOST_OTHERS:
        return "inconclusive", (
            f"inconclusive: of {summary.failed:,} dials that failed under '{base.name}', {others:,} did "
            "for other reasons than the race; see the causes, mend them, and measure again"
        )
    if lost:
        return "reproduced", (
            f"race reproduced: '{base.name}' lost {lost:,} SYNs to it; {collisions / max(paired, 1):.1%} "
            f"of {paired:,} paired dials collided (95 % interval {low:.1%} to {high:.1%})"
        )
    if cpus < 2:
        return "inconclusive", "inconclusive: the race needs two CPUs, and this process may use only one"
    if paired < FEWEST_PAIRS:
        return "inconclusive", (
            f"inconclusive: only {paired:,} paired dials under '{base.name}'; raise --duration until "
            f"there are {FEWEST_PAIRS:,}"
        )
    return "not_seen", (
        f"no race seen under '{base.name}' in {paired:,} paired dials: at most {high:.2%} of them "
        "collide (upper end of the 95 % interval)"
    )


def _mitigation(base: VariantResult, other: VariantResult) -> Mitigation:
    found = reduction(_pairs(base), _pairs(other))
    return Mitigation(
        name=other.name,
        loss_reduction=found[0] if found else None,
        ci95=found[1] if found else None,
    )


def _pairs(variant: VariantResult) -> tuple[int, int]:
    return variant.summary.collisions or 0, variant.summary.paired or 0
