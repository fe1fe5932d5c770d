"""A client's run, or those of several merged, as a document and as figures."""

from collections.abc import Sequence

from snat_race.analysis import warnings as found_warnings
from snat_race.analysis.loss_rates import loss_counts
from snat_race.report.builders import shared_sections, timeline
from snat_race.report.builders.latency import (
    NamedHistogram,
    histogram_section,
    latency_figure,
    latency_section,
    require_readable,
)
from snat_race.report.builders.shares import figure_of_client, figure_of_clients
from snat_race.report.document import Column, Document, Importance, Section, Table, Tone
from snat_race.report.figures.data import Figure, ShareBars
from snat_race.report.wording import warnings
from snat_race.report.wording.causes import in_short
from snat_race.report.wording.client_lines import LATE, retransmits
from snat_race.report.wording.counter_deltas import delta_line
from snat_race.report.wording.formats import namespace, percent, percent_interval, plural
from snat_race.report.wording.verdicts import ADVERSARIAL
from snat_race.results.conclusions import MeasurementWarning
from snat_race.results.schema import ClientResult, MergedPart, MergedResult, Summary

# The three latencies of a client: of connected dials; of failed ones too; also of slots not dialled.
_LATENCIES = ("connected", "all", "from slot")
_FROM_SLOT = "from slot: as if every slot that passed meanwhile had been dialled"


def document(result: ClientResult) -> Document:
    """Return the report of one client."""
    title = f"snat_race client, {result.spec.get('remote_addr', '')}, {result.summary.elapsed_s:.1f} s"
    return _document(result, title, found_warnings.of_client(result), merged_from=None)


def document_of_merged(result: MergedResult) -> Document:
    """Return the report of several clients."""
    clients = sum(part.kind == "client" for part in result.merged_from)
    title = f"snat_race client, {result.spec.get('remote_addr', '')}, {result.summary.elapsed_s:.1f} s"
    if clients > 1:
        title += f": {plural(clients, 'client')} merged"
    return _document(result, title, found_warnings.of_merged(result), _merged_from(result.merged_from))


def _document(
    result: ClientResult | MergedResult,
    title: str,
    measurement_warnings: Sequence[MeasurementWarning],
    merged_from: Section | None,
) -> Document:
    summary = result.summary
    require_readable([summary])
    latencies = (summary.latency_ns, summary.latency_all_ns, summary.latency_from_slot_ns)
    clean = summary.attempted and not result.diagnosis
    lost_syns = "TIMEOUT" in summary.errors or summary.late_by_retransmit
    timed_to_collide = result.spec.get("mode") == "rendezvous" and lost_syns
    return Document(
        title=title,
        verdict=_verdict(result),
        tone=Tone.bad if summary.failed_or_late else Tone.good if clean else Tone.unsure,
        meaning=ADVERSARIAL if timed_to_collide else "",
        origin=shared_sections.origin(result),
        warnings=warnings.sentences(measurement_warnings),
        sections=shared_sections.present(
            _dials(summary, result.periods),
            _counters(summary),
            shared_sections.causes(("", cause) for cause in result.diagnosis),
            latency_section(zip(_LATENCIES, latencies, strict=True)),
            merged_from,
            timeline.timeline_section(timeline.spans_of(result.periods)),
            histogram_section(summary.histogram_all),
            shared_sections.conditions(result),
        ),
    )


def _verdict(result: ClientResult | MergedResult) -> str:
    summary = result.summary
    if not summary.attempted:
        return "nothing was dialled, so nothing is known."
    dials = plural(summary.attempted, "dial")
    if not summary.failed_or_late:
        return f"none of {dials} was lost."
    share = percent(summary.failed_or_late / summary.recorded)
    if not summary.late_by_retransmit:
        lost = f"{summary.failed:,} of {dials} ({share}) failed"
    elif not summary.failed:
        lost = f"{summary.late_by_retransmit:,} of {dials} ({share}) lost a SYN and connected {LATE}"
    else:
        lost = (
            f"{summary.failed_or_late:,} of {dials} ({share}) were lost or late: "
            f"{summary.failed:,} failed, {summary.late_by_retransmit:,} connected {LATE}"
        )
    causes = ", ".join(map(in_short, result.diagnosis))
    counted = sum(result.kernel.conntrack.insert_failed)
    insert_failed = f"; insert_failed rose by {counted:,}" if result.kernel.source else ""
    because = f": {causes}" if causes else ""
    if summary.late_by_retransmit and causes:
        because = f"; lost SYNs: {causes}"
    return f"{lost}{because}{insert_failed}."


