"""What one round came to, and what the rounds of a variant, or of a sweep, add up to."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from snat_race.analysis.candidate_causes import exhausted_over
from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.loss_rates import collision_interval
from snat_race.analysis.race_window import Sweep
from snat_race.analysis.summary import Circumstances, PairedSlots, Pairs, Samples, Total
from snat_race.analysis.verdict import outcome_of, pairs_of, verdict_reason
from snat_race.kernel import host
from snat_race.lab import variant_rules
from snat_race.lab.testbed import Testbed
from snat_race.lab.variants import Variant
from snat_race.load.dialer_pool import NO_DIALS, DialCounts
from snat_race.results import kernels, sample
from snat_race.results.counters import CounterDelta, KernelCounters, conntrack_of, summed
from snat_race.results.nat import Nat
from snat_race.results.schema import CacheState, Summary, VariantResult, Window


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round came to."""

    # Its beginning, UTC as results have it, and its length in seconds.
    began_at: str
    elapsed_s: float
    # What was drained from the workers, in no order.
    samples: list[Samples]
    # The workers' own counters.
    counts: DialCounts
    # Connections accepted, or requests answered, at the destination.
    accepted: int
    # What the kernel counted, one delta a host.
    counters: list[CounterDelta]
    # The slots in which dials met; None where they do not meet.
    meetings: PairedSlots | None
    # How far apart the two dials of each meeting were sent, in ns; None in a round without a sweep.
    offsets_ns: NDArray[np.int64] | None = None
    # Whether the rule translated any connection; None: nobody looked.
    translated: bool | None = None
    # Losses that packets prove; None: nobody traced.
    proven: int | None = None

    @cached_property
    def summary(self) -> Summary:
        """What became of its dials."""
        circumstances = Circumstances(
            elapsed_s=self.elapsed_s,
            began_at=self.began_at,
            pairs=self.meetings.pairs if self.meetings else None,
            counters=self.counters,
        )
        dials = Total(interval_ns=0)
        for samples in self.samples:
            dials.add(samples)
        return dials.period(self.counts, circumstances)


