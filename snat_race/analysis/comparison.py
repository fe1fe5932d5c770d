"""Two loss rates, compared: fewer, more, no difference detected, or too little to tell. Pure.

The unit is the dial, or, where the machine drifts from round to round by more than a coin would,
fewer of them: counts are divided by the dispersion between rounds, see ``intervals.dispersion``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from snat_race.analysis.intervals import (
    Z95,
    counts_divisor,
    dispersion_and_freedom,
    newcombe,
    reduction,
    wilson,
)
from snat_race.results.model import SCHEMA_VERSION, Model

Word = Literal["fewer", "more", "no difference detected", "inconclusive"]

_POWER_Z = 0.8416212335729143  # of 80 %
_WORTHWHILE = 0.5  # of the baseline's losses: a change that a test should be able to see
_STEADY = 2.0  # Student's widening, squared: that of four degrees of freedom
_NEGLIGIBLE = 0.001  # a loss rate that nobody minds, where the baseline has none to compare with


@dataclass(frozen=True, slots=True)
class Arm:
    """What was measured of one thing: (lost, dialled) of each round or period, one or many.
    ``offered``: the dials that were due, those of late slots too.
    """

    name: str
    rounds: tuple[tuple[int, int], ...]
    offered: int = 0

    @property
    def lost(self) -> int:
        """All losses."""
        return sum(lost for lost, _ in self.rounds)

    @property
    def dialled(self) -> int:
        """All dials whose outcome is known."""
        return sum(dialled for _, dialled in self.rounds)


class Rate(Model):
    """Losses of one thing, with the 95 % interval of their rate."""

    name: str
    lost: int
    dialled: int
    rounds: int
    loss_rate: float
    loss_rate_ci95: tuple[float, float]


class Comparison(Model):
    """``other`` against ``base``. ``difference``: of the loss rates, other minus base. ``reduction``:
    the share of the losses that is gone; None where base has none. ``dispersion``: variance between
    rounds over that of a binomial. ``more_dials``: how many more each would take to see the losses
    halve, or grow by half, four times in five; None where that is not known.
    """

    base: Rate
    other: Rate
    difference: float
    difference_ci95: tuple[float, float]
    reduction: float | None
    reduction_ci95: tuple[float, float] | None
    dispersion: float
    outcome: Word
    more_dials: int | None


class Compared(Model):
    """All comparisons with the baseline, and what makes them doubtful."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["comparison"] = "comparison"
    comparisons: list[Comparison]
    doubts: list[str]


def compare(base: Arm, other: Arm) -> Comparison:
    """Compare two loss rates.

    The interval of the difference is Newcombe's, that of the reduction MOVER-R, both from Wilson
    intervals.
    """
    weight, spread = _weight((base, other))
    p, q = ((arm.lost / weight, arm.dialled / weight) for arm in (base, other))
    low, high = newcombe(p, q)
    found = reduction(p, q)
    # Of a few rounds nobody knows how far they drift; dials alone would not tell.
    more = None if weight > spread * _STEADY else _more_dials(base, other, weight)
    return Comparison(
        base=_rate(base, weight),
        other=_rate(other, weight),
        difference=_share(other) - _share(base),
        difference_ci95=(low, high),
        reduction=found[0] if found else None,
        reduction_ci95=found[1] if found else None,
        dispersion=round(spread, 3),
        outcome=_outcome(low, high, base, other),
        more_dials=more,
    )


def _share(arm: Arm) -> float:
    return arm.lost / arm.dialled if arm.dialled else 0.0


def _rate(arm: Arm, weight: float) -> Rate:
    return Rate(
        name=arm.name,
        lost=arm.lost,
        dialled=arm.dialled,
        rounds=len(arm.rounds),
        loss_rate=_share(arm),
        loss_rate_ci95=wilson(arm.lost / weight, arm.dialled / weight),
    )


def _weight(arms: Sequence[Arm]) -> tuple[float, float]:
    """Return by what counts are divided, and the dispersion: that is itself an estimate, of so many
    rounds only, so the interval is widened as Student's is.
    """
    spread, freedom = dispersion_and_freedom([arm.rounds for arm in arms])
    return (counts_divisor(spread, freedom) if freedom else 1.0), spread


def _outcome(low: float, high: float, base: Arm, other: Arm) -> Word:
    """Name the outcome; no difference is detected only where one worth while would have been."""
    if not base.dialled or not other.dialled:
        return "inconclusive"
    if high < 0:
        return "fewer"
    if low > 0:
        return "more"
    worthwhile = _WORTHWHILE * _share(base) or _NEGLIGIBLE
    return "inconclusive" if low < -worthwhile or high > worthwhile else "no difference detected"


def _more_dials(base: Arm, other: Arm, weight: float) -> int | None:
    """Return the dials that each still lacks to tell half of the losses from all of them: the normal
    approximation for two proportions, J. L. Fleiss, "Statistical Methods for Rates and Proportions",
    2nd ed. (1981), section 3.2. If neither lost any: until Wilson's interval rules out what matters.
    """
    p = _share(base)
    if p >= 1 or (not p and other.lost):
        return None
    wanted = Z95**2 / _NEGLIGIBLE
    if p:
        q = p * (1 - _WORTHWHILE)
        wanted = (Z95 + _POWER_Z) ** 2 * (p * (1 - p) + q * (1 - q)) / (p - q) ** 2 * weight
    return max(0, ceil(wanted) - min(base.dialled, other.dialled))