def _dials(summary: Summary, periods: Sequence[Summary]) -> Section:
    """Return what became of the dials."""
    counts = loss_counts("", summary, periods)
    of_all = f"{percent(counts.loss_rate)}, 95 % interval of this run {percent_interval(counts.interval)}"
    late = summary.late_by_retransmit
    rows = [
        ("attempted", summary.attempted, f"{summary.rate_per_s:,.0f} a second"),
        ("connected", summary.connected, ""),
        ("failed", summary.failed, percent(summary.loss_rate) if late else of_all),
    ]
    if late:
        rows += [
            (LATE, late, "connected, but a second late or more: their SYN was lost and sent again"),
            ("failed or late", summary.failed_or_late, of_all),
        ]
    rows += [
        ("late slots", summary.late, "not dialled: a dial was in flight, or being prepared"),
        ("overruns", summary.overruns, "samples dropped because the ring was full"),
        ("cut short", summary.cut_short, "in flight at the stop; not counted above"),
    ]
    if summary.syn_retransmits:
        slow = sum(summary.syn_retransmits.values())
        rows.append(("slow", slow, f"connects of over 0.9 s. {retransmits(summary.syn_retransmits)}"))
    columns = (
        Column(heading="dials", importance=Importance.key),
        Column(heading="number", number=True, importance=Importance.main),
        Column(heading=""),
    )
    errors = ", ".join(f"{name} {count:,}" for name, count in summary.errors.items())
    return Section(
        title="Dials",
        table=Table(columns=columns, rows=tuple((name, f"{count:,}", why) for name, count, why in rows)),
        sentences=(f"Errors: {errors}.",) if errors else (),
    )


def _counters(summary: Summary) -> Section | None:
    """Return what each namespace counted that was read meanwhile."""
    lines = tuple(f"{namespace(delta.netns)}: {delta_line(delta)}" for delta in summary.counters)
    return Section(title="Counters", sentences=lines) if lines else None


def _merged_from(parts: Sequence[MergedPart]) -> Section:
    hosts = list(dict.fromkeys(part.boot_id for part in parts))
    any_late = any(part.late_by_retransmit for part in parts)
    rows = tuple(
        (
            part.run_id[:8],
            part.kind,
            f"{hosts.index(part.boot_id) + 1:,}",
            part.started_at,
            f"{part.elapsed_s:.1f} s",
            "-" if part.attempted is None else f"{part.attempted:,}",
            "-" if part.attempted is None else f"{part.failed or 0:,}",
            *(["-" if part.attempted is None else f"{part.late_by_retransmit:,}"] if any_late else []),
        )
        for part in parts
    )
    columns = (
        Column(heading="run", importance=Importance.key),
        Column(heading="kind", importance=Importance.main),
        Column(heading="host", importance=Importance.extra),
        Column(heading="began", importance=Importance.extra),
        Column(heading="length", number=True),
        Column(heading="dials", number=True),
        Column(heading="failed", number=True, importance=Importance.main),
        *([Column(heading=LATE, number=True)] if any_late else []),
    )
    return Section(title="Merged from", table=Table(columns=columns, rows=rows))


def figures(result: ClientResult) -> tuple[Figure, ...]:
    """Return the loss rate, the periods and the latencies of a client."""
    return _figures(result, figure_of_client(result))


def figures_of_merged(result: MergedResult) -> tuple[Figure, ...]:
    """Return the loss rates, the periods and the latencies of several clients."""
    return _figures(result, figure_of_clients(result))


def _figures(result: ClientResult | MergedResult, shares: ShareBars | None) -> tuple[Figure, ...]:
    summary = result.summary
    curves = (
        NamedHistogram(name="connected", encoded=summary.histogram),
        NamedHistogram(name="all", encoded=summary.histogram, failed=summary.failed),
        NamedHistogram(name=_FROM_SLOT, encoded=summary.histogram_from_slot),
    )
    drawn = (
        shares,
        timeline.figure_in_time(
            timeline.spans_of(result.periods),
            "dials failed or late" if summary.late_by_retransmit else "dials failed",
        ),
        latency_figure(curves, of_client=True),
    )
    return tuple(figure for figure in drawn if figure)
