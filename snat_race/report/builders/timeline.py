"""Losses and insert_failed side by side in time: as a table, and as a figure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

from snat_race.analysis.merge import seconds
from snat_race.report.builders.shared_sections import on_cpus
from snat_race.report.document import Column, Importance, Section, Table
from snat_race.report.figures.data import Timeline, TimeStack
from snat_race.report.wording.client_lines import LATE
from snat_race.results.counters import CounterDelta
from snat_race.results.schema import Summary

MOST_SPANS = 60
_MOST_STACKS = 5  # CPUs with a colour of their own
_SECONDS_IN = {"hours": 3600, "minutes": 60, "seconds": 1}

Period = TypeVar("Period")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What happened in a period, or in several that were added up."""

    # UTC, ISO 8601; "": not known.
    began_at: str
    elapsed_s: float
    dials: int
    failed: int
    # Dials that connected late by a retransmit.
    late: int
    # How far insert_failed rose on each CPU; None: nobody read it.
    insert_failed: tuple[int, ...] | None
    drop: int
    # Entries in the conntrack table: the most.
    entries: int


def neighbours_added_up(
    periods: Sequence[Period], add: Callable[[Sequence[Period]], Period | None]
) -> list[Period]:
    """Add neighbours up until no more than :data:`MOST_SPANS` are left, so that a whole run fits."""
    stride = max(1, -(-len(periods) // MOST_SPANS))
    groups = (periods[index : index + stride] for index in range(0, len(periods), stride))
    return [total for group in groups if (total := add(group)) is not None]


def spans_of(periods: Iterable[Summary]) -> list[Span]:
    """Return the periods of a run as spans, 60 at most."""
    spans = [_span(period.counters, period.began_at or "", period.elapsed_s, period) for period in periods]
    return neighbours_added_up(spans, _total)


def spans_of_watch(periods: Iterable[CounterDelta]) -> list[Span]:
    """Return the periods of a watch as spans, 60 at most; it knows of no dials."""
    spans = [_span([period], period.began_at, period.elapsed_s) for period in periods]
    return neighbours_added_up(spans, _total)


def _span(
    counters: Sequence[CounterDelta], began_at: str, elapsed_s: float, dials: Summary | None = None
) -> Span:
    read = [delta.conntrack for delta in counters if delta.conntrack]
    return Span(
        began_at=began_at,
        elapsed_s=elapsed_s,
        dials=dials.attempted if dials else 0,
        failed=dials.failed if dials else 0,
        late=dials.late_by_retransmit if dials else 0,
        insert_failed=_per_cpu([conntrack.insert_failed for conntrack in read]) if read else None,
        drop=sum(sum(conntrack.drop) for conntrack in read),
        entries=max((conntrack.count for conntrack in read), default=0),
    )


def _per_cpu(columns: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Add up CPU by CPU; nodes differ in how many they have."""
    return tuple(sum(counts) for counts in zip_longest(*columns, fillvalue=0))


def _total(spans: Sequence[Span]) -> Span:
    read = [span.insert_failed for span in spans if span.insert_failed is not None]
    return Span(
        began_at=spans[0].began_at,
        elapsed_s=sum(span.elapsed_s for span in spans),
        dials=sum(span.dials for span in spans),
        failed=sum(span.failed for span in spans),
        late=sum(span.late for span in spans),
        insert_failed=_per_cpu(read) if read else None,
        drop=sum(span.drop for span in spans),
        entries=max(span.entries for span in spans),
    )


def timeline_section(spans: Sequence[Span]) -> Section | None:
    """Return a row for each span; None if there is none."""
    if not spans:
        return None
    any_late = any(span.late for span in spans)
    columns = (
        Column(heading="began (UTC)", importance=Importance.key),
        Column(heading="dials", number=True),
        Column(heading="failed", number=True, importance=Importance.main),
        *([Column(heading=LATE, number=True)] if any_late else []),
        Column(heading="insert_failed", number=True, importance=Importance.main),
        Column(heading="drop", number=True, importance=Importance.extra),
        Column(heading="CPUs"),
        Column(heading="entries", number=True, importance=Importance.extra),
    )
    rows = tuple(_row(span, any_late=any_late) for span in spans)
    return Section(
        title="Losses and insert_failed in time", table=Table(columns=columns, rows=rows), detail=True
    )


def _row(span: Span, *, any_late: bool) -> tuple[str, ...]:
    began = span.began_at.removesuffix("Z").partition("T")[2] or "-"
    of_dials = (began, f"{span.dials:,}", f"{span.failed:,}", *([f"{span.late:,}"] if any_late else []))
    if span.insert_failed is None:
        return (*of_dials, "-", "-", "-", "-")
    return (
        *of_dials,
        f"{sum(span.insert_failed):,}",
        f"{span.drop:,}",
        on_cpus(span.insert_failed),
        f"{span.entries:,}",
    )


def figure_in_time(spans: Sequence[Span], line_name: str = "") -> Timeline | None:
    """Return the spans against the time since the first began. ``line_name``: what failed."""
    dated = [span for span in spans if span.began_at]
    if not dated:
        return None
    origin_s = seconds(dated[0].began_at)
    length_s = seconds(dated[-1].began_at) + dated[-1].elapsed_s - origin_s
    unit = next((unit for unit, span_s in _SECONDS_IN.items() if length_s > 4 * span_s), "seconds")
    unit_s = _SECONDS_IN[unit]
    positions = tuple(
        ((seconds(span.began_at) - origin_s) / unit_s, span.elapsed_s / unit_s) for span in dated
    )
    return _figure(dated, positions, axis=f"{unit} since the first began", line_name=line_name)


def figure_in_order(spans: Sequence[Span], axis: str, line_name: str) -> Timeline | None:
    """Return the spans one beside the other, where they took turns with others."""
    dated = [span for span in spans if span.began_at]
    positions = tuple((number + 0.5, 1.0) for number in range(len(dated)))
    return _figure(dated, positions, axis=axis, line_name=line_name)


def _figure(
    spans: Sequence[Span], positions: tuple[tuple[float, float], ...], *, axis: str, line_name: str
) -> Timeline | None:
    """Return nothing where nothing was lost or counted: the table says so as well."""
    stacks = _stacks(spans)
    lost = tuple(span.failed + span.late for span in spans)
    line = lost if any(lost) else ()
    if not stacks and not line:
        return None
    caption = "No insert_failed was counted meanwhile"
    if stacks:
        caption = "Each bar is the rise of insert_failed, by the CPU that counted it"
    caption += f"; the line is the number of {line_name} in the same time." if line else "."
    return Timeline(
        title="Losses and insert_failed in time" if line else "insert_failed in time",
        caption=caption,
        axis=axis,
        spans=positions,
        stacks=stacks,
        line=line,
        line_name=line_name,
    )


def _stacks(spans: Sequence[Span]) -> tuple[TimeStack, ...]:
    """Return the busiest CPUs, one stack each, and one for all others that counted anything."""
    columns = list(zip_longest(*(span.insert_failed or () for span in spans), fillvalue=0))
    busy = [cpu for cpu, column in enumerate(columns) if sum(column)]
    busiest = sorted(busy, key=lambda cpu: (-sum(columns[cpu]), cpu))[:_MOST_STACKS]
    stacks = [TimeStack(name=f"insert_failed, CPU {cpu}", counts=columns[cpu]) for cpu in sorted(busiest)]
    others = [columns[cpu] for cpu in busy if cpu not in busiest]
    if others:
        counts = tuple(sum(column) for column in zip(*others, strict=True))
        stacks.append(TimeStack(name="other CPUs", counts=counts, others=True))
    return tuple(stacks)
