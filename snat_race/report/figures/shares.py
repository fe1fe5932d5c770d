"""Bars of shares with their 95 % intervals: collisions under each rule, losses of each client."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING

from snat_race.analysis.intervals import Interval, wilson
from snat_race.report.figures.drawing import (
    BAD,
    FONT_PX,
    GOOD,
    INK,
    MUTED,
    NARROW,
    UNSURE,
    WIDE,
    Figure,
    Frame,
    Key,
    draw,
    grid,
    units,
)
from snat_race.report.wording.formats import percent
from snat_race.results.schema import ClientResult, LabResult, MergedPart, MergedResult, VariantResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"reproduced": BAD, "not_seen": GOOD, "inconclusive": UNSURE}
_WORDS = {BAD: "race", GOOD: "no race", UNSURE: "cannot tell"}
_LINEAR = 50  # a rate so much smaller than another would not show on a linear scale
_MOST = 40
_LONGEST = 44


@dataclass(frozen=True, slots=True)
class _Share:
    name: str
    share: float
    interval: Interval
    colour: str


def of_rules(result: LabResult) -> Figure | None:
    """Return the collision rate under each rule; where nothing pairs, the loss rate."""
    rows = [each for variant in result.variants if (each := _collided(variant))]
    if rows:
        what, title = "share of paired dials that collided", "Collisions under each rule"
    else:
        what, title = "share of dials that were lost", "Losses under each rule"
        rows = [
            _Share(each.name, each.summary.loss_rate, each.summary.loss_rate_ci95, _COLOURS[each.outcome])
            for each in result.variants
        ]
    caption = f"The {what} under each rule; the line across the end of a bar is its 95 % interval."
    colours = {each.colour for each in rows}
    keys = tuple(Key(word, colour, bar=True) for colour, word in _WORDS.items() if colour in colours)
    return _figure(title, caption, what, rows, keys) if rows else None


def _collided(variant: VariantResult) -> _Share | None:
    summary, interval = variant.summary, variant.collision_rate_ci95
    if not summary.paired or not interval:
        return None
    return _Share(
        variant.name, (summary.collisions or 0) / summary.paired, interval, _COLOURS[variant.outcome]
    )


def of_clients(result: ClientResult | MergedResult) -> Figure | None:
    """Return the loss rate of a client; of several, of each and of all."""
    summary = result.summary
    if not summary.attempted:
        return None
    sources = result.merged_from if isinstance(result, MergedResult) else []
    each = [_client(source) for source in sources if source.kind == "client"]
    name = "all clients" if len(each) > 1 else "this client"
    rows = [_share(name, summary.loss_rate, summary.loss_rate_ci95), *(each if len(each) > 1 else [])]
    what = "share of dials that failed"
    caption = f"The {what}; the line across the end of a bar is its 95 % interval."
    return _figure("Loss rate", caption, what, rows[:_MOST], ())


def _client(source: MergedPart) -> _Share:
    dials, failed = source.attempted or 0, source.failed or 0
    return _share(f"run {source.run_id[:8]}", failed / dials if dials else 0.0, wilson(failed, dials))


def _share(name: str, share: float, interval: Interval) -> _Share:
    return _Share(name, share, interval, BAD if share else GOOD)


def _figure(title: str, caption: str, what: str, rows: list[_Share], keys: tuple[Key, ...]) -> Figure:
    named = min(_LONGEST, max(len(each.name) for each in rows)) * 0.57 * FONT_PX
    wide = Frame(WIDE, 62 + 30 * len(rows), left=round(named) + 24, right=184, top=6, bottom=56)
    narrow = Frame(NARROW, 62 + 46 * len(rows), left=2, right=170, top=6, bottom=56)
    pictures = (
        draw(wide, title, lambda axes: _paint(axes, rows, what, narrow=False)),
        draw(narrow, title, lambda axes: _paint(axes, rows, what, narrow=True)),
    )
    return Figure(title, caption, pictures, keys)


def _paint(axes: "Axes", rows: Sequence[_Share], what: str, *, narrow: bool) -> None:
    low = _scale(axes, rows, 2 if narrow else 5)
    drop, height = (0.22, 0.34) if narrow else (0.0, 0.54)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    grid(axes, "x")
    units(axes, what, side="left")
    for at, row in enumerate(rows):
        y, (least, most) = at + drop, row.interval
        if row.share:
            axes.barh(y, row.share - low, height, left=low, color=row.colour, linewidth=0)
        else:  # not even nothing is without its colour
            axes.plot([low, low], [y - height / 2, y + height / 2], color=row.colour, linewidth=4)
        axes.plot([max(least, low), most], [y, y], color=INK, linewidth=1.4, solid_capstyle="butt")
        for end in (least, most):
            if end > low:
                axes.plot([end, end], [y - height / 6, y + height / 6], color=INK, linewidth=1.4)
        _label(axes, row, (at - 0.2 if narrow else y), y, narrow=narrow)


def _scale(axes: "Axes", rows: Sequence[_Share], most_ticks: int) -> float:
    """Choose a scale on which every rate shows; return where its bars begin."""
    positive = [each.share for each in rows if each.share]
    top = min(1.0, max(each.interval[1] for each in rows))
    low = 0.0
    if positive and min(positive) * _LINEAR < max(positive):
        ends = [*positive, *(each.interval[1] for each in rows)]
        low = float(10 ** floor(log10(min(ends)) - 0.3))
        axes.set_xscale("log")
        axes.minorticks_off()
    else:
        axes.locator_params(axis="x", nbins=most_ticks)
    axes.set_xlim(low, top)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    return low


def _label(axes: "Axes", row: _Share, name_y: float, y: float, *, narrow: bool) -> None:
    name = row.name if len(row.name) <= _LONGEST else f"{row.name[: _LONGEST - 1]}…"
    low, high = map(percent, row.interval)
    texts = (
        (name, INK, 0, name_y, *((0, "left") if narrow else (-14, "right"))),
        (percent(row.share), INK, 1, y, 56, "right"),
        (f"{low} to {high}", MUTED, 1, y, 68, "left"),
    )
    for text, colour, x, at, offset, side in texts:
        axes.annotate(
            text, (x, at), (offset, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            color=colour, ha=side, va="center_baseline",
        )  # fmt: skip
