"""What the rounds of one variant add up to, and its part of the result."""

from dataclasses import dataclass, field

from snat_race.analysis.candidate_causes import exhausted_over
from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.intervals import wilson
from snat_race.analysis.race_window import Sweep
from snat_race.analysis.summary import Circumstances, Pairs, Total
from snat_race.analysis.verdict import discounted, outcome_of, pairs_of, verdict_reason
from snat_race.kernel import host
from snat_race.lab import variant_rules
from snat_race.lab.testbed import Testbed
from snat_race.lab.variants import Variant
from snat_race.load.dialer_pool import NO_DIALS, DialCounts
from snat_race.results.counters import CounterDelta, KernelCounters, conntrack_of, summed
from snat_race.results.nat import Nat
from snat_race.results.schema import CacheState, Summary, VariantResult, Window


@dataclass(slots=True)
class VariantMeasurement:
    """What the rounds of one variant have added up to; with a ``sweep``, also at which offsets."""

    variant: Variant
    total: Total
    sweep: Sweep | None = None
    sweep_ns: int = 0
    tally: DialCounts = NO_DIALS
    accepted: int = 0
    periods: list[Summary] = field(default_factory=list)
    translated: bool | None = None

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """Paired slots and collisions, round by round."""
        return pairs_of(self.periods)

    def result(self, testbed: Testbed, spread: float, cpus: int) -> VariantResult:
        """Derive the variant's part of the result; ``spread`` widens its interval."""
        scenario = testbed.scenario
        pairs = Pairs(*map(sum, zip(*self.rounds, strict=True))) if scenario.rendezvous else None
        elapsed_s = sum(each.elapsed_s for each in self.periods)
        summary = self.total.summary(self.tally, Circumstances(elapsed_s=elapsed_s, pairs=pairs))
        drawn = self.variant.drawn_ports(testbed.source_ports)
        # At the most: as if all dialers dialled at once, and met.
        same_draws = summary.attempted * (len(testbed.placements) - 1) / 2 / drawn if drawn else 0.0
        evicts = scenario.protocol == "tcp" and host.kernel_version() >= (6, 5)
        nat = Nat(ports=self.variant.port_count, same_draws=same_draws, evicts=evicts)
        kernel = self._kernel(exhausted_over(self._deltas(), nat))
        diagnosis = diagnose(
            summary,
            kernel,
            nat=nat,
            answered_late=self.accepted - summary.connected if scenario.protocol == "udp" else 0,
        )
        reason = verdict_reason(
            summary, diagnosis, same_draws, cpus, translated=self.translated is not False
        )
        return VariantResult(
            name=self.variant.name,
            rule=variant_rules.describe(self.variant, testbed.topology.network),
            drawn_ports=drawn,
            translated=self.translated,
            accepted=self.accepted,
            summary=summary,
            kernel=kernel,
            diagnosis=diagnosis,
            outcome=outcome_of(reason),
            reason=reason,
            periods=self.periods,
            collision_rate_ci95=wilson(*discounted(pairs.collisions, pairs.paired, spread))
            if pairs
            else None,
        )

    def window(self, caches: CacheState) -> Window | None:
        """Derive the race window from a sweep."""
        conntrack = self._kernel().source
        if not self.sweep or not conntrack:
            return None
        unexplained = self.total.failed - sum(conntrack.insert_failed)
        return self.sweep.window(self.variant.name, caches, max(0, unexplained))

    def _deltas(self) -> list[CounterDelta]:
        return [delta for period in self.periods for delta in period.counters]

    def _kernel(self, exhausted: int | None = None) -> KernelCounters:
        deltas = self._deltas()
        tcp = {
            host: summed(delta.tcp for delta in deltas if delta.netns == host)
            for host in ("source", "destination", "containers")
        }
        return KernelCounters(
            source=conntrack_of(deltas),
            exhausted=exhausted,
            source_tcp=tcp["source"],
            destination=tcp["destination"],
            containers=tcp["containers"],
        )
