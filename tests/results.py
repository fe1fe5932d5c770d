"""Small results that are right in themselves, for what only reads results."""

from typing import Any

import numpy as np

from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.summary import Circumstances, Total
from snat_race.report.wording.verdicts import verdict
from snat_race.results import sample
from snat_race.results.counters import CONNTRACK_COUNTERS, ConntrackDelta, CounterDelta, KernelCounters
from snat_race.results.model import Tool
from snat_race.results.nat import Nat
from snat_race.results.schema import ClientResult, Summary, VariantResult, WatchResult

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
