"""A lab run as a document and as figures."""

from collections.abc import Sequence

from snat_race.analysis.warnings import of_lab as warnings_of_lab
from snat_race.analysis.warnings import usable_cpus
from snat_race.report.builders import shared_sections, timeline
from snat_race.report.builders.latency import (
    NamedHistogram,
    latency_figure,
    latency_section,
    require_readable,
)
from snat_race.report.builders.shares import TONES, figure_of_variants
from snat_race.report.builders.window import window_figure, window_section
from snat_race.report.document import Column, Document, Importance, Section, Table
from snat_race.report.figures.data import Figure
from snat_race.report.wording import verdicts, warnings
from snat_race.report.wording.causes import THIS_IS_THE_LABS_NAT
from snat_race.report.wording.client_lines import LATE
from snat_race.report.wording.formats import filled_if_known, percent, percent_interval, plural
from snat_race.results.conclusions import UNPROVEN, CauseName, Outcome
from snat_race.results.schema import LabResult, VariantResult

_MOST_CPUS_APART = 4
_MOST_CURVES_NAMED = 4


def document(result: LabResult) -> Document:
    """Return the report of a lab run: the verdict, a row for each rule, and why."""
    require_readable(variant.summary for variant in result.variants)
    base = result.variants[0]
    verdict = verdicts.verdict(base)
    return Document(
        title=shared_sections.title_of(result),
        verdict=f"{verdict}.",
        tone=TONES[result.verdict.outcome],
        meaning=verdicts.meaning(result),
        facts=(_conditions(result),),
        origin=shared_sections.origin(result),
        warnings=warnings.sentences(warnings_of_lab(result)),
        sections=shared_sections.present(
            _rules(result),
            _causes(result),
            _window(result),
            timeline.timeline_section(timeline.spans_of(base.periods)),
            latency_section(
                ((variant.name, variant.summary.latency_ns) for variant in result.variants), detail=True
            ),
            shared_sections.conditions(result),
        ),
    )


def _conditions(result: LabResult) -> str:
    spec = result.spec
    cpus = usable_cpus(result)
    length = f"{result.variants[0].summary.elapsed_s:.1f} s a rule"
    if result.interrupted:
        length += filled_if_known(", interrupted (of {duration_s:g} s)", spec) or ", interrupted"
    phrases = (
        filled_if_known("{containers:container} of {workers:worker}", spec),
        filled_if_known("a dial each {interval_us:,} us", spec),
        filled_if_known("timeout {timeout_ms:,} ms", spec),
        length,
        plural(cpus, "CPU") if cpus else "",
        filled_if_known("{topology}", spec),
        filled_if_known("backend {backend}", spec),
        filled_if_known("seed {seed}", spec),
        f"{result.elapsed_s:.1f} s in all",
    )
    return ", ".join(phrase for phrase in phrases if phrase)


def _rules(result: LabResult) -> Section:
    any_late = any(variant.summary.late_by_retransmit for variant in result.variants)
    traced = any(variant.proven is not None for variant in result.variants)
    columns = (
        Column(heading="rule", importance=Importance.key),
        Column(heading="verdict", importance=Importance.main, toned=True),
        Column(heading="dials", number=True),
        Column(heading="lost", number=True, importance=Importance.main),
        *([Column(heading=LATE, number=True)] if any_late else []),
        Column(heading="insert_failed", number=True),
        *([Column(heading="proven", number=True)] if traced else []),
        Column(heading="explained", number=True, importance=Importance.extra),
        Column(heading="paired", number=True, importance=Importance.extra),
        Column(heading="collided", number=True, importance=Importance.main),
        Column(heading="95 % interval", number=True),
        Column(heading="late", number=True, importance=Importance.extra),
    )
    missing = tuple(f"{variant.name}: unavailable: {variant.reason}." for variant in result.unavailable)
    base = result.variants[0].name
    mitigations = tuple(verdicts.mitigation(compared, base) for compared in result.verdict.mitigations)
    return Section(
        title="Rules",
        table=Table(
            columns=columns,
            rows=tuple(_rule(variant, any_late=any_late, traced=traced) for variant in result.variants),
            tones=tuple(TONES[variant.outcome] for variant in result.variants),
        ),
        sentences=(*missing, *mitigations),
    )


