"""A comparison of loss rates as a document."""

from snat_race.analysis.comparison import Compared, Comparison, ComparisonOutcome, Rate
from snat_race.analysis.loss_rates import Unit
from snat_race.report.document import Column, Document, Importance, Section, Table, Tone
from snat_race.report.wording import warnings
from snat_race.report.wording.client_lines import LATE
from snat_race.report.wording.formats import percent, percent_interval, plural

_TONES = {ComparisonOutcome.fewer: Tone.good, ComparisonOutcome.more: Tone.bad}
_MUCH_DRIFT = 1.5


def document(result: Compared) -> Document:
    """Return the report of a comparison: each result against the baseline."""
    bases = {comparison.base.name: comparison.base for comparison in result.comparisons}
    rates = [*bases.values(), *(comparison.other for comparison in result.comparisons)]
    only_in = tuple(
        f"Only in {only.name}: {', '.join(repr(rule) for rule in only.rules)}." for only in result.only_in
    )
    return Document(
        title=f"snat_race compare, baseline {result.baseline}",
        verdict=_verdict(result),
        tone=_tone(result),
        warnings=warnings.sentences(result.warnings),
        sections=(
            Section(title="Loss rates", table=_rates(rates), sentences=only_in),
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
    lacking = {"the baseline": comparison.more_dials_of_base, "its own": comparison.more_dials_of_other}
    if len(set(lacking.values())) == 1:
        lacking = {"each": comparison.more_dials}
    more = f"more {comparison.other.unit}"
    needed = [f"{plural(count, more)} of {whose}" for whose, count in lacking.items() if count]
    if needed:
        return f"inconclusive (needs {' and '.join(needed)})"
    if comparison.other.unit is Unit.pair:
        return "inconclusive (two runs of one rule differ as much)"
    return "inconclusive (needs more rounds of both)"


def _rates(rates: list[Rate]) -> Table:
    of_pairs = rates[0].unit is Unit.pair
    late = any(rate.late_by_retransmit for rate in rates)
    columns = (
        Column(heading="result", importance=Importance.key),
        Column(heading="collided" if of_pairs else "lost", number=True),
        *([Column(heading=LATE, number=True)] if late else []),
        Column(heading="pairs" if of_pairs else "dials", number=True),
        Column(
            heading="collision rate" if of_pairs else "loss rate", number=True, importance=Importance.main
        ),
        Column(heading="95 % interval", number=True),
        Column(heading="rounds", number=True, importance=Importance.extra),
    )
    rows = tuple(
        (
            rate.name,
            f"{rate.lost:,}",
            *([f"{rate.late_by_retransmit:,}"] if late else []),
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
    losses = "collisions" if comparison.other.unit is Unit.pair else "losses"
    low, high = (f"{100 * limit:+.3g}" for limit in comparison.difference_ci95)
    findings = f"{100 * comparison.difference:+.3g} percentage points (95 % interval {low} to {high})"
    if (
        comparison.reduction is not None
        and comparison.reduction_ci95
        and comparison.outcome is ComparisonOutcome.fewer
    ):
        findings += (
            f"; {percent(comparison.reduction)} of the {losses} are gone "
            f"(95 % interval {percent_interval(comparison.reduction_ci95)})"
        )
    if comparison.dispersion > _MUCH_DRIFT:
        findings += f"; rounds vary {comparison.dispersion:.1f} times as much as chance"
    against = f" against {comparison.base.name}" if comparison.other.unit is Unit.pair else ""
    return f"{comparison.other.name}{against}: {_outcome(comparison)}: {findings}."
