"""The race window: its length, the curve that it is the area of, and a figure of that."""

from collections.abc import Iterator
from typing import NamedTuple

from snat_race.analysis.intervals import wilson
from snat_race.analysis.warnings import of_window
from snat_race.report.document import Column, Importance, Section, Table
from snat_race.report.figures.data import OffsetCurve, OffsetPoint
from snat_race.report.wording import warnings
from snat_race.report.wording.formats import percent, percent_interval, plural
from snat_race.results.schema import Window


class _Bin(NamedTuple):
    """Two neighbouring points of the curve as one: a row of the table, a point of the figure."""

    low_ns: int
    high_ns: int
    paired: int
    collisions: int

    @property
    def share(self) -> float:
        """The share of the pairs that collided."""
        return self.collisions / self.paired if self.paired else 0.0


def _bins(window: Window) -> Iterator[_Bin]:
    for number in range(0, len(window.curve), 2):
        neighbours = window.curve[number : number + 2]
        yield _Bin(
            low_ns=neighbours[0].low_ns,
            high_ns=neighbours[-1].high_ns,
            paired=sum(point.paired for point in neighbours),
            collisions=sum(point.collisions for point in neighbours),
        )


def window_section(window: Window) -> Section:
    """Return the window with its interval, and the curve as a chart."""
    bins = list(_bins(window))
    highest = max((bin_.share for bin_ in bins), default=0.0) or 1.0
    columns = (
        Column(heading="offset, us", number=True, importance=Importance.key),
        Column(heading="pairs", number=True),
        Column(heading="collisions", number=True, importance=Importance.extra),
        Column(heading="collided", number=True, importance=Importance.main),
        Column(heading="95 % interval", number=True, importance=Importance.extra),
    )
    return Section(
        title="Race window",
        introduction=(_length(window),),
        warnings=warnings.sentences(of_window(window)),
        table=Table(
            columns=columns,
            rows=tuple(map(_row, bins)),
            bars=tuple(bin_.share / highest for bin_ in bins),
        ),
    )


def _length(window: Window) -> str:
    low, high = window.window_ns_ci95
    half = f", +-{(high - low) / 2 / window.window_ns:.0%}" if window.window_ns else ""
    return (
        f"Race window of '{window.variant}', {window.caches} caches: {window.window_ns:,.0f} ns "
        f"(95 % interval of this run {low:,.0f} to {high:,.0f}{half}), the area under this curve: "
        f"collisions of {plural(window.paired, 'pair')} whose SYNs were sent up to "
        f"{window.sweep_ns / 1000:g} us apart."
    )


def _row(bin_: _Bin) -> tuple[str, ...]:
    offsets = f"{bin_.low_ns / 1000:+g} to {bin_.high_ns / 1000:+g}"
    counts = (offsets, f"{bin_.paired:,}", f"{bin_.collisions:,}")
    if not bin_.paired:
        return (*counts, "-", "-")
    interval = wilson(bin_.collisions, bin_.paired)
    return (*counts, percent(bin_.share), percent_interval(interval))


def window_figure(window: Window) -> OffsetCurve | None:
    """Return the share of pairs that collided against the offset of their SYNs; None without pairs."""
    low, high = window.window_ns_ci95
    points = tuple(
        OffsetPoint(
            offset_us=(bin_.low_ns + bin_.high_ns) / 2000,
            share=bin_.share,
            interval=wilson(bin_.collisions, bin_.paired),
        )
        for bin_ in _bins(window)
        if bin_.paired
    )
    if not points:
        return None
    return OffsetCurve(
        title=f"Race window of '{window.variant}'",
        caption=(
            "The share of pairs that collided against the offset of their SYNs, with its 95 % interval; "
            f"the area is the window, {window.window_ns:,.0f} ns (in this run {low:,.0f} to {high:,.0f})."
        ),
        axis="second SYN after the first, us",
        sweep_us=window.sweep_ns / 1000,
        points=points,
    )
