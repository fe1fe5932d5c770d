"""A comparison of loss rates as a document."""

from snat_race.analysis.comparison import Compared, Comparison, ComparisonOutcome, Rate
from snat_race.report.document import Column, Document, Importance, Section, Table, Tone
from snat_race.report.wording import warnings
from snat_race.report.wording.formats import percent, percent_interval

_TONES = {ComparisonOutcome.fewer: Tone.good, ComparisonOutcome.more: Tone.bad}
_MUCH_DRIFT = 1.5


def document(result: Compared) -> Document:
    """Return the report of a comparison: each result against the baseline."""
    base = result.comparisons[0].base
    bases = {comparison.base.name: comparison.base for comparison in result.comparisons}
    rates = [*bases.values(), *(comparison.other for comparison in result.comparisons)]
    return Document(
        title=f"snat_race compare, baseline {base.name}",
        verdict=_verdict(result),
        tone=_tone(result),
        warnings=warnings.sentences(result.warnings),
        sections=(
            Section(title="Loss rates", table=_rates(rates)),
            Section(title="Against the baseline", sentences=tuple(map(_sentence, result.comparisons))),
        ),
    )


def _verdict(result: Compared) -> str:
    names: dict[str, list[str]] = {}
    for comparison in result.comparisons:
        names.setdefault(_outcome(comparison), []).append(comparison.other.name)
    return "; ".join(f"{outcome}: {', '.join(others)}" for outcome, others in names.items()) + "."


def _tone(result: Compared) -> Tone:
    """Return bad if any result has more losses, good if all have fewer."""
    tones = {_TONES.get(comparison.outcome, Tone.unsure) for comparison in result.comparisons}
    if Tone.bad in tones:
        return Tone.bad
    return Tone.good if tones == {Tone.good} else Tone.unsure


def _outcome(comparison: Comparison) -> str:
    if comparison.outcome is not ComparisonOutcome.inconclusive:
        return comparison.outcome
    if comparison.more_dials:
        return f"inconclusive: {comparison.more_dials:,} more dials needed"
    return "inconclusive: more rounds needed"


def _rates(rates: list[Rate]) -> Table:
    columns = (
        Column(heading="result", importance=Importance.key),
        Column(heading="lost", number=True),
        Column(heading="dials", number=True),
        Column(heading="loss rate", number=True, importance=Importance.main),
        Column(heading="95 % interval", number=True),
        Column(heading="rounds", number=True, importance=Importance.extra),
    )
    rows = tuple(
        (
            rate.name,
            f"{rate.lost:,}",
            f"{rate.dialled:,}",
            percent(rate.loss_rate),
            percent_interval(rate.loss_rate_ci95),
            f"{rate.rounds:,}",
        )
        for rate in rates
    )
    return Table(columns=columns, rows=rows)


def _sentence(comparison: Comparison) -> str:
    """Say what the figures allow to say."""
    low, high = (f"{100 * limit:+.3g}" for limit in comparison.difference_ci95)
    findings = f"{100 * comparison.difference:+.3g} percentage points (95 % interval {low} to {high})"
    if (
        comparison.reduction is not None
        and comparison.reduction_ci95
        and comparison.outcome is ComparisonOutcome.fewer
    ):
        findings += (
            f"; {percent(comparison.reduction)} of the losses are gone "
            f"(95 % interval {percent_interval(comparison.reduction_ci95)})"
        )
    if comparison.dispersion > _MUCH_DRIFT:
        findings += f"; rounds vary {comparison.dispersion:.1f} times as much as chance"
    return f"{comparison.other.name}: {_outcome(comparison)}: {findings}."
