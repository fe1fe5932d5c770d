"""How much was lost of what was measured, and within which interval. Pure.

Every page, figure and comparison takes its intervals from here, so that one result has one interval.
What is counted depends on what was measured:

- Of a client: dials. Those that failed are lost, and so are those that connected late by a retransmit,
  because their SYN was.
- Of a lab: paired slots, and those that collided. Where dials do not meet: dials, as of a client.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from snat_race.analysis.intervals import (
    FEW_LOSSES,
    Interval,
    counts_divisor,
    dispersion_and_freedom,
    wilson,
)
from snat_race.results.schema import Summary, VariantResult

BETWEEN_RUNS = 0.4
"""How far the collision rates of runs of one rule on one machine differ: the standard deviation of
their logits, log(p / (1 - p)), beyond what the pairs of each run account for.

The skew between dialers, which changes from run to run, moves the rate (see docs/lab.md). Measured:
0.33 over 24 runs of 'masquerade' on a busy machine of two CPUs (12 to 40 % collided). Eight runs on an
idle one had 38 to 69 %; such a range stands for about 0.45.
"""


class Unit(StrEnum):
    """What is lost, or not."""

    dial = "dial"
    pair = "pair"  # a slot in which two containers or more dialled the same lane


@dataclass(frozen=True, kw_only=True, slots=True)
class LossCounts:
    """What was measured of one thing: a client's run, or a lab's variant."""

    name: str  # what people call it
    rounds: tuple[tuple[int, int], ...]  # (lost, tried) of each round or period, one or many
    interval: Interval = (0.0, 1.0)  # 95 % interval of the loss rate
    unit: Unit = Unit.dial  # what is counted
    late_by_retransmit: int = 0  # of the lost: dials that connected all the same
    due: int = 0  # dials that were due, those of late slots too

    @property
    def lost(self) -> int:
        """All losses."""
        return sum(lost for lost, _ in self.rounds)

    @property
    def dialled(self) -> int:
        """All dials, or pairs, whose outcome is known."""
        return sum(dialled for _, dialled in self.rounds)

    @property
    def loss_rate(self) -> float:
        """Losses per dial, or pair, 0 to 1; 0 without any."""
        return self.lost / self.dialled if self.dialled else 0.0

    @property
    def between_runs(self) -> float:
        """What is to be added to a dispersion, so that it allows for other runs too."""
        return between_runs(self.lost, self.dialled) if self.unit is Unit.pair else 0.0


def between_runs(collisions: float, paired: float) -> float:
    """Return what drift from run to run adds to the dispersion between rounds.

    The variance of a rate p of n pairs is p (1 - p) / n times the dispersion, for the pairs of this run.
    Logits that vary by :data:`BETWEEN_RUNS` add (BETWEEN_RUNS p (1 - p))^2: the delta method. The sum
    over p (1 - p) / n is the dispersion and this number. It is 0 where nothing collided.
    """
    if not paired:
        return 0.0
    rate = collisions / paired
    return BETWEEN_RUNS**2 * rate * (1 - rate) * paired


def collision_interval(collisions: int, paired: int, dispersion: float) -> Interval:
    """Return the 95 % interval of a collision rate, for this run and others on this machine.

    ``dispersion``: that between rounds. Rounds with next to no collisions do not drift.
    """
    divisor = dispersion if collisions >= FEW_LOSSES else 1.0
    divisor += between_runs(collisions, paired)
    return wilson(collisions / divisor, paired / divisor)


def loss_counts(name: str, summary: Summary, periods: Iterable[Summary]) -> LossCounts:
    """Count the dials of a run that were lost, period by period, and what came after the last period."""
    rounds = [(period.failed_or_late, period.recorded) for period in periods]
    lost = summary.failed_or_late - sum(lost for lost, _ in rounds)
    dialled = summary.recorded - sum(dialled for _, dialled in rounds)
    if dialled > 0 and lost >= 0:
        rounds.append((lost, dialled))
    return LossCounts(
        name=name,
        rounds=tuple(rounds),
        interval=_interval(rounds),
        late_by_retransmit=summary.late_by_retransmit,
        due=summary.attempted + summary.late,
    )


def collision_counts(name: str, variant: VariantResult) -> LossCounts:
    """Count the pairs of a lab's variant that collided, round by round; where none meet, its dials."""
    if variant.summary.paired is None:
        return loss_counts(name, variant.summary, variant.periods)
    return LossCounts(
        name=name,
        rounds=tuple((period.collisions or 0, period.paired or 0) for period in variant.periods),
        interval=variant.collision_rate_ci95 or (0.0, 1.0),
        unit=Unit.pair,
        due=variant.summary.attempted + variant.summary.late,
    )


def _interval(rounds: Sequence[tuple[int, int]]) -> Interval:
    """Return the 95 % interval of a loss rate, which allows for drift between the periods of its run."""
    spread, freedom = dispersion_and_freedom([rounds])
    divisor = counts_divisor(spread, freedom) if freedom else 1.0
    return wilson(
        sum(lost for lost, _ in rounds) / divisor, sum(dialled for _, dialled in rounds) / divisor
    )
