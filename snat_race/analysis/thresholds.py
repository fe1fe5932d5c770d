"""Limits that a user sets, against what was observed. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from snat_race.analysis.verdict import race_losses
from snat_race.results.conclusions import UNPROVEN, Cause
from snat_race.results.schema import Summary


class Limit(StrEnum):
    """What can be limited."""

    error_rate = "error_rate"  # dials failed, or late by a retransmit, per dial of known outcome, 0 to 1
    p99_ns = "p99_ns"  # 99th percentile of the latency of all dials, failed ones too
    race_losses = "race_losses"  # SYNs lost to the race


class Unknown(StrEnum):
    """Why it cannot be told whether a limit holds, or why it does not hold."""

    nothing_dialled = "nothing_dialled"  # so the limit does not hold
    no_percentiles = "no_percentiles"  # a run that was cut off has none
    causes_unproven = "causes_unproven"  # that many losses may be the race's


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """The limits of a run; None: no limit."""

    error_rate: float | None = None  # 0 to 1
    p99_ns: int | None = None
    race_losses: int | None = None

    def __bool__(self) -> bool:
        return any(limit is not None for limit in (self.error_rate, self.p99_ns, self.race_losses))


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitCheck:
    """One limit and whether it holds."""

    limit: Limit
    allowed: float  # in the unit of the limit
    observed: float | None  # likewise; None: nothing was
    holds: bool | None  # None: what was observed cannot tell
    unknown: Unknown | None = None  # why it cannot be told; None: it can
    late_by_retransmit: int = 0  # of the error rate: dials that connected all the same
    unproven: int = 0  # losses without a proven cause, where they are what cannot be told


def checked(limits: Thresholds, summary: Summary, diagnosis: Sequence[Cause]) -> Iterator[LimitCheck]:
    """Yield each limit that is set. Where nothing was dialled, none holds."""
    if limits.error_rate is not None:
        rate = summary.failed_or_late / summary.recorded if summary.recorded else None
        yield _check(Limit.error_rate, limits.error_rate, rate, summary.late_by_retransmit)
    if limits.p99_ns is not None:
        yield _latency(limits.p99_ns, summary)
    if limits.race_losses is not None:
        yield _race(limits.race_losses, summary, diagnosis)


def _check(limit: Limit, allowed: float, observed: float | None, late: int = 0) -> LimitCheck:
    if observed is None:
        return LimitCheck(
            limit=limit, allowed=allowed, observed=None, holds=False, unknown=Unknown.nothing_dialled
        )
    return LimitCheck(
        limit=limit,
        allowed=allowed,
        observed=observed,
        holds=observed <= allowed,
        late_by_retransmit=late,
    )


def _latency(allowed_ns: int, summary: Summary) -> LimitCheck:
    latency = summary.latency_all_ns
    if not latency and summary.recorded:
        return LimitCheck(
            limit=Limit.p99_ns,
            allowed=allowed_ns,
            observed=None,
            holds=None,
            unknown=Unknown.no_percentiles,
        )
    return _check(Limit.p99_ns, allowed_ns, latency.p99 if latency else None)


def _race(allowed: int, summary: Summary, diagnosis: Sequence[Cause]) -> LimitCheck:
    """Count what is proven to be the race's; losses without a proven cause may be its own too."""
    if not summary.attempted:
        return _check(Limit.race_losses, allowed, None)
    proven = race_losses(diagnosis)
    unproven = sum(cause.losses for cause in diagnosis if cause.cause in UNPROVEN)
    if proven > allowed or proven + unproven <= allowed:
        return _check(Limit.race_losses, allowed, proven)
    return LimitCheck(
        limit=Limit.race_losses,
        allowed=allowed,
        observed=proven,
        holds=None,
        unknown=Unknown.causes_unproven,
        unproven=unproven,
    )
