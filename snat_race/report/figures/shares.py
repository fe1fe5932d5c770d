"""Draws bars of shares with their 95 % intervals: collisions under each rule, losses of each client."""

from collections.abc import Sequence
from math import floor, log10
from typing import TYPE_CHECKING

from snat_race.report.figures.data import ShareBar, ShareBars
from snat_race.report.figures.drawing import (
    FONT_PX,
    INK,
    MUTED,
    NARROW,
    TONES,
    WIDE,
    Frame,
    Key,
    Picture,
    draw,
    grid,
    units,
)
from snat_race.report.wording.formats import percent, percent_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINEAR = 50  # a share that much smaller than another would not show on a linear scale
_LONGEST_NAME = 44
_CHARACTER_PX = 0.57 * FONT_PX


def picture(figure: ShareBars) -> Picture:
    """Draw a bar below the other."""
    bars = figure.bars
    longest_name = min(_LONGEST_NAME, max(len(bar.name) for bar in bars))
    left = round(longest_name * _CHARACTER_PX) + 24
    wide = Frame(WIDE, 62 + 30 * len(bars), left=left, right=184, top=6, bottom=56)
    narrow = Frame(NARROW, 62 + 46 * len(bars), left=2, right=170, top=6, bottom=56)
    svgs = (
        draw(wide, figure.title, lambda axes: _paint(axes, bars, figure.axis, narrow=False)),
        draw(narrow, figure.title, lambda axes: _paint(axes, bars, figure.axis, narrow=True)),
    )
    shown = {bar.tone for bar in bars}
    keys = tuple(
        Key(name, TONES[tone], bar=True) for tone, name in figure.tone_names.items() if tone in shown
    )
    return Picture(figure.title, figure.caption, svgs, keys)


def _paint(axes: "Axes", bars: Sequence[ShareBar], axis: str, *, narrow: bool) -> None:
    low = _scale(axes, bars, 2 if narrow else 5)
    drop, height = (0.22, 0.34) if narrow else (0.0, 0.54)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_yticks([])
    grid(axes, "x")
    units(axes, axis, side="left")
    for number, bar in enumerate(bars):
        y = number + drop
        least, most = bar.interval
        colour = TONES[bar.tone]
        if bar.share:
            axes.barh(y, bar.share - low, height, left=low, color=colour, linewidth=0)
        else:  # not even nothing is without its colour
            axes.plot([low, low], [y - height / 2, y + height / 2], color=colour, linewidth=4)
        axes.plot([max(least, low), most], [y, y], color=INK, linewidth=1.4, solid_capstyle="butt")
        for end in (least, most):
            if end > low:
                axes.plot([end, end], [y - height / 6, y + height / 6], color=INK, linewidth=1.4)
        _label(axes, bar, number - 0.2 if narrow else y, y, narrow=narrow)


def _scale(axes: "Axes", bars: Sequence[ShareBar], most_ticks: int) -> float:
    """Choose a scale on which every share shows; return where its bars begin."""
    positive = [bar.share for bar in bars if bar.share]
    top = min(1.0, max(bar.interval[1] for bar in bars))
    low = 0.0
    if positive and min(positive) * _LINEAR < max(positive):
        ends = [*positive, *(bar.interval[1] for bar in bars)]
        low = float(10 ** floor(log10(min(ends)) - 0.3))
        axes.set_xscale("log")
        axes.minorticks_off()
    else:
        axes.locator_params(axis="x", nbins=most_ticks)
    axes.set_xlim(low, top)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    return low


def _label(axes: "Axes", bar: ShareBar, name_y: float, y: float, *, narrow: bool) -> None:
    name = bar.name if len(bar.name) <= _LONGEST_NAME else f"{bar.name[: _LONGEST_NAME - 1]}…"
    name_offset, name_side = (0, "left") if narrow else (-14, "right")
    texts = (
        (name, INK, 0, name_y, name_offset, name_side),
        (percent(bar.share), INK, 1, y, 56, "right"),
        (percent_interval(bar.interval), MUTED, 1, y, 68, "left"),
    )
    for text, colour, x, text_y, offset, side in texts:
        axes.annotate(
            text,
            xy=(x, text_y),
            xytext=(offset, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=colour,
            ha=side,
            va="center_baseline",
        )
