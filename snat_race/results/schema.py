"""The results of runs: the JSON contract. Files of version 1 are upgraded by ``schema_v1``."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from snat_race.results.conclusions import (
    CandidateCause,
    Cause,
    MeasurementWarning,
    Outcome,
    Verdict,
    VerdictReason,
)
from snat_race.results.counters import CounterDelta, KernelCounters
from snat_race.results.model import Amount, Count, Facts, Instant, Model, Result, Seconds, Share
from snat_race.results.nat import Nat


class Latency(Model):
    """Connect latency in ns; each is at least the one before. Read from a histogram of 3 digits."""

    min: Count
    """Shortest."""
    p50: Count
    """Median."""
    p90: Count
    """90th percentile."""
    p95: Count
    """95th percentile."""
    p99: Count
    """99th percentile."""
    p999: Count
    """99.9th percentile."""
    p9999: Count | None = None
    """99.99th percentile; null: of a period of an older version."""
    max: Count
    """Longest."""
    mean: Amount
    """Mean."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        ordered = [self.min, self.p50, self.p90, self.p95, self.p99, self.p999, self.p9999, self.max]
        present = [percentile for percentile in ordered if percentile is not None]
        if present != sorted(present):
            raise ValueError("percentiles must not fall")
        return self


class Summary(Model):
    """What became of the dials of a period, a variant or a run."""

    attempted: Count
    """Dials that have an outcome: ``connected`` + ``failed`` + ``overruns``."""
    connected: Count
    """Dials that connected."""
    failed: Count
    """Dials that did not connect."""
    late: Count
    """Slots that passed without a dial, because one was in flight or being prepared."""
    overruns: Count
    """Dials whose sample was dropped because the ring was full; their outcome is not known."""
    cut_short: Count
    """Dials in flight at the stop; they are counted nowhere else."""
    began_at: Instant | None = None
    """When this period, or the run, began: UTC, ISO 8601; null: not known."""
    paired: Count | None = None
    """Slots in which two or more containers dialled the same lane; null: one client cannot know."""
    collisions: Count | None = None
    """Paired slots in which at least one dial was lost; null as above."""
    elapsed_s: Seconds
    """Length in seconds."""
    rate_per_s: Amount
    """Dials attempted per second."""
    errors: dict[str, Count]
    """Failed dials by the name of their errno; TIMEOUT: no answer in time; UNKNOWN: no errno."""
    loss_rate: Share
    """Share of the dials with a known outcome that failed, 0 to 1."""
    loss_rate_ci95: tuple[Share, Share]
    """Its 95 % interval (Wilson's) if dials were independent; what reports show allows for drift."""
    latency_ns: Latency | None = None
    """Latency of connected dials; null: there were none, or it is a sum of periods."""
    latency_all_ns: Latency | None = None
    """Latency of all dials, failed ones too; null as above."""
    latency_from_slot_ns: Latency | None = None
    """As ``latency_all_ns``, with the slots that passed while a dial was in flight; null: not derived."""
    histogram: str | None = None
    """What ``latency_ns`` was derived from: HdrHistogram V2, base64; null: of a single period."""
    histogram_all: str | None = None
    """What ``latency_all_ns`` was derived from, likewise."""
    histogram_from_slot: str | None = None
    """What ``latency_from_slot_ns`` was derived from, likewise."""
    syn_retransmits: dict[str, Count] = {}
    """Connects so slow that their SYN may have been sent again, by how often TCP_INFO says it was."""
    counters: list[CounterDelta] = []
    """What the kernel counted meanwhile, in each namespace that was read."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.connected + self.failed + self.overruns != self.attempted:
            raise ValueError("connected, failed and overruns must add up to attempted")
        if sum(self.errors.values()) != self.failed:
            raise ValueError("errors must add up to failed")
        if (self.collisions or 0) > (self.paired or 0):
            raise ValueError("collisions must not exceed paired")
        return self

    @property
    def recorded(self) -> int:
        """Dials whose outcome is known."""
        return self.attempted - self.overruns

    @property
    def late_by_retransmit(self) -> int:
        """Dials that lost a SYN and connected all the same, a second late or more."""
        late = sum(count for times, count in self.syn_retransmits.items() if times != "0")
        return max(0, min(late, self.connected))  # of a file that says otherwise, no more than there are

    @property
    def failed_or_late(self) -> int:
        """Dials that failed, and those that connected late by a retransmit."""
        return self.failed + self.late_by_retransmit


CacheState = Literal["hot", "warm", "cold"]


class VariantResult(Model):
    """One SNAT rule under test."""

    name: str
    """Name of the variant."""
    rule: str
    """The rule, as its loader writes it."""
    drawn_ports: Count | None = None
    """How many ports the rule draws from; null: it tries to keep the client's port."""
    translated: bool | None = None
    """Whether a rule of the user's translated anything; null: nobody looked."""
    accepted: Count
    """Connections accepted, or requests answered, at the destination."""
    proven: Count | None = None
    """SYNs that lost the race to another, as packets prove; null: nobody traced."""
    summary: Summary
    """What became of its dials."""
    kernel: KernelCounters
    """What the kernel counted over its rounds."""
    diagnosis: list[Cause]
    """What its losses are due to, most losses first."""
    outcome: Outcome
    """What its rounds prove."""
    reason: VerdictReason
    """Why."""
    periods: list[Summary] = []
    """Its rounds."""
    collision_rate_ci95: tuple[Share, Share] | None = None
    """95 % interval of its collisions per paired slot, over other runs too; null: nothing is paired."""


