"""Losses and insert_failed over time, on one axis."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from snat_race.analysis.merge import merged_summary, seconds
from snat_race.report.figures.drawing import (
    INK,
    NARROW,
    PAGE,
    SERIES,
    UNSURE,
    WIDE,
    Figure,
    Frame,
    Key,
    draw,
    grid,
    units,
)
from snat_race.results.counters import CounterDelta, total_of
from snat_race.results.model import Result
from snat_race.results.schema import ClientResult, LabResult, MergedResult, Summary, WatchResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_PERIODS = 60  # as many as the table shows
_WIDEST_BAR_PX = 56
_MOST_DOTS = 24
_MOST_CPUS = len(SERIES) - 1
_SECONDS_IN = {"hours": 3600, "minutes": 60, "seconds": 1}


def coarse(result: Result) -> Result:
    """Return a result whose whole length fits a figure and its table: neighbours are added up."""
    if isinstance(result, LabResult):
        first = result.variants[0]
        if len(first.periods) > _MOST_PERIODS:
            first = first.model_copy(update={"periods": _added_up(first.periods)})
            return result.model_copy(update={"variants": [first, *result.variants[1:]]})
    elif isinstance(result, ClientResult | MergedResult) and len(result.periods) > _MOST_PERIODS:
        return result.model_copy(update={"periods": _added_up(result.periods)})
    elif isinstance(result, WatchResult) and len(result.periods) > _MOST_PERIODS:
        laps = [total_of(each) for each in _neighbours(result.periods)]
        return result.model_copy(update={"periods": laps})
    return result


def _neighbours(periods: Sequence[Any]) -> Iterable[Sequence[Any]]:
    stride = -(-len(periods) // _MOST_PERIODS)
    return (periods[at : at + stride] for at in range(0, len(periods), stride))


def _added_up(periods: Sequence[Summary]) -> list[Summary]:
    added = []
    for some in _neighbours(periods):
        total = total_of(delta for period in some for delta in period.counters)
        added.append(merged_summary(some, [total] if total else []))
    return added


@dataclass(frozen=True, slots=True)
class _Lap:
    began_s: float
    elapsed_s: float
    failed: int
    per_cpu: tuple[int, ...]


def of_rounds(result: LabResult) -> Figure | None:
    """Return the rounds of the lab's first rule."""
    first = result.variants[0]
    laps = _laps(first.periods)
    evenly = [_Lap(at + 0.5, 1.0, each.failed, each.per_cpu) for at, each in enumerate(laps)]
    return _figure(evenly, f"rounds of '{first.name}', in order", "dials lost")


def of_periods(result: ClientResult | MergedResult) -> Figure | None:
    """Return a client's periods."""
    return _in_time(_laps(result.periods), "dials failed")


def of_watch(result: WatchResult) -> Figure | None:
    """Return the laps of a watch, which knows of no dials."""
    return _in_time([_Lap(seconds(lap.began_at), lap.elapsed_s, 0, _cpus([lap])) for lap in result.periods])


def _laps(periods: Iterable[Summary]) -> list[_Lap]:
    return [
        _Lap(seconds(each.began_at), each.elapsed_s, each.failed, _cpus(each.counters))
        for each in periods
        if each.began_at
    ]


def _cpus(watched: Iterable[CounterDelta]) -> tuple[int, ...]:
    counted = [each.conntrack.insert_failed for each in watched if each.conntrack]
    return tuple(sum(column) for column in zip_longest(*counted, fillvalue=0))


def _in_time(laps: list[_Lap], failed: str = "") -> Figure | None:
    if not laps:
        return None
    origin_s = laps[0].began_s
    length_s = laps[-1].began_s + laps[-1].elapsed_s - origin_s
    unit = next((unit for unit, span in _SECONDS_IN.items() if length_s > 4 * span), "seconds")
    span = _SECONDS_IN[unit]
    since = [
        _Lap((each.began_s - origin_s) / span, each.elapsed_s / span, each.failed, each.per_cpu)
        for each in laps
    ]
    return _figure(since, f"{unit} since the first began", failed)


def _figure(laps: list[_Lap], along_x: str, failed: str) -> Figure | None:
    """Return nothing where nothing was lost or rose: the table says so as well."""
    stacks = _stacks(laps)
    lost = [each.failed for each in laps] if any(each.failed for each in laps) else []
    if not stacks and not lost:
        return None
    title = "Losses and insert_failed in time" if lost else "insert_failed in time"
    caption = "Each bar is the rise of insert_failed, by the CPU that counted it"
    if not stacks:
        caption = "No insert_failed was counted meanwhile"
    caption += f"; the line is the number of {failed} in the same time." if lost else "."

    def paint(axes: "Axes") -> None:
        _paint(axes, laps, stacks, lost)
        units(axes, along_x, "number")

    frames = Frame(WIDE, 300, left=52), Frame(NARROW, 280, left=44, right=8)
    wide, narrow = (draw(frame, title, paint) for frame in frames)
    keys = [Key(failed, INK)] if lost else []
    keys += [Key(name, colour, bar=True) for name, colour, _ in stacks]
    return Figure(title, caption, (wide, narrow), tuple(keys))


def _stacks(laps: Sequence[_Lap]) -> list[tuple[str, str, list[int]]]:
    """Return name, colour and height of the parts of the bars: the busiest CPUs, and the others."""
    columns = list(zip_longest(*(each.per_cpu for each in laps), fillvalue=0))
    risen = [cpu for cpu, column in enumerate(columns) if sum(column)]
    shown = sorted(sorted(risen, key=lambda cpu: (-sum(columns[cpu]), cpu))[:_MOST_CPUS])
    stacks = [
        (f"insert_failed, CPU {cpu}", colour, list(columns[cpu]))
        for cpu, colour in zip(shown, SERIES, strict=False)
    ]
    if others := [columns[cpu] for cpu in risen if cpu not in shown]:
        stacks.append(("other CPUs", UNSURE, [sum(each) for each in zip(*others, strict=True)]))
    return stacks


def _paint(
    axes: "Axes", laps: Sequence[_Lap], stacks: Sequence[tuple[str, str, list[int]]], lost: Sequence[int]
) -> None:
    middles = [each.began_s + each.elapsed_s / 2 for each in laps]
    begin, end = laps[0].began_s, laps[-1].began_s + laps[-1].elapsed_s
    px = axes.get_window_extent().width / (end - begin)
    widths = [min(each.elapsed_s * 0.82, _WIDEST_BAR_PX / px) for each in laps]
    below = [0] * len(laps)
    for _, colour, heights in stacks:
        for at, height in enumerate(heights):
            if height:  # else its edge would cut the grid
                axes.bar(
                    middles[at], height, widths[at], bottom=below[at], color=colour, edgecolor=PAGE,
                    linewidth=0.8,
                )  # fmt: skip
        below = [low + height for low, height in zip(below, heights, strict=True)]
    if lost:
        axes.plot(middles, lost, color=PAGE, linewidth=3.2)
        axes.plot(middles, lost, color=INK, linewidth=1.4)
        for x, y in zip(middles, lost, strict=True) if len(laps) <= _MOST_DOTS else ():
            for colour, width in ((PAGE, 8), (INK, 5)):
                axes.plot([x, x], [y, y], color=colour, linewidth=width, solid_capstyle="round")
    axes.set_xlim(begin, end)
    axes.set_ylim(0, max([*below, *lost]) * 1.06)
    axes.locator_params(axis="x", nbins=max(2, round(px * (end - begin) / 80)), integer=True)
    axes.locator_params(axis="y", nbins=4, integer=True)
    grid(axes, "y")
