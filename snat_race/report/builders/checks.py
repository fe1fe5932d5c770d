"""A lab run as a list of checks: whether each rule behaved as expected."""

from snat_race.analysis.verdict import as_expected, race_losses
from snat_race.report.builders.shared_sections import title_of
from snat_race.report.document import Check, CheckList
from snat_race.report.wording.formats import plural
from snat_race.results.schema import LabResult, VariantResult


def checks(result: LabResult, *, race: bool) -> CheckList:
    """Return a check for each rule; ``race``: whether it is expected to lose SYNs to the race."""
    measured = [_check(variant, race=race) for variant in result.variants]
    unavailable = [
        Check(name=variant.name, passed=None, why_skipped=variant.reason) for variant in result.unavailable
    ]
    expected = "race" if race else "no-race"
    return CheckList(
        title=f"{title_of(result)}, expect {expected}",
        checks=(*measured, *unavailable),
    )


def _check(variant: VariantResult, *, race: bool) -> Check:
    summary = variant.summary
    dials = plural(summary.attempted, "dial")
    insert_failed = sum(variant.kernel.conntrack.insert_failed)
    lost = race_losses(variant.diagnosis)
    passed = as_expected(variant.outcome, race=race)
    return Check(
        name=variant.name,
        passed=passed,
        evidence=(
            f"{variant.name}: {variant.outcome}, lost to the race {lost} of {dials}",
            f"insert_failed +{insert_failed}, paired {summary.paired or 0}",
        ),
        why_skipped="inconclusive" if passed is None else "",
    )
