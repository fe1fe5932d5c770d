"""Latency by percentile, and the race window."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from snat_race.analysis.histogram import Histogram
from snat_race.analysis.intervals import wilson
from snat_race.report.document import Table
from snat_race.report.figures.drawing import (
    BAD,
    GRID,
    INK,
    MUTED,
    NARROW,
    PAGE,
    SERIES,
    WIDE,
    Figure,
    Frame,
    Key,
    draw,
    grid,
    units,
)
from snat_race.report.wording.formats import duration, percent
from snat_race.results.conclusions import Outcome
from snat_race.results.schema import ClientResult, LabResult, MergedResult, VariantResult, Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHED, _DOTTED, _BOTH = (5.0, 2.0), (1.5, 1.5), (6.0, 2.0, 1.5, 2.0)
_STYLES: tuple[tuple[str, tuple[float, ...]], ...] = (
    (BAD, ()),
    (SERIES[0], _DASHED),
    (SERIES[3], _DOTTED),
    (SERIES[4], _BOTH),
)
_CLIENT = (
    Key("connected", SERIES[0]),
    Key("all, failed ones too", BAD, _DASHED),
    Key("from slot: as if every slot that passed meanwhile had been dialled", SERIES[4], _DOTTED),
)
_POINTS = 240  # of a line: one for each three pixels
_RESENT_NS = {1e9: "1 s: a lost SYN is sent again", 2e9: "2 s"}


@dataclass(frozen=True, slots=True)
class _Line:
    """``odds``: 1/(1-p), as in HdrHistogram's own plots; ``values_ns``: the percentile p."""

    odds: NDArray[np.float64]
    values_ns: NDArray[np.float64]
    key: Key | None = field(default=None)


def of_rules(result: LabResult) -> Figure | None:
    """Return a line for each rule; the first and a few that cure it stand out."""
    keys = {
        each.name: Key(each.name, colour, dashes)
        for each, (colour, dashes) in zip(_outstanding(result.variants), _STYLES, strict=False)
    }
    lines = [_line(each.summary.histogram, keys.get(each.name)) for each in result.variants]
    return _latency([each for each in lines if each])


def _outstanding(variants: Sequence[VariantResult]) -> list[VariantResult]:
    if len(variants) <= len(_STYLES):
        return list(variants)
    cures = [each for each in variants[1:] if each.outcome == Outcome.not_seen]
    cures.sort(key=lambda each: "fully-random" not in each.name)
    return [variants[0], *cures[: len(_STYLES) - 1]]


def of_clients(result: ClientResult | MergedResult) -> Figure | None:
    """Return the three latencies of a client."""
    summary = result.summary
    encoded = (summary.histogram, summary.histogram_all, summary.histogram_from_slot)
    lines = [_line(each, key) for each, key in zip(encoded, _CLIENT, strict=True)]
    return _latency([each for each in lines if each])


def _line(encoded: str | None, key: Key | None) -> _Line | None:
    if not encoded:
        return None
    buckets = list(Histogram.of([encoded]).buckets())
    if not buckets:
        return None
    values, counts = np.array(buckets, dtype=float).T
    reached = counts.cumsum()
    total = reached[-1]
    # The largest is the percentile 1 - 1/n: beyond it nothing is known.
    odds = total / np.maximum(total - reached, 1)
    steps = (np.log(odds) / max(np.log(odds[-1]), 1) * _POINTS).astype(int)
    kept = np.append(np.diff(steps) > 0, True)
    return _Line(np.append(1.0, odds[kept]), np.append(values[0], values[kept]), key)


def _latency(lines: Sequence[_Line]) -> Figure | None:
    if not lines:
        return None
    title = "Connect latency by percentile"
    caption = "How long the slowest dials took: from one line to the next, a tenth as many are left."
    frames = Frame(WIDE, 360, left=60), Frame(NARROW, 320, left=50, right=14)
    wide, narrow = (draw(frame, title, lambda axes: _paint_latency(axes, lines)) for frame in frames)
    keys = [each.key for each in lines if each.key]
    keys += [Key("other rules", MUTED)] if len(keys) < len(lines) else []
    return Figure(title, caption, (wide, narrow), tuple(keys))


