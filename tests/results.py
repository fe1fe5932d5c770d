"""Small results that are right in themselves, for what only reads results."""

from typing import Any

import numpy as np

from snat_race.analysis.comparison import Compared, comparable_client, compared
from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.fleet import fleet
from snat_race.analysis.forecast import Traffic, forecast
from snat_race.analysis.intervals import wilson
from snat_race.analysis.summary import Circumstances, Total
from snat_race.report.builders.forecast import Prediction
from snat_race.report.wording.verdicts import verdict
from snat_race.results import sample
from snat_race.results.conclusions import Mitigation, Outcome, Verdict, VerdictReason
from snat_race.results.counters import CONNTRACK_COUNTERS, ConntrackDelta, CounterDelta, KernelCounters
from snat_race.results.findings import (
    ChainAddress,
    Check,
    DoctorResult,
    ExaminedRule,
    Finding,
    Level,
    RuleOwner,
    Unreadable,
    UnreadableReason,
)
from snat_race.results.fleet import FleetResult
from snat_race.results.model import Tool
from snat_race.results.nat import Nat
from snat_race.results.schema import (
    ClientResult,
    LabResult,
    Summary,
    UnavailableVariant,
    VariantResult,
    WatchResult,
    Window,
    WindowPoint,
)
from snat_race.results.trace import (
    GapBin,
    Loss,
    RacingPair,
    TracedDestination,
    TraceResult,
    Victim,
)

HOST = {"boot_id": "b", "kernel": "6.18.0", "machine": "x86_64", "cpus": 2, "usable_cpus": [0, 1]}
BEGAN = "2026-11-23T10:00:00.000Z"


class Counted:
    """What the workers' own counters would say."""

    def __init__(self, recorded: int) -> None:
        self.recorded, self.late, self.overruns, self.cut_short = recorded, 0, 0, 0


