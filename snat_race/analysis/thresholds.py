"""Limits that a user sets, against what was observed. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from snat_race.analysis.diagnosis import UNPROVEN
from snat_race.results.cause import Cause
from snat_race.results.schema import Summary


@dataclass(frozen=True, slots=True)
class Thresholds:
    """None: no limit. ``error_rate``: of the dials whose outcome is known; ``p99_ns``: of all of them,
    failed ones too; ``race_losses``: SYNs lost to the race.
    """

    error_rate: float | None = None
    p99_ns: int | None = None
    race_losses: int | None = None

    def __bool__(self) -> bool:
        return any(each is not None for each in (self.error_rate, self.p99_ns, self.race_losses))


@dataclass(frozen=True, slots=True)
class Held:
    """One limit and whether it held; None: what was observed cannot tell. ``limit`` and ``observed`` are
    in the unit that ``option`` takes: a share, ns or a count.
    """

    option: str
    limit: float
    observed: float | None
    holds: bool | None
    why: str = ""


def held(limits: Thresholds, summary: Summary, diagnosis: Sequence[Cause]) -> Iterator[Held]:
    """Yield each limit that is set. Where nothing was dialled, nothing holds."""
    if limits.error_rate is not None:
        rate = summary.loss_rate if summary.attempted > summary.overruns else None
        yield _of("--max-error-rate", limits.error_rate, rate)
    if limits.p99_ns is not None:
        yield _latency(limits.p99_ns, summary)
    if limits.race_losses is not None:
        yield _race(limits.race_losses, summary, diagnosis)


def _of(option: str, limit: float, observed: float | None) -> Held:
    if observed is None:
        return Held(option, limit, None, holds=False, why="nothing was dialled, so nothing is known")
    return Held(option, limit, observed, holds=observed <= limit)


def _latency(limit_ns: int, summary: Summary) -> Held:
    every, option = summary.latency_all_ns, "--max-p99"
    if not every and summary.attempted > summary.overruns:
        return Held(option, limit_ns, None, None, "a run that was cut off has no percentiles; run it again")
    return _of(option, limit_ns, every.p99 if every else None)


def _race(limit: int, summary: Summary, diagnosis: Sequence[Cause]) -> Held:
    """Tell of the race what is proven; beyond that, losses without a proven cause may be its own."""
    option = "--max-race-losses"
    if not summary.attempted:
        return _of(option, limit, None)
    proven = sum(each.losses for each in diagnosis if each.cause == "snat_race")
    possible = sum(each.losses for each in diagnosis if each.cause in UNPROVEN)
    if proven > limit or proven + possible <= limit:
        return Held(option, limit, proven, holds=proven <= limit)
    return Held(
        option,
        limit,
        proven,
        None,
        f"and {possible:,} more losses of which nobody can tell the cause; add --watch-netns, or merge a "
        "watch of the NAT's host",
    )
