"""Draws counts over time: insert_failed as stacked bars, and losses as a line, on one axis."""

from typing import TYPE_CHECKING

from snat_race.report.figures.data import Timeline, TimeStack
from snat_race.report.figures.drawing import (
    INK,
    NARROW,
    PAGE,
    SERIES,
    UNSURE,
    WIDE,
    Frame,
    Key,
    Picture,
    draw,
    grid,
    units,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDEST_BAR_PX = 56
_MOST_DOTS = 24
_PX_PER_TICK = 80


def picture(figure: Timeline) -> Picture:
    """Draw the bars, and the line above them."""

    def paint(axes: "Axes") -> None:
        _paint(axes, figure)
        units(axes, figure.axis, "number")

    wide = draw(Frame(WIDE, 300, left=52), figure.title, paint)
    narrow = draw(Frame(NARROW, 280, left=44, right=8), figure.title, paint)
    keys = [Key(figure.line_name, INK)] if figure.line else []
    keys += [Key(stack.name, colour, bar=True) for stack, colour in _coloured(figure)]
    return Picture(figure.title, figure.caption, (wide, narrow), tuple(keys))


def _coloured(figure: Timeline) -> list[tuple[TimeStack, str]]:
    named = [stack for stack in figure.stacks if not stack.others]
    others = [stack for stack in figure.stacks if stack.others]
    return [*zip(named, SERIES, strict=False), *((stack, UNSURE) for stack in others)]


def _paint(axes: "Axes", figure: Timeline) -> None:
    spans = figure.spans
    middles = [began + length / 2 for began, length in spans]
    begin = spans[0][0]
    end = spans[-1][0] + spans[-1][1]
    px_per_unit = axes.get_window_extent().width / (end - begin)
    widths = [min(length * 0.82, _WIDEST_BAR_PX / px_per_unit) for _, length in spans]
    below = [0] * len(spans)
    for stack, colour in _coloured(figure):
        for number, height in enumerate(stack.counts):
            if height:  # else its edge would cut the grid
                axes.bar(
                    middles[number],
                    height,
                    widths[number],
                    bottom=below[number],
                    color=colour,
                    edgecolor=PAGE,
                    linewidth=0.8,
                )
        below = [low + height for low, height in zip(below, stack.counts, strict=True)]
    if figure.line:
        _paint_line(axes, middles, figure.line)
    axes.set_xlim(begin, end)
    axes.set_ylim(0, max([*below, *figure.line]) * 1.06)
    most_ticks = max(2, round(px_per_unit * (end - begin) / _PX_PER_TICK))
    axes.locator_params(axis="x", nbins=most_ticks, integer=True)
    axes.locator_params(axis="y", nbins=4, integer=True)
    grid(axes, "y")


def _paint_line(axes: "Axes", middles: list[float], counts: tuple[int, ...]) -> None:
    axes.plot(middles, counts, color=PAGE, linewidth=3.2)
    axes.plot(middles, counts, color=INK, linewidth=1.4)
    if len(middles) > _MOST_DOTS:
        return
    for x, y in zip(middles, counts, strict=True):
        for colour, width in ((PAGE, 8), (INK, 5)):
            axes.plot([x, x], [y, y], color=colour, linewidth=width, solid_capstyle="round")
