"""What the rounds of one variant add up to, and its part of the result."""

from dataclasses import dataclass, field

from snat_race.analysis.diagnosis import Nat, diagnose
from snat_race.analysis.intervals import wilson
from snat_race.analysis.result import ConntrackRise, Heat, Kernel, VariantResult, Window
from snat_race.analysis.summary import Pairs, Total
from snat_race.analysis.verdict import discounted, outcome
from snat_race.analysis.window import Sweep
from snat_race.kernel import counters, rules
from snat_race.kernel.nat import Variant
from snat_race.lab.rig import Rig
from snat_race.load.fleet import NO_DIALS, Tally


@dataclass(slots=True)
class Measured:
    """What the rounds of one variant have added up to; with a ``sweep``, also at which offsets."""

    variant: Variant
    total: Total
    sweep: Sweep | None = None
    sweep_ns: int = 0
    tally: Tally = NO_DIALS
    rounds: list[Pairs] = field(default_factory=list)
    accepted: int = 0
    elapsed_s: float = 0.0
    rises: dict[str, counters.Reading] = field(default_factory=dict)
    fill: tuple[int, int] = (0, 0)
    translated: bool | None = None

    def result(self, rig: Rig, spread: float, cpus: int) -> VariantResult:
        """Derive the variant's part of the result; ``spread`` widens its interval."""
        scenario = rig.scenario
        pairs = Pairs(*map(sum, zip(*self.rounds, strict=True))) if scenario.meets else None
        summary = self.total.summary(self.tally, self.elapsed_s, pairs)
        kernel = Kernel(
            source=ConntrackRise(**self.rises["source"], count=self.fill[0], max=self.fill[1]),
            destination=_risen(self.rises["destination"]),
            containers=_risen(self.rises["containers"]),
        )
        drawn = self.variant.drawn_ports(rig.source_ports)
        # At the most: as if all dialers dialled at once, and met.
        same_draws = summary.attempted * (len(rig.berths) - 1) / 2 / drawn if drawn else 0.0
        diagnosis = diagnose(
            summary.attempted,
            summary.errors,
            kernel,
            nat=Nat(self.variant.port_count, same_draws),
            answered_late=self.accepted - summary.connected if scenario.protocol == "udp" else 0,
        )
        return VariantResult(
            name=self.variant.name,
            rule=rules.describe(self.variant, rig.topology.network),
            drawn_ports=drawn,
            translated=self.translated,
            accepted=self.accepted,
            summary=summary,
            kernel=kernel,
            diagnosis=diagnosis,
            outcome=outcome(summary, diagnosis, same_draws, cpus, translated=self.translated is not False),
            rounds=[(met.paired, met.collisions) for met in self.rounds],
            collision_rate_ci95=wilson(*discounted(pairs.collisions, pairs.paired, spread))
            if pairs
            else None,
        )

    def window(self, caches: Heat) -> Window | None:
        """Derive the race window from a sweep."""
        if not self.sweep or not self.rises:
            return None
        unexplained = self.total.failed - sum(self.rises["source"]["insert_failed"])
        return self.sweep.window(self.variant.name, caches, max(0, unexplained))


def _risen(reading: counters.Reading) -> dict[str, int]:
    return {name: values[0] for name, values in reading.items() if values[0] > 0}
