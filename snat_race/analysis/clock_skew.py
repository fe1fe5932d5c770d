"""Whether a watch's host has another clock than the clients', judging by what both counted. Pure.

Two hosts share no clock. But a SYN that a NAT drops is counted at once by the one, and missed by the other
within a timeout. So if the clients' losses and the watch's clashes are the same ones, as many and over as
long, then the distance of the two is that of the clocks.
"""

from collections.abc import Sequence
from typing import NamedTuple

SLACK_S = 2.0
"""A watch reads at its own times, so what it counted that close to the clients' run belongs to it."""

_MOST_UNALIKE = 1.5  # clashes are at most that many times the losses, or the reverse
_FARTHEST_S = 120.0
"""A watch that ran all the time that the clients did, by either clock, may have seen another incident
before or after. Its clock is taken for another by that much at the most.
"""


class Counted(NamedTuple):
    """What was counted in one period."""

    began_s: float  # seconds since the epoch, by the clock of who counted
    elapsed_s: float
    events: int  # SYNs lost, or clashes


def clock_ahead_s(losses: Sequence[Counted], clashes: Sequence[Counted]) -> float:
    """Return by how many seconds the clock that ``clashes`` were counted by is ahead of that of ``losses``.

    ``clashes``: of all periods of the watch, those without any too.

    0.0 if they agree, within :data:`SLACK_S`, or if it cannot be told: nothing was lost or clashed, what
    clashed at the time of the losses accounts for them better than all clashes do, there were clashes
    over a longer time, or more of them, than the clients' losses can be, or the watch ran all the time
    that the clients did and the clashes are too far away.
    """
    lost = sum(period.events for period in losses)
    clashed = [period for period in clashes if period.events > 0]
    total = sum(period.events for period in clashed)
    if not lost or not total or not 1 / _MOST_UNALIKE <= total / lost <= _MOST_UNALIKE:
        return 0.0
    began_s = min(period.began_s for period in losses)
    ended_s = max(_end_s(period) for period in losses)
    at_the_time = sum(
        period.events
        for period in clashed
        if _end_s(period) >= began_s - SLACK_S and period.began_s <= ended_s + SLACK_S
    )
    if abs(at_the_time - lost) <= abs(total - lost):
        return 0.0
    lasted_s = max(_end_s(period) for period in clashed) - min(period.began_s for period in clashed)
    longest_s = max(period.elapsed_s for period in clashed)
    if lasted_s > ended_s - began_s + longest_s + SLACK_S:
        return 0.0
    ahead_s = _middle_s(clashed) - _middle_s(losses)
    watch_began_s, watch_ended_s = min(period.began_s for period in clashes), max(map(_end_s, clashes))
    covers = watch_began_s <= began_s + SLACK_S and watch_ended_s >= ended_s - SLACK_S
    return 0.0 if covers and abs(ahead_s) > _FARTHEST_S else ahead_s


def _end_s(period: Counted) -> float:
    return period.began_s + period.elapsed_s


def _middle_s(periods: Sequence[Counted]) -> float:
    """Return the mean instant of what was counted."""
    total = sum(period.events for period in periods)
    origin_s = periods[0].began_s  # a float of the epoch times a large count would lose its ms
    moments = (
        (period.began_s + period.elapsed_s / 2 - origin_s) * period.events / total for period in periods
    )
    return origin_s + sum(moments)
