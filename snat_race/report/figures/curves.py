"""Draws latency by percentile, and the race window."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from snat_race.report.figures.data import LatencyCurve, LatencyCurves, OffsetCurve
from snat_race.report.figures.drawing import (
    BAD,
    GRID,
    INK,
    MUTED,
    NARROW,
    PAGE,
    SERIES,
    WIDE,
    Frame,
    Key,
    Picture,
    draw,
    grid,
    units,
)
from snat_race.report.wording.formats import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Style = tuple[str, tuple[float, ...]]
_DASHED, _DOTTED, _BOTH = (5.0, 2.0), (1.5, 1.5), (6.0, 2.0, 1.5, 2.0)
_OF_RULES: tuple[Style, ...] = (
    (BAD, ()),
    (SERIES[0], _DASHED),
    (SERIES[3], _DOTTED),
    (SERIES[4], _BOTH),
)
_OF_CLIENT: tuple[Style, ...] = (
    (SERIES[0], ()),
    (BAD, _DASHED),
    (SERIES[4], _DOTTED),
)
_ABOVE = 1.6  # times the longest latency: the top of the axes
_RETRANSMITTED_NS = {1e9: "1 s: a lost SYN is sent again", 2e9: "2 s"}


def latency_picture(figure: LatencyCurves) -> Picture:
    """Draw a line for each latency, and where a lost SYN is sent again."""
    styles = iter(_OF_CLIENT if figure.of_client else _OF_RULES)
    drawn = [(curve, Key(_label(curve), *next(styles)) if curve.name else None) for curve in figure.curves]

    def paint(axes: "Axes") -> None:
        _paint_latency(axes, drawn)

    wide = draw(Frame(WIDE, 360, left=60), figure.title, paint)
    narrow = draw(Frame(NARROW, 320, left=50, right=14), figure.title, paint)
    keys = [key for _, key in drawn if key]
    if len(keys) < len(drawn):
        keys.append(Key(figure.others_name, MUTED))
    return Picture(figure.title, figure.caption, (wide, narrow), tuple(keys))


def _label(curve: LatencyCurve) -> str:
    return f"{curve.name}; {curve.end}" if curve.end else curve.name


def _paint_latency(axes: "Axes", drawn: Sequence[tuple[LatencyCurve, Key | None]]) -> None:
    top = max(curve.values_ns[-1] for curve, _ in drawn)
    low = min(curve.values_ns[0] for curve, _ in drawn)
    most_odds = max(10.0, *(curve.odds[-1] for curve, _ in drawn))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.set_xlim(1, most_odds)
    axes.set_ylim(low / 1.15, top * _ABOVE)
    _ticks(axes, most_odds, low, top)
    grid(axes, "both")
    units(axes, "percentile")
    for curve, key in sorted(drawn, key=lambda pair: pair[1] is not None):
        colour = key.colour if key else MUTED
        axes.step(
            curve.odds,
            curve.values_ns,
            where="pre",
            color=colour,
            linestyle=(0, key.dashes) if key and key.dashes else "solid",
            linewidth=2 if key else 1,
            alpha=1 if key else 0.45,
        )
        if curve.end:
            odds, value_ns = curve.odds[-1], curve.values_ns[-1]
            axes.plot([odds, odds], [value_ns, top * _ABOVE], color=colour, linestyle=(0, _DOTTED))
    for instant_ns, label in _RETRANSMITTED_NS.items():
        if top >= 0.98 * instant_ns:
            axes.axhline(instant_ns, color=INK, linewidth=1, zorder=1)
            axes.annotate(label, (1, instant_ns), (4, 5), textcoords="offset points", color=MUTED)


def _ticks(axes: "Axes", most_odds: float, low: float, top: float) -> None:
    odds = [2.0, *(10.0**power for power in range(1, 12) if 10.0**power <= most_odds)]
    axes.set_xticks(odds, [f"{100 * (1 - 1 / value):.9g}%" for value in odds])
    steps = (1,) if top / low > 300 else (1, 2, 5)
    values = [step * 10.0**power for power in range(1, 13) for step in steps]
    shown = [value for value in values if low / 1.15 <= value <= top * _ABOVE]
    axes.set_yticks(shown, [duration(value) for value in shown])


def offset_picture(figure: OffsetCurve) -> Picture:
    """Draw the probability of a collision against the offset, with its interval as a band."""

    def paint(axes: "Axes") -> None:
        _paint_offsets(axes, figure)

    wide = draw(Frame(WIDE, 320, left=52), figure.title, paint)
    narrow = draw(Frame(NARROW, 280, left=44, right=12), figure.title, paint)
    return Picture(figure.title, figure.caption, (wide, narrow))


def _paint_offsets(axes: "Axes", figure: OffsetCurve) -> None:
    x = [point.offset_us for point in figure.points]
    y = [point.share for point in figure.points]
    lows = [point.interval[0] for point in figure.points]
    highs = [point.interval[1] for point in figure.points]
    axes.fill([*x, *reversed(x)], [*lows, *reversed(highs)], color=SERIES[0], alpha=0.2, linewidth=0)
    axes.plot(x, y, color=SERIES[0], linewidth=2)
    for offset_us, share in zip(x, y, strict=True):
        for colour, width in ((PAGE, 8), (SERIES[0], 5)):
            axes.plot(
                [offset_us, offset_us],
                [share, share],
                color=colour,
                linewidth=width,
                solid_capstyle="round",
            )
    axes.axvline(0, color=GRID, linewidth=1, zorder=0)
    axes.set_xlim(-figure.sweep_us, figure.sweep_us)
    axes.set_ylim(0, min(1.0, max(highs) * 1.05))
    axes.locator_params(axis="y", nbins=5)
    axes.locator_params(axis="x", nbins=8, steps=[1, 2, 5, 10])
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
    grid(axes, "y")
    units(axes, figure.axis, "collided")
