"""How long dials took: percentiles, a histogram, and a figure of the percentiles."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log10

import numpy as np

from snat_race.analysis.histogram import Histogram
from snat_race.report.document import Column, Importance, Section, Table
from snat_race.report.figures.data import LatencyCurve, LatencyCurves
from snat_race.report.wording.formats import duration, percent
from snat_race.results.schema import Latency, Summary

_PERCENTILES = {
    "p50": Importance.main,
    "p90": Importance.extra,
    "p95": Importance.usual,
    "p99": Importance.main,
    "p999": Importance.usual,
    "p9999": Importance.extra,
    "max": Importance.main,
}
_HEADINGS = {"p999": "p99.9", "p9999": "p99.99"}
_STEPS_PER_DECADE = 4
_MOST_STEPS = 24
_MOST_POINTS = 240  # of a curve: one for each three pixels


def latency_section(named: Iterable[tuple[str, Latency | None]], *, detail: bool = False) -> Section | None:
    """Return the percentiles of several latencies; None if there is none."""
    rows = tuple((name, *_percentiles(latency)) for name, latency in named if latency)
    if not rows:
        return None
    columns = (
        Column(heading="connect latency", importance=Importance.key),
        *(
            Column(heading=_HEADINGS.get(name, name), number=True, importance=importance)
            for name, importance in _PERCENTILES.items()
        ),
    )
    return Section(title="Latency", table=Table(columns=columns, rows=rows), detail=detail)


def _percentiles(latency: Latency) -> Iterable[str]:
    for name in _PERCENTILES:
        value_ns = getattr(latency, name)
        yield "-" if value_ns is None else duration(value_ns)


def histogram_section(encoded: str | None) -> Section | None:
    """Return how latencies are spread, in steps of a quarter of a decade; None if there are none."""
    counts: dict[int, int] = {}
    for value_ns, count in Histogram.of([encoded]).buckets() if encoded else ():
        step = int(log10(max(1, value_ns)) * _STEPS_PER_DECADE)
        counts[step] = counts.get(step, 0) + count
    if not counts:
        return None
    last = max(counts)
    steps = range(max(min(counts), last - _MOST_STEPS + 1), last + 1)
    most = max(counts.values())
    columns = (
        Column(heading="from", number=True, importance=Importance.key),
        Column(heading="to", number=True, importance=Importance.main),
        Column(heading="dials", number=True, importance=Importance.main),
    )
    rows = tuple(
        (_step_duration(step), _step_duration(step + 1), f"{counts.get(step, 0):,}") for step in steps
    )
    bars = tuple(counts.get(step, 0) / most for step in steps)
    return Section(
        title="Histogram of all dials",
        table=Table(columns=columns, rows=rows, bars=bars),
        detail=True,
    )


def require_readable(summaries: Iterable[Summary]) -> None:
    """Check the histograms, also those that only some formats show: every format refuses the same results.

    Raises:
        UsageError: one is damaged.

    """
    for summary in summaries:
        kept = {summary.histogram, summary.histogram_all, summary.histogram_from_slot}
        Histogram.of(encoded for encoded in kept if encoded)


def _step_duration(step: int) -> str:
    return duration(10 ** (step / _STEPS_PER_DECADE))


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedHistogram:
    """The latencies of dials that connected, and how many of the same dials did not."""

    # "": it does not stand out.
    name: str
    # None: there is none.
    encoded: str | None
    failed: int = 0


def latency_figure(
    histograms: Sequence[NamedHistogram], *, others_name: str = "", of_client: bool = False
) -> LatencyCurves | None:
    """Return a curve for each histogram that holds any, which ends where the dials are that failed."""
    curves = [curve for histogram in histograms if (curve := _curve(histogram))]
    if not curves:
        return None
    caption = "How long the slowest dials took: from one line to the next, a tenth as many are left."
    if any(curve.end for curve in curves):
        caption += " Where a curve turns into a dotted line, the other dials never connected."
    without = [histogram.name for histogram in histograms if histogram.failed and not _curve(histogram)]
    if any(without):
        caption += f" Without a curve, because no dial connected: {', '.join(filter(None, without))}."
    if of_client and any(histogram.failed for histogram in histograms):
        caption += " Those from slot count dials that failed as well, until they were given up."
    return LatencyCurves(
        title="Connect latency by percentile",
        caption=caption,
        curves=tuple(curves),
        others_name=others_name,
        of_client=of_client,
    )


def _curve(histogram: NamedHistogram) -> LatencyCurve | None:
    buckets = list(Histogram.of([histogram.encoded]).buckets()) if histogram.encoded else []
    if not buckets:
        return None
    values_ns, counts = np.array(buckets, dtype=float).T
    up_to = counts.cumsum()
    total = up_to[-1] + histogram.failed
    # The largest is the percentile 1 - 1/n: beyond it nothing is known.
    odds = total / np.maximum(total - up_to, 1)
    steps = (np.log(odds) / max(np.log(odds[-1]), 1) * _MOST_POINTS).astype(int)
    kept = np.append(np.diff(steps) > 0, True)
    return LatencyCurve(
        name=histogram.name,
        end=f"{percent(histogram.failed / total)} never connected" if histogram.failed else "",
        odds=(1.0, *odds[kept].tolist()),
        values_ns=(float(values_ns[0]), *values_ns[kept].tolist()),
    )