class UnavailableVariant(Model):
    """A rule that could not be measured here."""

    name: str
    """Name of the variant."""
    reason: str
    """Why not, and what to do about it."""


class WindowPoint(Model):
    """What became of the pairs whose SYNs were sent at offsets of a small range."""

    low_ns: int
    """Least offset in ns: by how much the second SYN was sent after the first (before, if negative)."""
    high_ns: int
    """Greatest offset in ns."""
    paired: Count
    """Pairs at these offsets."""
    collisions: Count
    """Pairs of those of which a SYN was lost."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.collisions > self.paired:
            raise ValueError("collisions must not exceed paired")
        return self


class Window(Model):
    """The race window: the area under the probability of a collision against the offset."""

    variant: str
    """The variant that it was measured with."""
    caches: CacheState
    """How recently the way through the NAT had been used."""
    sweep_ns: Count
    """Offsets were drawn evenly from -sweep_ns to +sweep_ns."""
    paired: Count
    """All pairs of the sweep."""
    collisions: Count
    """Pairs of which a SYN was lost."""
    unexplained: Count
    """Losses without a rise of insert_failed; they count as collisions, so many make it too long."""
    window_ns: Amount
    """The window in ns."""
    window_ns_ci95: tuple[Amount, Amount]
    """Its 95 % interval, which allows for the dispersion."""
    dispersion: Amount
    """Variance between rounds over that of a binomial."""
    tail_rate: Share
    """Collisions per pair in the outermost tenth of the offsets; much above 0: the window is longer."""
    curve: list[WindowPoint]
    """The curve, by rising offset."""


class LabResult(Result):
    """A run of ``lab``."""

    kind: Literal["lab"] = "lab"
    """Kind of result."""
    interrupted: bool
    """Whether it ended before its time: by a signal, or because a worker died."""
    variants: Annotated[list[VariantResult], Field(min_length=1)]
    """The variants measured, the baseline first."""
    unavailable: list[UnavailableVariant] = []
    """Variants asked for that could not be measured."""
    verdict: Verdict
    """What the run proves of its first variant."""
    window: Window | None = None
    """The race window; null: not measured."""
    warnings: list[MeasurementWarning] = []
    """What was noticed during the run that makes it doubtful."""

    @model_validator(mode="after")
    def _has_one_of_each_name(self) -> Self:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError("variants must differ in their names")
        return self


class Forecast(Model):
    """SYNs that ordinary traffic is expected to lose an hour."""

    kept_ports: float
    """With a NAT that keeps the clients' ports."""
    kept_ports_ci95: tuple[float, float] | None
    """The same at both ends of the window's 95 % interval; null: that is not known."""
    drawn_ports: float
    """With a NAT that draws ports at random."""
    drawn_ports_ci95: tuple[float, float] | None
    """The same at both ends of the window's 95 % interval; null: that is not known."""


