"""A lab run in KTAP, the format of the kernel's own tests (Documentation/dev-tools/ktap.rst)."""

from snat_race.analysis.verdict import as_expected, race_losses
from snat_race.results.schema import LabResult, VariantResult


def ktap_report(result: LabResult, *, race: bool) -> str:
    """Return a test point for each rule: ok if it raced as expected, or did not, SKIP if unknown."""
    expected = "race" if race else "no-race"
    kernel = result.environment["kernel"]
    lines = [
        "KTAP version 1",
        f"# snat_race lab, {result.spec['scenario']}, kernel {kernel}, expect {expected}",
    ]
    lines.append(f"1..{len(result.variants) + len(result.unavailable)}")
    for number, variant in enumerate(result.variants, 1):
        lines += [f"# {line}" for line in _evidence(variant)]
        holds = as_expected(variant.outcome, race=race)
        directive = " # SKIP inconclusive" if holds is None else ""
        lines.append(f"{'not ok' if holds is False else 'ok'} {number} {_name(variant.name)}{directive}")
    for number, missing in enumerate(result.unavailable, len(result.variants) + 1):
        lines.append(f"ok {number} {_name(missing.name)} # SKIP {missing.reason}")
    return "\n".join(lines)


def _evidence(variant: VariantResult) -> list[str]:
    summary, source = variant.summary, variant.kernel.conntrack
    lost = race_losses(variant.diagnosis)
    return [
        f"{variant.name}: {variant.outcome}, lost to the race {lost} of {summary.attempted} dials",
        f"insert_failed +{sum(source.insert_failed)}, paired {summary.paired or 0}",
    ]


def _name(text: str) -> str:
    """Drop what would begin a directive."""
    return text.replace("#", "")