def _rule(variant: VariantResult, *, any_late: bool, traced: bool) -> tuple[str, ...]:
    summary = variant.summary
    explained = sum(cause.losses for cause in variant.diagnosis if cause.cause not in UNPROVEN)
    paired, collided, interval = "-", "-", "-"
    if summary.paired and variant.collision_rate_ci95:
        paired = f"{summary.paired:,}"
        collided = percent((summary.collisions or 0) / summary.paired)
        interval = percent_interval(variant.collision_rate_ci95)
    return (
        variant.name,
        verdicts.word(variant),
        f"{summary.attempted:,}",
        f"{summary.failed:,}",
        *([f"{summary.late_by_retransmit:,}"] if any_late else []),
        _insert_failed(variant.kernel.conntrack.insert_failed),
        *(["-" if variant.proven is None else f"{variant.proven:,}"] if traced else []),
        f"{explained:,}",
        paired,
        collided,
        interval,
        f"{summary.late:,}",
    )


def _insert_failed(per_cpu: Sequence[int]) -> str:
    """Return the count of each CPU, ``39+33``; of many CPUs their sum."""
    if len(per_cpu) > _MOST_CPUS_APART:
        return f"{sum(per_cpu):,}"
    return "+".join(f"{count:,}" for count in per_cpu)


def _causes(result: LabResult) -> Section | None:
    """Return each rule's causes, and which clashes cost nothing."""
    named = [(variant.name, cause) for variant in result.variants for cause in variant.diagnosis]
    resolved = tuple(
        f"{variant.name}: clash_resolve +{count:,}: that many times packets of one flow clashed, and both "
        "passed."
        for variant in result.variants
        if (count := sum(variant.kernel.conntrack.clash_resolve))
    )
    section = shared_sections.causes(named)
    if not section:
        return Section(title="Causes", sentences=resolved) if resolved else None
    raced = any(cause.cause is CauseName.snat_race for _, cause in named)
    return Section(
        title=section.title,
        table=section.table,
        introduction=resolved,
        sentences=(*section.sentences, *([THIS_IS_THE_LABS_NAT] if raced else [])),
    )


def _window(result: LabResult) -> Section | None:
    if result.window:
        return window_section(result.window)
    if result.spec.get("window_s"):
        return Section(title="Race window", sentences=("No pair was swept, so there is no window.",))
    return None


def figures(result: LabResult) -> tuple[Figure, ...]:
    """Return collisions, the first rule's rounds, latencies and the window, as far as there are any."""
    base = result.variants[0]
    rounds = timeline.figure_in_order(
        timeline.spans_of(base.periods), f"rounds of '{base.name}', in order", "dials lost"
    )
    outstanding = _outstanding(result.variants)
    curves = latency_figure(
        [
            NamedHistogram(
                name=variant.name if variant.name in outstanding else "",
                encoded=variant.summary.histogram,
                failed=variant.summary.failed,
            )
            for variant in result.variants
        ],
        others_name="other rules",
    )
    window = window_figure(result.window) if result.window else None
    drawn = (figure_of_variants(result), rounds, curves, window)
    return tuple(figure for figure in drawn if figure)


def _outstanding(variants: Sequence[VariantResult]) -> set[str]:
    """Return the names that have a curve of their own: the first and, of many, a few that cure it."""
    if len(variants) <= _MOST_CURVES_NAMED:
        return {variant.name for variant in variants}
    cures = [variant.name for variant in variants[1:] if variant.outcome is Outcome.not_seen]
    cures.sort(key=lambda name: "fully-random" not in name)
    return {variants[0].name, *cures[: _MOST_CURVES_NAMED - 1]}