class Started(Result):
    """The first event of a stream: what is known of a run as it begins."""

    event: Literal["start"] = "start"
    """Kind of event."""
    kind: Literal["client", "watch", "trace"]
    """Kind of result that the stream will end with."""
    nat: Nat | None = None
    """What is known of the NAT; null: nothing."""
    counters_from: str | None = None
    """Of a watch or a trace: netlink, or the file that is read instead."""
    warnings: list[MeasurementWarning] = []
    """What makes the run doubtful before it begins."""


class ClientResult(Result):
    """A run of ``client``."""

    kind: Literal["client"] = "client"
    """Kind of result."""
    cut_off: bool = False
    """Whether it was made of the periods of a stream that has no end."""
    summary: Summary
    """What became of all its dials."""
    periods: list[Summary]
    """The same, period by period, at most 1,024: of a longer run neighbours are added up."""
    kernel: KernelCounters
    """What the kernel counted meanwhile."""
    nat: Nat | None = None
    """What is known of the NAT that its dials pass; null: nothing."""
    diagnosis: list[Cause]
    """What its losses are due to, most losses first."""
    warnings: list[MeasurementWarning] = []
    """What makes it doubtful and only the run itself could see."""


class MergedPart(Model):
    """One of the results that were merged."""

    kind: Literal["client", "watch"]
    """Kind of that result."""
    run_id: str
    """Its run_id."""
    boot_id: str
    """Identifies the boot of the host that it ran on; empty: not known."""
    started_at: Instant
    """When it began: UTC, ISO 8601."""
    clock_ahead_s: float = 0.0
    """How far the clock of a watch's host is ahead of the clients', in seconds; 0: not known to be."""
    elapsed_s: Seconds
    """Its length in seconds."""
    spec: Facts
    """Its settings."""
    attempted: Count | None
    """Dials of a client; null: it is a watch."""
    failed: Count | None
    """Failed dials of a client; of a watch, the SYNs that its counters account for at the most."""
    late_by_retransmit: Count = 0
    """Dials of a client that lost a SYN and connected all the same, a second late or more."""
    loss_rate_ci95: tuple[Share, Share] | None = None
    """95 % interval of the share that failed or was late, over its periods; null: not known."""
    watched: bool = False
    """Whether it read a NAT's counters."""
    cut_off: bool = False
    """Whether its end is missing."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.attempted is not None and (self.failed or 0) + self.late_by_retransmit > self.attempted:
            raise ValueError("failed and late_by_retransmit must not exceed attempted")
        return self


class MergedResult(Result):
    """Clients of several containers or hosts, and watches of their nodes, made one by ``report``.

    ``environment`` and ``spec`` are those of the first client.
    """

    kind: Literal["merged"] = "merged"
    """Kind of result."""
    merged_from: list[MergedPart]
    """The results that it was made of."""
    summary: Summary
    """What became of the dials of all clients."""
    periods: list[Summary]
    """The same, period by period of wall-clock time."""
    kernel: KernelCounters
    """What the kernels counted meanwhile, each namespace once."""
    nat: Nat
    """What is known of the NAT."""
    diagnosis: list[Cause]
    """What all losses are due to, most losses first."""
    warnings: list[MeasurementWarning] = []
    """What makes its parts doubtful and only they could see."""

    @model_validator(mode="after")
    def _has_clients(self) -> Self:
        if all(part.kind != "client" for part in self.merged_from):
            raise ValueError("merged_from must hold a client")
        return self


class WatchResult(Result):
    """A run of ``watch``."""

    kind: Literal["watch"] = "watch"
    """Kind of result."""
    cut_off: bool = False
    """Whether it was made of the periods of a stream that has no end."""
    counters_from: str
    """Netlink, or the file that was read instead."""
    periods: list[CounterDelta]
    """What was counted, period by period, at most 1,024: of a longer watch neighbours are added up."""
    total: CounterDelta | None
    """What was counted in all; null: nothing was read."""
    nat: Nat
    """What the rules there say of the NAT."""
    exhausted: Count
    """How many of the clashes may be of a NAT without free ports."""
    candidate_causes: list[CandidateCause]
    """What the counters could account for, each with the most SYNs that it may have cost."""
    warnings: list[MeasurementWarning] = []
    """What makes it doubtful and only the run itself could see."""
