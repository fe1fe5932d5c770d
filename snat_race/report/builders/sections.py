"""The parts that reports of several kinds share."""

from collections.abc import Iterable, Sequence
from math import log10
from typing import Any

from snat_race.analysis.histogram import Histogram
from snat_race.report.document import Section, Table
from snat_race.report.wording.causes import advice, evidence
from snat_race.report.wording.formats import duration, percent
from snat_race.report.wording.warnings import sentences
from snat_race.results.conclusions import CandidateCause, Cause, MeasurementWarning
from snat_race.results.schema import Latency, Summary

_PERCENTILES = ("p50", "p90", "p95", "p99", "p999", "p9999", "max")
_NAMES = {"p999": "p99.9", "p9999": "p99.99"}
_BARS, _BAR_WIDTH, _STEPS = 24, 50, 4
_MOST_PERIODS = 60


def totals(summary: Summary) -> Section:
    """Return what became of the dials."""
    low, high = map(percent, summary.loss_rate_ci95)
    rows = (
        ("attempted", f"{summary.rate_per_s:,.0f} a second", summary.attempted),
        ("connected", "", summary.connected),
        ("failed", f"{percent(summary.loss_rate)}, 95 % interval {low} to {high}", summary.failed),
        ("late slots", "not dialled: a dial was in flight, or being prepared", summary.late),
        ("overruns", "samples dropped because the ring was full", summary.overruns),
        ("cut short", "in flight at the stop; not counted above", summary.cut_short),
    )
    table = Table(("dials", "", "number"), tuple((*row[:2], f"{row[2]:,}") for row in rows), words=2)
    return Section("Dials", table=table, sentences=_errors(summary.errors))


def _errors(errors: dict[str, int]) -> tuple[str, ...]:
    named = ", ".join(f"{name} {count:,}" for name, count in errors.items())
    return (f"Errors: {named}.",) if named else ()


def latency(named: Iterable[tuple[str, Latency | None]]) -> Section:
    """Return the percentiles of several latencies."""
    columns = ("connect latency", *(_NAMES.get(name, name) for name in _PERCENTILES))
    rows = tuple((name, *_percentiles(each)) for name, each in named if each)
    return Section("Latency", table=Table(columns, rows) if rows else None, figure="latency")


def _percentiles(each: Latency) -> Iterable[str]:
    values = (getattr(each, name) for name in _PERCENTILES)
    return ("-" if value is None else duration(value) for value in values)


def histogram(encoded: str | None) -> Section | None:
    """Return how latencies are spread, in steps of a quarter of a decade."""
    if not encoded:
        return None
    counts: dict[int, int] = {}
    for value_ns, count in Histogram.of([encoded]).buckets():
        step = int(log10(max(1, value_ns)) * _STEPS)
        counts[step] = counts.get(step, 0) + count
    if not counts:
        return None
    steps = range(max(min(counts), max(counts) - _BARS + 1), max(counts) + 1)
    most = max(counts.values())
    lines = tuple(
        f"{duration(10 ** (step / _STEPS)):>6} to {duration(10 ** ((step + 1) / _STEPS)):>6} "
        f"{counts.get(step, 0):>12,} {bar(counts.get(step, 0) / most, _BAR_WIDTH)}".rstrip()
        for step in steps
    )
    return Section("Histogram of all dials", lines=lines)


def bar(share: float, width: int) -> str:
    """Return a bar, to an eighth of a character; what is more than nothing shows."""
    eighths = max(round(share * width * 8), 1 if share else 0)
    return str("█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8])


def timeline(periods: Sequence[Summary]) -> Section | None:
    """Return errors and insert_failed side by side in time."""
    if not periods:
        return None
    shown = periods[-_MOST_PERIODS:]
    rows = tuple(_period(each) for each in shown)
    earlier = len(periods) - len(shown)
    sentences = (f"{earlier:,} earlier periods are in the file only.",) if earlier else ()
    columns = ("began (UTC)", "dials", "failed", "insert_failed", "drop", "CPUs", "entries")
    return Section(
        "Losses and insert_failed in time", sentences=sentences, table=Table(columns, rows), figure="time"
    )


def _period(period: Summary) -> tuple[str, ...]:
    began = (period.began_at or "").removesuffix("Z").partition("T")[2] or "-"
    head = (began, f"{period.attempted:,}", f"{period.failed:,}")
    counted = [each.conntrack for each in period.counters if each.conntrack]
    if not counted:
        return (*head, "-", "-", "-", "-")
    failed = [sum(column) for column in zip(*(each.insert_failed for each in counted), strict=False)]
    return (
        *head,
        f"{sum(failed):,}",
        f"{sum(sum(each.drop) for each in counted):,}",
        on_cpus(failed),
        f"{max(each.count for each in counted):,}",
    )


def on_cpus(per_cpu: Sequence[int]) -> str:
    """Return which CPUs counted how many; a dozen at most."""
    found = [f"{cpu}: {count:,}" for cpu, count in enumerate(per_cpu) if count]
    return ", ".join(found[:12]) + (" ..." if len(found) > 12 else "") or "-"


def causes(named: Iterable[tuple[str, Cause | CandidateCause, int]]) -> Section | None:
    """Return what explains the losses, their number, and each advice once. A name tells whose they are."""
    every = list(named)
    if not every:
        return None
    whose = any(name for name, _, _ in every)
    rows = tuple(
        (*([name] if whose else []), cause.cause, evidence(cause), f"{losses:,}")
        for name, cause, losses in every
    )
    columns = (*(["rule"] if whose else []), "cause", "evidence", "losses")
    to_do = dict.fromkeys(f"To do about {cause.cause}: {advice(cause)}." for _, cause, _ in every)
    return Section("Causes", sentences=tuple(to_do), table=Table(columns, rows, words=len(columns) - 1))


def doubtful(warnings: Sequence[MeasurementWarning]) -> Section | None:
    """Return what makes the figures doubtful."""
    return Section("Warnings", sentences=sentences(warnings)) if warnings else None


def conditions(
    result_spec: dict[str, Any], environment: dict[str, Any], version: str, began: str
) -> Section:
    """Return how it was measured: settings that were given or worked out, and the machine."""
    shown = {key: value for key, value in result_spec.items() if value not in (None, "", [], ())}
    host = {key: value for key, value in environment.items() if key not in ("boot_id", "usable_cpus")}
    facts = {"began": began, "snat_race": version} | host | shown
    rows = tuple((key, _plain(value)) for key, value in facts.items())
    return Section("How it was measured", table=Table(("setting", "value"), rows, words=2))


def _plain(value: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
