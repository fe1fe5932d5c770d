"""Results as CSV, a row for each period, and as ``.hgrm``."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from snat_race.analysis.histogram import Histogram
from snat_race.report.renderers.hgrm import distribution
from snat_race.report.wording.findings import worded
from snat_race.report.wording.program import Program
from snat_race.results.counters import CONNTRACK_COUNTERS, CounterDelta
from snat_race.results.findings import DoctorResult
from snat_race.results.model import Result
from snat_race.results.schema import ClientResult, LabResult, MergedResult, Summary, WatchResult

_COUNTS = ("attempted", "connected", "failed", "late", "overruns", "paired", "collisions")
_PERCENTILES = ("p50", "p95", "p99", "p999", "max")
_US = 1000.0


def as_csv(result: Result) -> str:
    """Return a row for each period, or finding; of the lab, for each round of each rule."""
    rows = list(_rows(result))
    columns = dict.fromkeys(name for row in rows for name in row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def _rows(result: Result) -> Iterator[dict[str, Any]]:
    if isinstance(result, LabResult):
        for variant in result.variants:
            for each in variant.periods:
                yield {"rule": variant.name, **_period(each)}
    elif isinstance(result, ClientResult | MergedResult):
        for each in result.periods or [result.summary]:
            yield _period(each)
    elif isinstance(result, WatchResult):
        for lap in result.periods or ([result.total] if result.total else []):
            yield {"began_at": lap.began_at, "elapsed_s": lap.elapsed_s, **_counted([lap])}
    elif isinstance(result, DoctorResult):
        for finding in result.findings:
            words = worded(result, finding, Program())
            yield {
                "level": finding.level,
                "check": words.title,
                "evidence": words.evidence,
                "advice": words.advice,
            }


def _period(period: Summary) -> dict[str, Any]:
    row: dict[str, Any] = {"began_at": period.began_at, "elapsed_s": period.elapsed_s}
    row |= {name: getattr(period, name) for name in _COUNTS}
    if period.latency_all_ns:
        row |= {f"{name}_ns": getattr(period.latency_all_ns, name) for name in _PERCENTILES}
    return row | _counted(period.counters)


def _counted(watched: list[CounterDelta]) -> dict[str, Any]:
    conntrack = [each.conntrack for each in watched if each.conntrack]
    row: dict[str, Any] = {}
    for name in CONNTRACK_COUNTERS if conntrack else ():
        row[name] = sum(sum(getattr(each, name)) for each in conntrack)
    for each in conntrack[:1]:
        row |= {f"insert_failed_cpu{cpu}": count for cpu, count in enumerate(each.insert_failed)}
    return row | {name: rise for each in watched for name, rise in each.tcp.items()}


def as_hgrm(result: Result) -> str | None:
    """Return the distribution of all latencies, in us, as HdrHistogram's plotters take it; of the lab,
    that of its first rule; None if there is none.
    """
    summary = result.variants[0].summary if isinstance(result, LabResult) else None
    if isinstance(result, ClientResult | MergedResult):
        summary = result.summary
    if summary is None or not summary.histogram_all:
        return None
    return distribution(Histogram.of([summary.histogram_all]), _US)