class VariantMeasurement:
    """What the rounds of one variant add up to.

    Args:
        variant: the rule that is measured.
        interval_ns: from one dial of a dialer to its next.

    Attributes:
        name: what progress reports call it.
        sweep_ns: 0, because its rounds do not sweep.
        periods: the summaries of its rounds, in their order.

    """

    sweep_ns = 0

    def __init__(self, variant: Variant, interval_ns: int) -> None:
        self.variant = variant
        self.name = variant.name
        self.periods: list[Summary] = []
        self._total = Total(interval_ns)
        self._counts = NO_DIALS
        self._accepted = 0
        self._translated: bool | None = None
        self._proven: int | None = None

    @property
    def needs_translation_check(self) -> bool:
        """Whether somebody should look if the rule translates anything: a user's may match nothing."""
        return bool(self.variant.command) and not self._translated

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """Paired slots and collisions, round by round."""
        return pairs_of(self.periods)

    def add(self, measured: Round) -> None:
        """Add a round."""
        for samples in measured.samples:
            self._total.add(samples)
        self._counts = self._counts.plus(measured.counts)
        self._accepted += measured.accepted
        if measured.translated is not None:
            self._translated = measured.translated
        if measured.proven is not None:
            self._proven = (self._proven or 0) + measured.proven
        self.periods.append(measured.summary)

    def result(self, testbed: Testbed, *, spread: float, cpus: int) -> VariantResult:
        """Derive the variant's part of the result.

        Args:
            testbed: where it was measured.
            spread: the dispersion between rounds, which widens the interval of the collision rate.
            cpus: how many CPUs the dialers had.

        """
        pairs = self._pairs() if testbed.scenario.rendezvous else None
        elapsed_s = sum(summary.elapsed_s for summary in self.periods)
        summary = self._total.summary(self._counts, Circumstances(elapsed_s=elapsed_s, pairs=pairs))
        drawn_ports = self.variant.drawn_ports(testbed.source_ports)
        nat = self._nat(testbed, summary.attempted, drawn_ports)
        kernel = self._kernel(nat)
        is_udp = testbed.scenario.protocol == "udp"
        answered_late = max(0, self._accepted - summary.connected) if is_udp else 0
        diagnosis = diagnose(summary, kernel, nat=nat, answered_late=answered_late)
        reason = verdict_reason(
            summary, diagnosis, nat.same_draws, cpus, translated=self._translated is not False
        )
        interval = None
        if pairs:
            interval = collision_interval(pairs.collisions, pairs.paired, spread)
        return VariantResult(
            name=self.variant.name,
            rule=variant_rules.describe(self.variant, testbed.topology.network),
            drawn_ports=drawn_ports,
            translated=self._translated,
            accepted=self._accepted,
            proven=self._proven,
            summary=summary,
            kernel=kernel,
            diagnosis=diagnosis,
            outcome=outcome_of(reason),
            reason=reason,
            periods=self.periods,
            collision_rate_ci95=interval,
        )

    def _pairs(self) -> Pairs:
        return Pairs(
            paired=sum(paired for paired, _ in self.rounds),
            collisions=sum(collisions for _, collisions in self.rounds),
        )

    def _nat(self, testbed: Testbed, attempted: int, drawn_ports: int | None) -> Nat:
        """Return what is known of the NAT under this variant."""
        same_draws = 0.0
        if drawn_ports:
            # At the most: as if all dialers dialled at once, and met.
            same_draws = attempted * (len(testbed.placements) - 1) / 2 / drawn_ports
        version = host.kernel_version()
        return Nat(
            ports=self.variant.port_count,
            same_draws=same_draws,
            evicts=testbed.scenario.protocol == "tcp" and kernels.evicts(version),
            clashes_raise_drop=kernels.clashes_raise_drop(version),
        )

    def _kernel(self, nat: Nat) -> KernelCounters:
        deltas = _deltas(self.periods)
        tcp = {
            name: summed(delta.tcp for delta in deltas if delta.netns == name)
            for name in ("source", "destination", "containers")
        }
        return KernelCounters(
            source=conntrack_of(deltas),
            exhausted=exhausted_over(deltas, nat),
            source_tcp=tcp["source"],
            destination=tcp["destination"],
            containers=tcp["containers"],
        )


class SweepMeasurement:
    """What the rounds of a sweep add up to: one dialer of each lane moves, and the offsets tell the window.

    Args:
        variant: the rule that is swept.
        sweep_ns: how far to either side a dialer moves.

    Attributes:
        name: what progress reports call it.

    """

    needs_translation_check = False

    def __init__(self, variant: Variant, sweep_ns: int) -> None:
        self.variant = variant
        self.name = f"{variant.name}, swept"
        self.sweep_ns = sweep_ns
        self._sweep = Sweep(sweep_ns)
        self._periods: list[Summary] = []

    def add(self, measured: Round) -> None:
        """Add a round, which has swept."""
        if measured.meetings is not None and measured.offsets_ns is not None:
            self._sweep.add(measured.offsets_ns, measured.meetings.losers > 0)
        self._periods.append(measured.summary)

    def window(self, caches: CacheState) -> Window | None:
        """Derive the race window; None if no dials met."""
        conntrack = conntrack_of(_deltas(self._periods))
        clashes = sum(conntrack.insert_failed) if conntrack else 0
        failed = sum(summary.failed for summary in self._periods)
        return self._sweep.window(self.variant.name, caches, max(0, failed - clashes))


def connected_in(samples: list[Samples]) -> int:
    """Return how many of these dials connected."""
    return sum(int((sample.errors(part["packed"]) == 0).sum()) for part in samples)


def _deltas(periods: list[Summary]) -> list[CounterDelta]:
    return [delta for summary in periods for delta in summary.counters]
