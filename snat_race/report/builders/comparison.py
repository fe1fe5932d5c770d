"""A comparison as a document."""

from snat_race.analysis.comparison import Compared, Comparison, ComparisonOutcome, Rate
from snat_race.report.document import Document, Section, Table
from snat_race.report.wording.formats import percent
from snat_race.report.wording.warnings import sentences


def compared(result: Compared) -> Document:
    """Return the report of a comparison: each against the baseline."""
    columns = ("", "lost", "dials", "loss rate", "95 % interval", "rounds")
    base = {each.base.name: each.base for each in result.comparisons}
    rates = [*base.values(), *(each.other for each in result.comparisons)]
    sections = (
        Section("Loss rates", table=Table(columns, tuple(_row(each) for each in rates))),
        Section("Against the baseline", sentences=tuple(map(sentence, result.comparisons))),
        *([Section("Warnings", sentences=sentences(result.warnings))] if result.warnings else []),
    )
    named: dict[str, list[str]] = {}
    for each in result.comparisons:
        named.setdefault(_word(each), []).append(each.other.name)
    verdict = "; ".join(f"{word}: {', '.join(names)}" for word, names in named.items())
    return Document(
        f"snat_race compare, baseline {result.comparisons[0].base.name}", f"{verdict}.", sections
    )


def _word(each: Comparison) -> str:
    if each.outcome != ComparisonOutcome.inconclusive:
        return each.outcome
    more = f"{each.more_dials:,} more dials needed" if each.more_dials else "more rounds needed"
    return f"inconclusive: {more}"


def _row(rate: Rate) -> tuple[str, ...]:
    low, high = map(percent, rate.loss_rate_ci95)
    share = percent(rate.loss_rate)
    return (rate.name, f"{rate.lost:,}", f"{rate.dialled:,}", share, f"{low} to {high}", f"{rate.rounds}")


def sentence(each: Comparison) -> str:
    """Say what the figures allow to say."""
    low, high = (f"{100 * limit:+.3g}" for limit in each.difference_ci95)
    change = f"{100 * each.difference:+.3g} percentage points (95 % interval {low} to {high})"
    if each.reduction is not None and each.reduction_ci95 and each.outcome == ComparisonOutcome.fewer:
        least, most = map(percent, each.reduction_ci95)
        change += f"; {percent(each.reduction)} of the losses are gone (95 % interval {least} to {most})"
    drift = f"; rounds vary {each.dispersion:.1f} times as much as chance" if each.dispersion > 1.5 else ""
    return f"{each.other.name}: {_word(each)}: {change}{drift}."
