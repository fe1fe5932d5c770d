"""Results as rows for a spreadsheet: one for each period, or finding, or comparison."""

from collections.abc import Iterator, Sequence
from typing import Any

from snat_race.analysis.comparison import Compared
from snat_race.report.builders.fleet import rows
from snat_race.report.builders.forecast import Prediction
from snat_race.report.wording.findings import worded
from snat_race.report.wording.program import Program
from snat_race.results.counters import CONNTRACK_COUNTERS, CounterDelta
from snat_race.results.findings import DoctorResult
from snat_race.results.fleet import FleetResult
from snat_race.results.schema import ClientResult, LabResult, MergedResult, Summary, WatchResult
from snat_race.results.trace import TraceResult

Row = dict[str, Any]

_COUNTS = (
    "attempted",
    "connected",
    "failed",
    "late_by_retransmit",
    "late",
    "overruns",
    "paired",
    "collisions",
)
_PERCENTILES = ("p50", "p95", "p99", "p999", "max")


def of_lab(result: LabResult) -> Iterator[Row]:
    """Yield each round of each rule."""
    for variant in result.variants:
        for period in variant.periods:
            yield {"rule": variant.name, **_period(period)}


def of_client(result: ClientResult | MergedResult) -> Iterator[Row]:
    """Yield each period; of a run without any, the whole."""
    yield from map(_period, result.periods or [result.summary])


def of_watch(result: WatchResult) -> Iterator[Row]:
    """Yield each period; of a watch that kept none, the whole."""
    for delta in result.periods or ([result.total] if result.total else []):
        yield {"began_at": delta.began_at, "elapsed_s": delta.elapsed_s, **_counted([delta])}


def of_trace(result: TraceResult) -> Iterator[Row]:
    """Yield each loss that was kept."""
    for loss in result.losses:
        yield loss.model_dump(mode="json") | {"devices": " ".join(loss.devices)}


def of_doctor(result: DoctorResult) -> Iterator[Row]:
    """Yield each finding."""
    for finding in result.findings:
        words = worded(result, finding, Program())
        yield {
            "level": finding.level.value,
            "check": words.title,
            "evidence": words.evidence,
            "advice": words.advice,
        }


def of_fleet(result: FleetResult) -> Iterator[Row]:
    """Yield each host, with each program that wrote exposed rules there."""
    for row in rows(result):
        yield {
            "level": row.level.value,
            "host": row.host,
            "kernel": row.kernel,
            "exposed_rules": row.exposed,
            "owner": row.owner,
            "what_helps": row.helps,
        }


def of_forecast(prediction: Prediction) -> Iterator[Row]:
    """Yield the one row that there is."""
    forecast = prediction.forecast
    yield prediction.spec | {"kept_ports": forecast.kept_ports, "drawn_ports": forecast.drawn_ports}


def of_comparison(result: Compared) -> Iterator[Row]:
    """Yield each comparison with the baseline."""
    for comparison in result.comparisons:
        yield {
            "base": comparison.base.name,
            "other": comparison.other.name,
            "outcome": comparison.outcome,
            "unit": comparison.other.unit,
            "base_lost": comparison.base.lost,
            "base_late_by_retransmit": comparison.base.late_by_retransmit,
            "base_dialled": comparison.base.dialled,
            "base_loss_rate": comparison.base.loss_rate,
            "other_lost": comparison.other.lost,
            "other_late_by_retransmit": comparison.other.late_by_retransmit,
            "other_dialled": comparison.other.dialled,
            "other_loss_rate": comparison.other.loss_rate,
            "difference": comparison.difference,
            "difference_low": comparison.difference_ci95[0],
            "difference_high": comparison.difference_ci95[1],
        }


def _period(period: Summary) -> Row:
    row: Row = {"began_at": period.began_at, "elapsed_s": period.elapsed_s}
    row |= {name: getattr(period, name) for name in _COUNTS}
    if period.latency_all_ns:
        row |= {f"{name}_ns": getattr(period.latency_all_ns, name) for name in _PERCENTILES}
    return row | _counted(period.counters)


def _counted(deltas: Sequence[CounterDelta]) -> Row:
    conntracks = [delta.conntrack for delta in deltas if delta.conntrack]
    row: Row = {}
    for name in CONNTRACK_COUNTERS if conntracks else ():
        row[name] = sum(sum(getattr(conntrack, name)) for conntrack in conntracks)
    for conntrack in conntracks[:1]:
        row |= {f"insert_failed_cpu{cpu}": count for cpu, count in enumerate(conntrack.insert_failed)}
    for delta in deltas:
        row |= delta.tcp
    return row
