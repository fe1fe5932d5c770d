"""A watch of a node's counters as a document and as a figure."""

from collections.abc import Sequence

from snat_race.analysis.warnings import of_watch as warnings_of_watch
from snat_race.report.builders import shared_sections, timeline
from snat_race.report.document import Column, Document, Importance, Section, Table, Tone
from snat_race.report.figures.data import Figure
from snat_race.report.wording import warnings
from snat_race.report.wording.causes import WHICH_RULES, name_or_names
from snat_race.report.wording.counter_deltas import conntrack, delta_line
from snat_race.report.wording.formats import namespace
from snat_race.results.conclusions import CandidateCause, CauseName
from snat_race.results.counters import CounterDelta, total_of
from snat_race.results.schema import WatchResult

_COLUMNS_IN_TIME = 4


def document(result: WatchResult) -> Document:
    """Return the report of a watch: what its counters account for, and what they counted."""
    where = namespace(result.total.netns) if result.total else "nothing"
    return Document(
        title=f"snat_race watch, {where}, by {result.counters_from}",
        verdict=_verdict(result),
        tone=_tone(result),
        origin=shared_sections.origin(result),
        warnings=warnings.sentences(warnings_of_watch(result)),
        sections=shared_sections.present(
            _causes(result),
            _counted(result.total) if result.total else None,
            _counters(result.total) if result.total else None,
            _in_time(result.periods),
            shared_sections.conditions(result),
        ),
    )


def _verdict(result: WatchResult) -> str:
    if not result.total:
        return "nothing was read, so nothing is known."
    lost = ", ".join(f"{cause.at_most:,} {name_or_names(cause)}" for cause in _most_first(result))
    if lost:
        return f"these counters account for SYNs lost: at most {lost}."
    return "no counter rose that loses SYNs."


def _most_first(result: WatchResult) -> list[CandidateCause]:
    return sorted(result.candidate_causes, key=lambda cause: -cause.at_most)


def _tone(result: WatchResult) -> Tone:
    if not result.total:
        return Tone.unsure
    return Tone.bad if result.candidate_causes else Tone.good


def _causes(result: WatchResult) -> Section | None:
    section = shared_sections.causes(("", cause) for cause in _most_first(result))
    if not section or not any(cause.cause is CauseName.snat_race for cause in result.candidate_causes):
        return section
    return Section(title=section.title, table=section.table, sentences=(*section.sentences, WHICH_RULES))


def _counted(total: CounterDelta) -> Section:
    return Section(title="Counted", sentences=(f"In all, {total.elapsed_s:.1f} s: {delta_line(total)}.",))


def _counters(total: CounterDelta) -> Section:
    columns = (
        Column(heading="counter", importance=Importance.key),
        Column(heading="in all", number=True, importance=Importance.main),
        Column(heading="by CPU"),
    )
    rows = [
        (name, f"{sum(per_cpu):,}", shared_sections.on_cpus(per_cpu)) for name, per_cpu in conntrack(total)
    ]
    rows += [(name, f"{count:,}", "") for name, count in sorted(total.tcp.items())]
    return Section(
        title="How far counters rose", table=Table(columns=columns, rows=tuple(rows)), detail=True
    )


def _in_time(periods: Sequence[CounterDelta]) -> Section | None:
    """Return the first few counters of conntrack, period by period; of very many, added up."""
    read = [period for period in periods if period.conntrack]
    shown = timeline.neighbours_added_up(read, total_of)
    if not shown:
        return None
    names = [name for name, _ in conntrack(shown[0])[:_COLUMNS_IN_TIME]]
    columns = (
        Column(heading="began", importance=Importance.key),
        Column(heading="length", number=True, importance=Importance.extra),
        *(Column(heading=name, number=True, importance=Importance.main) for name in names),
    )
    rows = tuple(
        (
            period.began_at,
            f"{period.elapsed_s:.2f} s",
            *(f"{sum(per_cpu):,}" for _, per_cpu in conntrack(period)[:_COLUMNS_IN_TIME]),
        )
        for period in shown
    )
    return Section(title="In time", table=Table(columns=columns, rows=rows), detail=True)


def figures(result: WatchResult) -> tuple[Figure, ...]:
    """Return insert_failed in time, if it was counted."""
    figure = timeline.figure_in_time(timeline.spans_of_watch(result.periods))
    return (figure,) if figure else ()
