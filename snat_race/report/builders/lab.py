"""A lab run as text."""

import textwrap
from collections.abc import Iterable
from typing import Protocol

from snat_race.analysis.warnings import of_lab, of_window
from snat_race.report.builders.sections import bar
from snat_race.report.wording import verdicts
from snat_race.report.wording.causes import advice, evidence
from snat_race.report.wording.formats import percent
from snat_race.report.wording.warnings import sentence
from snat_race.results.conclusions import UNPROVEN, CauseName, Mitigation
from snat_race.results.schema import LabResult, VariantResult, Window

_WIDTH, _NAME_WIDTH, _BAR_WIDTH = 110, 40, 60
_HEADINGS = (
    f"{'dials':>8}{'lost':>7}{'insert_failed':>15}{'explained':>11}{'paired':>8}"
    f"{'collided':>10}{'95 % interval':>16}{'late':>7}  verdict"
)


class _Explained(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...


def listing(variants: Iterable[_Explained], scenarios: Iterable[_Explained]) -> str:
    """Name and explain what ``--variant`` and ``--scenario`` take."""
    parts = ["--variant:", *_explained(variants), "", "--scenario:", *_explained(scenarios)]
    return "\n".join(parts)


def _explained(things: Iterable[_Explained]) -> list[str]:
    return [f"  {each.name:<33}{each.description}" for each in things]


def lab_report(result: LabResult) -> str:
    """Return the whole of a lab run: conditions, a row per variant, causes, verdict, meaning."""
    width = max(10, *(len(_shortened(variant.name)) for variant in result.variants)) + 1
    parts = [
        *_conditions(result),
        "",
        f"{'rule':<{width}}{_HEADINGS}",
        *(f"{_shortened(each.name):<{width}}{_variant_row(each)}" for each in result.variants),
        *(
            line
            for each in result.unavailable
            for line in wrapped(f"{each.name}: unavailable: {each.reason}")
        ),
        "",
        *_wrapped_all(_causes(result)),
        *wrapped(f"Verdict: {verdicts.verdict(result.variants[0])}."),
        *_wrapped_all(map(mitigation_sentence, result.verdict.mitigations)),
        *(["", *window_lines(result.window)] if result.window else []),
        *(["", "Race window: no pair was swept."] if result.spec["window_s"] and not result.window else []),
        "",
        *wrapped(verdicts.meaning(result)),
    ]
    return "\n".join(parts)


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else f"...{name[3 - _NAME_WIDTH :]}"


def wrapped(text: str) -> list[str]:
    """Return a sentence as lines for a terminal."""
    return textwrap.wrap(text, width=_WIDTH, break_on_hyphens=False)


def _wrapped_all(texts: Iterable[str]) -> list[str]:
    return [line for text in texts for line in wrapped(text)]


def _conditions(result: LabResult) -> list[str]:
    spec, machine = result.spec, result.environment
    each = "1 worker" if spec["workers"] == 1 else f"{spec['workers']} workers"
    hosts = "1 container" if spec["containers"] == 1 else f"{spec['containers']} containers"
    timing = f"a dial each {spec['interval_us']} us, timeout {spec['timeout_ms']} ms"
    length = f"{result.variants[0].summary.elapsed_s:.1f} s a rule"
    if result.interrupted:
        length += f", interrupted (of {spec['duration_s']:g} s)"
    cpus = len(spec["cpus"] or machine["usable_cpus"])
    seed = f"seed {spec['seed']}, {result.elapsed_s:.1f} s in all"
    return [
        f"snat_race lab, {spec['scenario']}: {hosts} of {each}, {timing}, {length}",
        f"kernel {machine['kernel']}, CPUs: {cpus}, {spec['topology']}, backend {spec['backend']}, {seed}",
        *(f"warning: {sentence(warning)}" for warning in of_lab(result)),
    ]


def _variant_row(variant: VariantResult) -> str:
    summary, rose = variant.summary, insert_failed_of(variant)
    explained = sum(each.losses for each in variant.diagnosis if each.cause not in UNPROVEN)
    paired, collided, interval = "-", "-", "-"
    if summary.paired and variant.collision_rate_ci95:
        low, high = variant.collision_rate_ci95
        paired, collided = f"{summary.paired:,}", percent((summary.collisions or 0) / summary.paired)
        interval = f"{low:.1%} - {high:.1%}"
    return (
        f"{summary.attempted:>8,}{summary.failed:>7,}{rose:>15}{explained:>11,}"
        f"{paired:>8}{collided:>10}{interval:>16}{summary.late:>7,}  {verdicts.word(variant)}"
    )


def insert_failed_of(variant: VariantResult) -> str:
    """Return the rise on each CPU, or of so many CPUs in all."""
    per_cpu = variant.kernel.conntrack.insert_failed
    return f"{'+'.join(map(str, per_cpu))}" if len(per_cpu) <= 4 else f"{sum(per_cpu)}"


def _causes(result: LabResult) -> list[str]:
    """Return each variant's causes with their evidence, then each advice once."""
    found = [(each.name, cause) for each in result.variants for cause in each.diagnosis]
    resolved = {each.name: sum(each.kernel.conntrack.clash_resolve) for each in result.variants}
    advised: dict[tuple[CauseName, str], list[str]] = {}
    for name, cause in found:
        advised.setdefault((cause.cause, advice(cause)), []).append(f"'{name}'")
    return [
        *(f"{name}: {cause.losses:,} x {cause.cause}: {evidence(cause)}." for name, cause in found),
        *(
            f"{name}: clash_resolve +{count:,}: so often did packets of one flow clash, and both pass."
            for name, count in resolved.items()
            if count
        ),
        *(
            f"To do about {cause} under {', '.join(names)}: {to_do}."
            for (cause, to_do), names in advised.items()
        ),
    ]


def mitigation_sentence(mitigation: Mitigation) -> str:
    """Say what a rule does to the collisions of the first."""
    if mitigation.loss_reduction is None or mitigation.ci95 is None:
        return f"'{mitigation.name}': nothing to compare, for want of losses or of pairs."
    low, high = mitigation.ci95
    if low <= 0 <= high:
        return (
            f"'{mitigation.name}': no difference detected; it collides {1 - mitigation.loss_reduction:.3g} "
            f"times as often (95 % interval {1 - high:.3g} to {1 - low:.3g})."
        )
    if mitigation.loss_reduction < 0:
        return (
            f"'{mitigation.name}' is no cure: it collides {1 - mitigation.loss_reduction:.3g} times as "
            f"often (95 % interval {1 - high:.3g} to {1 - low:.3g})."
        )
    return (
        f"'{mitigation.name}' removes {percent(mitigation.loss_reduction)} of the collisions "
        f"(95 % interval {percent(low)} to {percent(high)})."
    )


def window_lines(window: Window) -> list[str]:
    """Return the window, its interval, and the curve it is the area of."""
    heading = f"{'offset, us':>14}{'pairs':>8}{'collided':>10}"
    return [*_wrapped_all(window_sentences(window)), "", heading, *_curve(window)]


def window_sentences(window: Window) -> list[str]:
    """Return the window, its interval, and what makes one doubt it."""
    low, high = window.window_ns_ci95
    half = f", +-{(high - low) / 2 / window.window_ns:.0%}" if window.window_ns else ""
    length = (
        f"Race window of '{window.variant}', {window.caches} caches: {window.window_ns:,.0f} ns "
        f"(95 % interval {low:,.0f} to {high:,.0f}{half}), the area under this curve: collisions "
        f"of {window.paired:,} pairs whose SYNs were sent up to {window.sweep_ns / 1000:g} us apart."
    )
    return [length, *(f"warning: {sentence(warning)}" for warning in of_window(window))]


def _curve(window: Window) -> list[str]:
    """Return a bar for every two points."""
    points = list(zip(window.curve[::2], window.curve[1::2], strict=True))
    paired = [first.paired + second.paired for first, second in points]
    lost = [first.collisions + second.collisions for first, second in points]
    shares = [each / of if of else 0.0 for each, of in zip(lost, paired, strict=True)]
    highest = max(shares) or 1.0
    return [
        f"{first.low_ns / 1000:>+6.4g} .. {second.high_ns / 1000:<+5.4g}{of:>7,}{percent(share):>10} "
        + bar(share / highest, _BAR_WIDTH)
        for (first, second), of, share in zip(points, paired, shares, strict=True)
    ]
