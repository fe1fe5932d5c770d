"""The results of runs: the JSON contract, schema_version 1."""

from typing import Any, Literal, Self

from pydantic import model_validator

from snat_race.results.cause import Cause
from snat_race.results.model import Model, Result
from snat_race.results.counters import KernelCounters, CounterDelta
from snat_race.results.nat import Nat


class Latency(Model):
    """Connect latency in ns; each is at least the one before."""

    min: int
    p50: int
    p90: int
    p95: int
    p99: int
    p999: int
    p9999: int | None = None
    max: int
    mean: float

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        ordered = [self.min, self.p50, self.p90, self.p95, self.p99, self.p999, self.p9999, self.max]
        present = [each for each in ordered if each is not None]
        if present != sorted(present):
            raise ValueError("percentiles must not fall")
        return self


class Summary(Model):
    """What became of the dials of a period, a variant or a run.

    ``attempted`` dials have an outcome. ``paired`` and ``collisions`` count slots in which two or
    more containers dialled the same lane, and those in which one of them lost; None where one
    client cannot know. ``latency_ns`` is of connected dials, ``latency_all_ns`` of failed ones too,
    ``latency_from_slot_ns`` also of the slots that passed while one was in flight. ``histogram``,
    ``histogram_all`` and ``histogram_from_slot`` hold what these were derived from, as HdrHistogram
    V2, base64. ``began_at``: when this period, or the run, began. ``syn_resent``: connects
    that took so long that their SYN may have been sent again, by how often TCP_INFO says it was.
    ``watched``: the counters of the namespaces that were watched meanwhile.
    """

    attempted: int
    connected: int
    failed: int
    late: int
    overruns: int
    cut_short: int
    began_at: str | None = None
    paired: int | None = None
    collisions: int | None = None
    elapsed_s: float
    rate_per_s: float
    errors: dict[str, int]
    loss_rate: float
    loss_rate_ci95: tuple[float, float]
    latency_ns: Latency | None = None
    latency_all_ns: Latency | None = None
    latency_from_slot_ns: Latency | None = None
    histogram: str | None = None
    histogram_all: str | None = None
    histogram_from_slot: str | None = None
    syn_resent: dict[str, int] = {}
    watched: list[CounterDelta] = []


CacheState = Literal["hot", "warm", "cold"]
Outcome = Literal["reproduced", "not_seen", "inconclusive"]


class VariantResult(Model):
    """One SNAT rule under test.

    ``drawn_ports``: how many ports the rule draws from; None if it tries to keep the client's.
    ``translated``: whether a rule of the user's translated anything; None if nobody looked.
    ``accepted``: connections accepted, or requests answered, at the destination.
    ``periods``: its rounds. ``collision_rate_ci95``: collisions per paired slot; None where nothing
    is paired.
    """

    name: str
    rule: str
    drawn_ports: int | None = None
    translated: bool | None = None
    accepted: int
    summary: Summary
    kernel: KernelCounters
    diagnosis: list[Cause]
    outcome: Outcome
    periods: list[Summary] = []
    collision_rate_ci95: tuple[float, float] | None = None


class UnavailableVariant(Model):
    """A rule that could not be loaded here, and why."""

    name: str
    reason: str


class WindowPoint(Model):
    """What became of the pairs whose second SYN was sent ``low_ns`` to ``high_ns`` after the first
    (before it, if negative).
    """

    low_ns: int
    high_ns: int
    paired: int
    collisions: int


class Window(Model):
    """The race window: the area under the probability of a collision against the offset.

    Offsets were drawn evenly from +-``sweep_ns``. ``dispersion``: variance between rounds over
    that of a binomial; the interval allows for it. ``tail_rate``: collisions per pair in the
    outermost tenth of the offsets. ``unexplained``: losses during the sweep without a rise of
    insert_failed; they count as collisions, so many make the window too long.
    """

    variant: str
    caches: CacheState
    sweep_ns: int
    paired: int
    collisions: int
    unexplained: int
    window_ns: float
    window_ns_ci95: tuple[float, float]
    dispersion: float
    tail_rate: float
    curve: list[WindowPoint]


class Mitigation(Model):
    """How far a variant lowers the collision rate of the first; None if that has none to lower."""

    name: str
    loss_reduction: float | None
    ci95: tuple[float, float] | None


class Verdict(Model):
    """The conclusion, in one word and in a sentence.

    ``dispersion``: variance between rounds over that of a binomial; all intervals of collision
    rates allow for it.
    """

    outcome: Outcome
    text: str
    dispersion: float = 1.0
    mitigations: list[Mitigation]


class LabResult(Result):
    """A run of ``lab``."""

    kind: Literal["lab"] = "lab"
    interrupted: bool
    variants: list[VariantResult]
    unavailable: list[UnavailableVariant] = []
    verdict: Verdict
    window: Window | None = None


class Forecast(Model):
    """SYNs that ordinary traffic is expected to lose an hour, with the 95 % interval of the window."""

    kept_ports: float
    kept_ports_ci95: tuple[float, float]
    drawn_ports: float
    drawn_ports_ci95: tuple[float, float]


class Started(Result):
    """The first event of a stream: what is known of a run as it begins."""

    event: Literal["start"] = "start"
    kind: Literal["client", "watch"]
    nat: Nat | None = None
    counters_from: str | None = None


class ClientResult(Result):
    """A run of ``client``. ``nat``: what is known of the NAT that its dials pass, None: nothing.
    ``cut_off``: made of the periods of a stream that has no end.
    """

    kind: Literal["client"] = "client"
    cut_off: bool = False
    summary: Summary
    periods: list[Summary]
    kernel: KernelCounters
    nat: Nat | None = None
    diagnosis: list[Cause]


class Source(Model):
    """One of the results that were merged. ``failed``: dials of a client; of a watch, the SYNs at most
    that its counters account for. ``watched``: a NAT's counters were read. ``cut_off``: its end is missing.
    """

    kind: Literal["client", "watch"]
    run_id: str
    boot_id: str
    started_at: str
    elapsed_s: float
    spec: dict[str, Any]
    attempted: int | None
    failed: int | None
    watched: bool = False
    cut_off: bool = False


class MergedResult(Result):
    """Clients of several containers or hosts, and watches of their nodes, by ``report``.

    ``environment`` and ``spec`` are those of the first client.
    """

    kind: Literal["merged"] = "merged"
    sources: list[Source]
    summary: Summary
    periods: list[Summary]
    kernel: KernelCounters
    nat: Nat
    diagnosis: list[Cause]


class WatchResult(Result):
    """A run of ``watch``.

    ``counters_from``: netlink, or the file read instead. ``suspects``: what the counters could
    account for, each with the most SYNs that it may have cost. ``nat`` and ``exhausted``: what the
    rules there say, and how many of the clashes may be for want of ports. ``cut_off``: as a client's.
    """

    kind: Literal["watch"] = "watch"
    cut_off: bool = False
    counters_from: str
    periods: list[CounterDelta]
    total: CounterDelta | None
    nat: Nat
    exhausted: int
    suspects: list[Cause]
