"""A trace as a document: who lost how often to whom, how far apart, how long they waited."""

from itertools import dropwhile

from snat_race.report.builders import shared_sections
from snat_race.report.document import Column, Document, Importance, Section, Table, Tone
from snat_race.report.wording import traces, warnings
from snat_race.report.wording.causes import WHICH_RULES
from snat_race.report.wording.formats import duration, namespace, percent
from snat_race.results.conclusions import CauseName
from snat_race.results.trace import TraceResult


def document(result: TraceResult) -> Document:
    """Return the report of a trace."""
    return Document(
        title=f"snat_race trace, {namespace(result.netns)}",
        verdict=traces.verdict(result),
        tone=_tone(result),
        origin=shared_sections.origin(result),
        warnings=(*traces.unseen(result), *warnings.sentences(result.warnings)),
        sections=shared_sections.present(
            _victims(result),
            _destinations(result),
            _pairs(result),
            _waited(result),
            _apart(result),
            _counters(result),
            _causes(result),
            _losses(result),
            shared_sections.conditions(result),
        ),
    )


def _tone(result: TraceResult) -> Tone:
    if result.lost:
        return Tone.bad
    return Tone.good if result.syns and not (result.vanished or result.unknown) else Tone.unsure


def _number(heading: str, importance: Importance = Importance.main) -> Column:
    return Column(heading=heading, number=True, importance=importance)


def _victims(result: TraceResult) -> Section | None:
    rows = tuple(
        (
            victim.address,
            f"{victim.syns:,}",
            f"{victim.lost:,}",
            percent(victim.lost / victim.syns) if victim.syns else "-",
            f"{victim.vanished:,}",
        )
        for victim in result.victims
    )
    columns = (
        Column(heading="victim", importance=Importance.key),
        _number("SYNs"),
        _number("lost"),
        _number("share"),
        _number("no winner", Importance.usual),
    )
    return Section(title="Victims", table=Table(columns=columns, rows=rows)) if rows else None


def _destinations(result: TraceResult) -> Section | None:
    rows = tuple((row.destination, f"{row.lost:,}", f"{row.vanished:,}") for row in result.destinations)
    columns = (
        Column(heading="destination", importance=Importance.key),
        _number("lost"),
        _number("no winner", Importance.usual),
    )
    return Section(title="Destinations", table=Table(columns=columns, rows=rows)) if rows else None


def _pairs(result: TraceResult) -> Section | None:
    rows = tuple((pair.victim, pair.winner, f"{pair.lost:,}") for pair in result.pairs)
    columns = (
        Column(heading="victim", importance=Importance.key),
        Column(heading="lost to", importance=Importance.main),
        _number("lost"),
    )
    return Section(title="Who lost to whom", table=Table(columns=columns, rows=rows)) if rows else None


def _waited(result: TraceResult) -> Section | None:
    if not result.lost:
        return None
    rows = [(f"{seconds} s", f"{count:,}") for seconds, count in result.waited.items()]
    again = sum(result.waited.values())
    rows.append(("not sent again, or lost again", f"{result.lost - again:,}"))
    columns = (Column(heading="sent again after", importance=Importance.key), _number("SYNs"))
    return Section(title="How long they waited", table=Table(columns=columns, rows=tuple(rows)))


def _apart(result: TraceResult) -> Section | None:
    gaps = list(dropwhile(lambda gap: not gap.count, result.apart))
    if not gaps:
        return None
    most = max(gap.count for gap in gaps)
    columns = (Column(heading="less than", number=True, importance=Importance.key), _number("losses"))
    return Section(
        title="How far apart the two arrived",
        table=Table(
            columns=columns,
            rows=tuple((duration(gap.below_ns), f"{gap.count:,}") for gap in gaps),
            bars=tuple(gap.count / most for gap in gaps),
        ),
        sentences=(traces.COMPARE_WINDOW,),
    )


def _counters(result: TraceResult) -> Section:
    return Section(
        title="Against the counters",
        sentences=tuple(
            filter(None, (traces.against_counters(result), traces.unsure(result), traces.NOT_SEEN))
        ),
    )


def _causes(result: TraceResult) -> Section | None:
    """Return what the counters say of the losses, where any have no winner or the race is to be cured."""
    wanted = [
        cause
        for cause in result.candidate_causes
        if result.vanished or (result.lost and cause.cause is CauseName.snat_race)
    ]
    section = shared_sections.causes(("", cause) for cause in wanted)
    if not section:
        return None
    return Section(title=section.title, table=section.table, sentences=(*section.sentences, WHICH_RULES))


def _losses(result: TraceResult) -> Section | None:
    rows = tuple(
        (loss.at, loss.source, loss.destination, loss.winner, loss.translated, f"{loss.apart_ns:,}")
        for loss in result.losses
    )
    columns = (
        Column(heading="when", importance=Importance.key),
        Column(heading="victim", importance=Importance.main),
        Column(heading="destination"),
        Column(heading="lost to", importance=Importance.main),
        Column(heading="both translated to"),
        _number("apart, ns", Importance.usual),
    )
    if not rows:
        return None
    return Section(title="The last losses", table=Table(columns=columns, rows=rows), detail=True)
