"""Results as documents, a builder for each kind."""

from snat_race.analysis import warnings
from snat_race.report.builders import sections
from snat_race.report.builders.doctor import doctor_lines
from snat_race.report.builders.lab import (
    insert_failed_of,
    mitigation_sentence,
    window_lines,
)
from snat_race.report.document import Document, Section, Table
from snat_race.report.wording import findings, verdicts
from snat_race.report.wording.counter_deltas import conntrack
from snat_race.report.wording.formats import percent
from snat_race.report.wording.program import Program
from snat_race.results.counters import CounterDelta
from snat_race.results.findings import DoctorResult
from snat_race.results.model import Result
from snat_race.results.schema import (
    ClientResult,
    LabResult,
    MergedResult,
    VariantResult,
    WatchResult,
)

_ENDS = ("connected", "all", "from slot")


def document(result: Result) -> Document:
    """Return the report of a result of any kind."""
    if isinstance(result, LabResult):
        return _of_lab(result)
    if isinstance(result, ClientResult | MergedResult):
        return _of_clients(result)
    if isinstance(result, WatchResult):
        return _of_watch(result)
    if isinstance(result, DoctorResult):
        return Document(
            "snat_race doctor",
            findings.verdict(result),
            (Section("Findings", lines=doctor_lines(result, Program())),),
        )
    raise TypeError(type(result))


def _put(*found: Section | None) -> tuple[Section, ...]:
    return tuple(section for section in found if section)


def _of_clients(result: ClientResult | MergedResult) -> Document:
    summary = result.summary
    latencies = (summary.latency_ns, summary.latency_all_ns, summary.latency_from_slot_ns)
    clients = (
        sum(each.kind == "client" for each in result.merged_from) if isinstance(result, MergedResult) else 1
    )
    title = f"snat_race client, {result.spec.get('remote_addr', '')}" + (
        f": {clients} clients merged" if clients > 1 else ""
    )
    return Document(
        title,
        _clients_verdict(result),
        _put(
            sections.totals(summary),
            sections.causes(("", each, each.losses) for each in result.diagnosis),
            sections.doubtful(
                warnings.of_merged(result)
                if isinstance(result, MergedResult)
                else warnings.of_client(result)
            ),
            sections.timeline(result.periods),
            sections.latency(zip(_ENDS, latencies, strict=True)),
            sections.histogram(summary.histogram_all),
            _sources(result) if isinstance(result, MergedResult) else None,
            sections.conditions(result.spec, result.environment, result.tool.version, result.started_at),
        ),
        meaning=verdicts.ADVERSARIAL
        if result.summary.failed and result.spec.get("mode") == "rendezvous"
        else "",
    )


def _clients_verdict(result: ClientResult | MergedResult) -> str:
    summary = result.summary
    if not summary.attempted:
        return "nothing was dialled, so nothing is known."
    if not summary.failed:
        return f"none of {summary.attempted:,} dials was lost."
    told = ", ".join(f"{each.losses:,} {each.cause}" for each in result.diagnosis)
    rose = sum(result.kernel.conntrack.insert_failed)
    beside = f"; insert_failed rose by {rose:,}" if result.kernel.source else ""
    return (
        f"{summary.failed:,} of {summary.attempted:,} dials ({percent(summary.loss_rate)}) failed: {told}"
        f"{beside}."
    )


def _sources(result: MergedResult) -> Section:
    hosts = list(dict.fromkeys(each.boot_id for each in result.merged_from))
    rows = tuple(
        (
            each.kind,
            each.run_id[:8],
            str(hosts.index(each.boot_id) + 1),
            each.started_at,
            f"{each.elapsed_s:.1f} s",
            "-" if each.attempted is None else f"{each.attempted:,}",
            "-" if each.failed is None else f"{each.failed:,}",
        )
        for each in result.merged_from
    )
    columns = ("kind", "run", "host", "began", "length", "dials", "failed")
    return Section("Merged from", table=Table(columns, rows, words=4))


def _of_lab(result: LabResult) -> Document:
    return Document(
        f"snat_race lab, {result.spec['scenario']}, kernel {result.environment['kernel']}",
        f"{verdicts.verdict(result.variants[0])}.",
        _put(
            _variants(result),
            _mitigations(result),
            sections.causes(
                (each.name, cause, cause.losses) for each in result.variants for cause in each.diagnosis
            ),
            sections.timeline(result.variants[0].periods),
            sections.latency((each.name, each.summary.latency_ns) for each in result.variants),
            _window(result),
            sections.conditions(result.spec, result.environment, result.tool.version, result.started_at),
        ),
        meaning=verdicts.meaning(result),
    )


def _variants(result: LabResult) -> Section:
    columns = ("rule", "verdict", "dials", "lost", "insert_failed", "paired", "collided", "95 % interval")
    rows = tuple(_variant(each) for each in result.variants)
    missing = tuple(f"{each.name}: unavailable: {each.reason}." for each in result.unavailable)
    return Section("Rules", sentences=missing, table=Table(columns, rows, words=2))


def _variant(variant: VariantResult) -> tuple[str, ...]:
    summary, interval = variant.summary, variant.collision_rate_ci95
    share = (summary.collisions or 0) / summary.paired if summary.paired else None
    return (
        variant.name,
        verdicts.word(variant),
        f"{summary.attempted:,}",
        f"{summary.failed:,}",
        insert_failed_of(variant),
        "-" if share is None else f"{summary.paired:,}",
        "-" if share is None else percent(share),
        f"{percent(interval[0])} to {percent(interval[1])}" if interval and share is not None else "-",
    )


def _mitigations(result: LabResult) -> Section | None:
    if not result.verdict.mitigations:
        return None
    sentences = tuple(map(mitigation_sentence, result.verdict.mitigations))
    return Section("Mitigations", sentences=sentences, figure="mitigations")


def _window(result: LabResult) -> Section | None:
    if not result.window:
        return None
    return Section("Race window", lines=tuple(window_lines(result.window)), figure="window")


def _of_watch(result: WatchResult) -> Document:
    total = result.total
    lost = ", ".join(f"{each.at_most:,} {each.cause}" for each in result.candidate_causes)
    verdict = (
        f"these counters account for SYNs lost: at most {lost}."
        if lost
        else "nothing rose that loses SYNs."
    )
    return Document(
        f"snat_race watch, {total.netns if total else 'nothing'}, by {result.counters_from}",
        verdict,
        _put(
            sections.causes(("", each, each.at_most) for each in result.candidate_causes),
            sections.doubtful(warnings.of_watch(result)),
            _counters(total) if total else None,
            _laps(result),
            sections.conditions(result.spec, result.environment, result.tool.version, result.started_at),
        ),
    )


def _counters(total: CounterDelta) -> Section:
    rows = [(name, f"{sum(rise):,}", sections.on_cpus(rise)) for name, rise in conntrack(total)]
    rows += [(name, f"{rise:,}", "") for name, rise in sorted(total.tcp.items())]
    return Section("Counters, as they rose", table=Table(("counter", "in all", "by CPU"), tuple(rows)))


def _laps(result: WatchResult) -> Section | None:
    laps = [lap for lap in result.periods if lap.conntrack]
    rows = tuple(
        (lap.began_at, f"{lap.elapsed_s:.2f} s", *(f"{sum(rise):,}" for _, rise in conntrack(lap)[:4]))
        for lap in laps[-60:]
    )
    if not rows or not laps[0].conntrack:
        return None
    columns = ("began", "length", *(name for name, _ in conntrack(laps[0])[:4]))
    return Section("In time", table=Table(columns, rows), figure="watch")