def dials(attempted: int, failed: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Samples of so many dials, of which the first few time out."""
    rng = np.random.default_rng(seed)
    latencies_ns = rng.lognormal(11, 0.5, attempted).astype(np.uint64)
    latencies_ns[:failed] = 500_000_000
    samples = np.zeros(attempted, sample.FIELDS)
    errors = np.where(np.arange(attempted) < failed, sample.TIMED_OUT, 0).astype(np.uint64)
    ports = np.uint64(20000) + np.arange(attempted, dtype=np.uint64) % np.uint64(1000)
    words = zip(errors.tolist(), ports.tolist(), latencies_ns.tolist(), strict=True)
    samples["packed"] = [sample.pack(*word) for word in words]
    return samples


def summary_of(attempted: int, failed: int, seed: int = 0) -> Summary:
    total = Total(0)
    total.add(dials(attempted, failed, seed))
    return total.summary(Counted(attempted), Circumstances(elapsed_s=10.0, began_at=BEGAN))


def lost(
    attempted: int, errors: dict[str, int], syn_retransmits: dict[str, int] | None = None, **fields: Any
) -> Summary:
    """What became of so many dials, of which those of ``errors`` failed."""
    failed = sum(errors.values())
    rates = {"elapsed_s": 1, "rate_per_s": 1, "loss_rate": 0, "loss_rate_ci95": (0, 1)}
    return Summary(
        attempted=attempted,
        connected=attempted - failed,
        failed=failed,
        late=0,
        overruns=0,
        cut_short=0,
        errors=errors,
        syn_retransmits=syn_retransmits or {},
        **(rates | fields),
    )


def rise(insert_failed: int, **others: int) -> ConntrackDelta:
    counted = {"insert_failed": insert_failed, "drop": insert_failed} | others
    per_cpu = {name: [counted.get(name, 0), 0] for name in CONNTRACK_COUNTERS}
    return ConntrackDelta(**per_cpu, count=10, max=1000)


def small_client(
    name: str,
    failed: int = 0,
    attempted: int = 10_000,
    environment: dict[str, Any] | None = None,
    watched: ConntrackDelta | None = None,
) -> ClientResult:
    summary = summary_of(attempted, failed, seed=len(name))
    kernel = KernelCounters(source=watched, destination={}, containers={})
    return ClientResult(
        run_id=name,
        tool=Tool(version="0"),
        started_at=BEGAN,
        elapsed_s=10.0,
        environment=HOST | (environment or {}),
        spec={"mode": "rendezvous", "remote_addr": "10.0.0.1:80", "workers": 2, "dial_interval_us": 1000},
        summary=summary,
        periods=[summary.model_copy(update={"histogram": None, "histogram_all": None})],
        kernel=kernel,
        diagnosis=diagnose(summary, kernel),
    )


def small_trace(lost: int = 3, vanished: int = 2) -> TraceResult:
    losses = [
        Loss(
            at=f"2026-11-23T10:00:0{number}.000001+00:00",
            source="172.17.0.3:40012",
            destination="10.18.10.137:8080",
            devices=["veth1", "docker0"],
            winner="172.17.0.2:40012",
            translated="10.18.10.136:40012",
            apart_ns=600,
        )
        for number in range(lost)
    ]
    return TraceResult(
        run_id="t",
        tool=Tool(version="0"),
        started_at=BEGAN,
        elapsed_s=10.0,
        environment=HOST,
        spec={"netns": None, "to": None},
        netns="this namespace",
        syns=1000,
        sent=5,
        lost=lost,
        vanished=vanished,
        unknown=0,
        sightings=3000,
        dropped=0,
        victims=[Victim(address="172.17.0.3", syns=500, lost=lost, vanished=vanished)],
        destinations=[TracedDestination(destination="10.18.10.137:8080", lost=lost, vanished=vanished)],
        pairs=[RacingPair(victim="172.17.0.3", winner="172.17.0.2", lost=lost)] if lost else [],
        waited={"1": lost},
        apart=[GapBin(below_ns=1024, count=lost)] if lost else [],
        losses=losses,
        counted=small_watch("w", insert_failed=lost).total,
    )


def small_watch(name: str, insert_failed: int = 0, began_at: str = BEGAN) -> WatchResult:
    lap = CounterDelta(
        netns="this namespace",
        inode=7,
        began_at=began_at,
        elapsed_s=10.0,
        conntrack=rise(insert_failed),
        tcp={},
    )
    return WatchResult(
        run_id=name,
        tool=Tool(version="0"),
        started_at=began_at,
        elapsed_s=10.0,
        environment=HOST,
        spec={"interval_s": 1.0},
        counters_from="netlink",
        periods=[lap],
        total=lap,
        nat=Nat(),
        exhausted=0,
        candidate_causes=[],
    )


def verdict_of(lab: dict[str, Any]) -> str:
    """The sentence of the verdict in a lab's JSON."""
    return verdict(VariantResult.model_validate(lab["variants"][0]))


def small_lab() -> LabResult:
    """Two rules, of which the first races; with a window, a rule that cannot be measured, and warnings."""
    racing = _variant("masquerade", failed=72, collisions=70)
    cured = _variant("masquerade fully-random", failed=0, collisions=0)
    return LabResult(
        run_id="a9d18486",
        tool=Tool(version="0"),
        started_at=BEGAN,
        elapsed_s=3.3,
        environment=HOST,
        spec={
            "scenario": "tcp-snat",
            "containers": 2,
            "workers": 2,
            "interval_us": 1000,
            "timeout_ms": 4,
            "duration_s": 2.0,
            "topology": "bridge",
            "backend": "netlink",
            "cpus": [],
            "window_s": 5.0,
            "seed": 3158355681,
        },
        interrupted=True,
        variants=[racing, cured],
        unavailable=[UnavailableVariant(name="iptables -t nat ...", reason="there is no iptables")],
        verdict=Verdict(
            outcome=Outcome.reproduced,
            reason=VerdictReason.lost_to_race,
            mitigations=[Mitigation(name=cured.name, loss_reduction=1.0, ci95=(0.967, 1.0))],
        ),
        window=Window(
            variant=racing.name,
            caches="warm",
            sweep_ns=10_000,
            paired=400,
            collisions=40,
            unexplained=9,
            window_ns=2000.0,
            window_ns_ci95=(1500.0, 2600.0),
            dispersion=1.0,
            tail_rate=0.3,
            curve=[
                WindowPoint(low_ns=low, high_ns=low + 500, paired=10, collisions=int(abs(low) < 2000))
                for low in range(-10_000, 10_000, 500)
            ],
        ),
    )


def _variant(name: str, failed: int, collisions: int) -> VariantResult:
    summary = summary_of(1557, failed).model_copy(update={"paired": 556, "collisions": collisions})
    kernel = KernelCounters(source=rise(failed, found=487), destination={}, containers={})
    delta = CounterDelta(netns="source", began_at=BEGAN, elapsed_s=10, conntrack=kernel.source, tcp={})
    return VariantResult(
        name=name,
        rule=name,
        accepted=summary.connected,
        summary=summary,
        kernel=kernel,
        diagnosis=diagnose(summary, kernel),
        outcome=Outcome.reproduced if failed else Outcome.not_seen,
        reason=VerdictReason.lost_to_race if failed else VerdictReason.none_lost,
        periods=[summary.model_copy(update={"counters": [delta]})],
        collision_rate_ci95=wilson(collisions, 556),
    )


def small_doctor() -> DoctorResult:
    """A finding of each level."""
    levels = {
        Check.cpus: (Level.warning, {"usable": 1, "workers": 2}),
        Check.client_ports: (Level.ok, {"low": 32768, "high": 60999}),
        Check.rules: (Level.ok, {}),
    }
    return DoctorResult(
        run_id="d",
        tool=Tool(version="0"),
        started_at=BEGAN,
        elapsed_s=0.1,
        environment=HOST,
        spec={"netns": "", "workers": 2},
        sysctls={},
        findings=[
            Finding(check=check, level=level, values=values) for check, (level, values) in levels.items()
        ],
    )


def small_fleet() -> FleetResult:
    """A host with a rule that races, one that was not read, one that left no result, and a good one."""
    address = ChainAddress(tool="nft", family="ip", table="nat", chain="POSTROUTING")
    rule = ExaminedRule(address=address, text="masquerade", owner=RuleOwner.docker, client_ports=(1, 65535))
    racing = Finding(level=Level.exposed, check=Check.snat_rule, rule=rule)
    unread = (Unreadable(reason=UnreadableReason.no_tool),)
    blind = Finding(level=Level.unknown, check=Check.rules, unreadable=unread)
    hosts = {"racing": [racing], "blind": [blind], "calm": []}
    readings = [
        (name, small_doctor().model_copy(update={"host": name, "run_id": name, "findings": findings}))
        for name, findings in hosts.items()
    ]
    return fleet(readings, silent=["far"])


def small_comparison() -> Compared:
    """A client with fewer losses than the baseline, in a run not long enough."""
    base = comparable_client("results/base.json", small_client("base", failed=200))
    other = comparable_client("results/fixed.json", small_client("fixed", failed=0, attempted=5000))
    return compared(base, [other])


def small_prediction() -> Prediction:
    """What 40 containers lose."""
    traffic = Traffic(containers=40, rate_per_s=1000.0)
    spec = {
        "window_ns": 1300.0,
        "window_ns_ci95": (1000.0, 1600.0),
        "containers": 40,
        "rate_per_container": 1000.0,
        "destinations": 1,
        "ports": 28232,
        "cpus": 4,
    }
    return Prediction(spec=spec, forecast=forecast(1300.0, (1000.0, 1600.0), traffic))
