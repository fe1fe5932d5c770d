"""The result of ``trace``: the SYNs that a host lost, as its packets prove it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from snat_race.results.conclusions import CandidateCause, MeasurementWarning
from snat_race.results.counters import CounterDelta
from snat_race.results.model import Count, Instant, Model, Result

MOST_LOSSES = 1_000
"""Losses that a result holds one by one."""
MOST_ROWS = 100
"""Victims, destinations and pairs that a result holds."""


class Loss(Model):
    """A SYN that lost the race, and the one that it lost to."""

    at: Instant
    """When it arrived: UTC, ISO 8601, to the us."""
    source: str
    """Address and port that it came from."""
    destination: str
    """Address and port that it was for, as it came."""
    devices: list[str]
    """Devices that saw it, in order."""
    winner: str
    """Address and port that the other came from; this host's own, if it sent that."""
    translated: str
    """Address and port that the other left from: the lost one was to be given the same."""
    apart_ns: int
    """How much later than the other it arrived in ns; negative: earlier."""


class SentAgain(Model):
    """A lost SYN that was sent again, and left."""

    at: Instant
    """When it left: UTC, ISO 8601, to the us."""
    source: str
    """Address and port that it came from."""
    destination: str
    """Address and port that it was for, as it came."""
    waited_ns: Count
    """Time since the first loss in ns."""


class TracedPeriod(Model):
    """What was seen in one interval."""

    began_at: Instant
    """When it began: UTC, ISO 8601."""
    syns: Count
    """SYNs that came in, and are gone by now or did not leave."""
    lost: Count
    """Those of them that lost the race."""
    vanished: Count
    """Those that did not leave, and lost to nobody who is known."""
    dropped: Count
    """Sightings that the ring had no room for."""


class Victim(Model):
    """An address that SYNs came from."""

    address: str
    """The address."""
    syns: Count
    """SYNs that came from it, each retransmit counted too."""
    lost: Count
    """Those of them that lost the race."""
    vanished: Count
    """Those that did not leave, and lost to nobody who is known."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.lost + self.vanished > self.syns:
            raise ValueError("lost and vanished must not exceed syns")
        return self


class TracedDestination(Model):
    """An address and port that SYNs did not reach."""

    destination: str
    """Address and port."""
    lost: Count
    """SYNs for it that lost the race."""
    vanished: Count
    """SYNs for it that did not leave, and lost to nobody who is known."""


class RacingPair(Model):
    """Two addresses of which one lost to the other."""

    victim: str
    """The address that lost."""
    winner: str
    """The address that it lost to."""
    lost: Count
    """How often."""


class GapBin(Model):
    """How many losers and winners arrived about equally far apart."""

    below_ns: Count
    """They arrived less than this apart in ns, and no less than in the bin before."""
    count: Count
    """How many."""


class TraceResult(Result):
    """A run of ``trace``."""

    kind: Literal["trace"] = "trace"
    """Kind of result."""
    netns: str
    """Name of the namespace."""
    syns: Count
    """SYNs that came in, each retransmit counted too."""
    sent: Count
    """SYNs that this host sent, and no device received."""
    lost: Count
    """Those that came in and lost the race: each has a winner."""
    vanished: Count
    """Those that came in and did not leave, and lost to nobody who is known."""
    unsure: Count = 0
    """Those of the vanished that look like the race, of which conntrack counted fewer at that time."""
    unknown: Count
    """SYNs of which nothing can be said, because sightings are missing or too many SYNs were alike."""
    sightings: Count
    """SYNs seen, on each device again."""
    dropped: Count
    """Sightings that the ring had no room for."""
    victims: Annotated[list[Victim], Field(max_length=MOST_ROWS)]
    """Addresses whose SYNs did not leave, those that lost most first."""
    destinations: Annotated[list[TracedDestination], Field(max_length=MOST_ROWS)]
    """Where those SYNs were to go, likewise."""
    pairs: Annotated[list[RacingPair], Field(max_length=MOST_ROWS)]
    """Who lost to whom, likewise."""
    waited: dict[str, Count]
    """Lost SYNs that were sent again and left, by whole seconds since the first loss."""
    apart: list[GapBin]
    """How far apart losers and winners arrived."""
    losses: Annotated[list[Loss], Field(max_length=MOST_LOSSES)]
    """The last losses, the oldest first."""
    counted: CounterDelta | None
    """What the kernel counted there meanwhile; null: it could not be read."""
    candidate_causes: list[CandidateCause] = []
    """What else the counters could account for."""
    warnings: list[MeasurementWarning] = []
    """What makes it doubtful and only the run itself could see."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.lost + self.vanished > self.syns:
            raise ValueError("lost and vanished must not exceed syns")
        if self.unsure > self.vanished:
            raise ValueError("unsure must not exceed vanished")
        if sum(gap.count for gap in self.apart) != self.lost:
            raise ValueError("apart must add up to lost")
        if sum(self.waited.values()) > self.lost:
            raise ValueError("waited must not exceed lost")
        return self