def _paint_latency(axes: "Axes", lines: Sequence[_Line]) -> None:
    top = max(float(each.values_ns[-1]) for each in lines)
    low = min(float(each.values_ns[0]) for each in lines)
    most = max(10.0, *(float(each.odds[-1]) for each in lines))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.set_xlim(1, most)
    axes.set_ylim(low / 1.15, top * 1.6)
    _ticks(axes, most, low, top)
    grid(axes, "both")
    units(axes, "percentile")
    for each in sorted(lines, key=lambda line: line.key is not None):
        key = each.key or Key("", MUTED)
        style = (0, key.dashes) if key.dashes else "solid"
        axes.step(
            each.odds, each.values_ns, where="pre", color=key.colour, linestyle=style,
            linewidth=2 if each.key else 1, alpha=1 if each.key else 0.45,
        )  # fmt: skip
    for instant_ns, said in _RESENT_NS.items():
        if top >= 0.98 * instant_ns:
            axes.axhline(instant_ns, color=INK, linewidth=1, zorder=1)
            axes.annotate(said, (1, instant_ns), (4, 5), textcoords="offset points", color=MUTED)


def _ticks(axes: "Axes", most: float, low: float, top: float) -> None:
    odds = [2.0, *(10.0**k for k in range(1, 12) if 10.0**k <= most)]
    axes.set_xticks(odds, [f"{100 * (1 - 1 / each):.9g}%" for each in odds])
    decades = range(1, 13)
    steps = (1,) if top / low > 300 else (1, 2, 5)
    values = [
        step * 10.0**k for k in decades for step in steps if low / 1.15 <= step * 10.0**k <= top * 1.6
    ]
    axes.set_yticks(values, [duration(each) for each in values])


def window_table(window: Window) -> Table:
    """Return the points of the race window's curve."""
    rows = tuple(
        (f"{low / 1000:+g} to {high / 1000:+g}", f"{paired:,}", f"{lost:,}", *_shares(lost, paired))
        for low, high, paired, lost in _points(window)
    )
    columns = ("offset, us", "pairs", "collisions", "collided", "95 % interval")
    return Table(columns, rows)


def _shares(lost: int, paired: int) -> tuple[str, str]:
    if not paired:
        return "-", "-"
    low, high = wilson(lost, paired)
    return percent(lost / paired), f"{percent(low)} to {percent(high)}"


def _points(window: Window) -> Iterable[tuple[int, int, int, int]]:
    """Yield every two points of the curve as one, as the text report does: where, pairs, collisions."""
    for first, second in zip(window.curve[::2], window.curve[1::2], strict=True):
        yield (
            first.low_ns,
            second.high_ns,
            first.paired + second.paired,
            first.collisions + second.collisions,
        )


def of_window(result: LabResult) -> Figure | None:
    """Return the probability of a collision against the offset of the two SYNs."""
    window = result.window
    if not window:
        return None
    title = f"Race window of '{window.variant}'"
    low, high = window.window_ns_ci95
    caption = (
        f"The share of pairs that collided against the offset of their SYNs, with its 95 % interval; the "
        f"area is the race window, {window.window_ns:,.0f} ns ({low:,.0f} to {high:,.0f})."
    )
    frames = Frame(WIDE, 320, left=52), Frame(NARROW, 280, left=44, right=12)
    wide, narrow = (draw(frame, title, lambda axes: _paint_window(axes, window)) for frame in frames)
    return Figure(title, caption, (wide, narrow))


def _paint_window(axes: "Axes", window: Window) -> None:
    points = [each for each in _points(window) if each[2]]
    x = [(low + high) / 2000 for low, high, _, _ in points]
    y = [lost / paired for _, _, paired, lost in points]
    lows, highs = zip(*(wilson(lost, paired) for _, _, paired, lost in points), strict=True)
    axes.fill([*x, *reversed(x)], [*lows, *reversed(highs)], color=SERIES[0], alpha=0.2, linewidth=0)
    axes.plot(x, y, color=SERIES[0], linewidth=2)
    for at, share in zip(x, y, strict=True):
        axes.plot([at, at], [share, share], color=PAGE, linewidth=8, solid_capstyle="round")
        axes.plot([at, at], [share, share], color=SERIES[0], linewidth=5, solid_capstyle="round")
    axes.axvline(0, color=GRID, linewidth=1, zorder=0)
    axes.set_xlim(-window.sweep_ns / 1000, window.sweep_ns / 1000)
    axes.set_ylim(0, min(1.0, max(highs) * 1.05))
    axes.locator_params(axis="y", nbins=5)
    axes.locator_params(axis="x", nbins=8, steps=[1, 2, 5, 10])
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
    grid(axes, "y")
    units(axes, "second SYN after the first, us", "collided")
