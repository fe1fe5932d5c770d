"""Which functions report which kind of result: the only place that knows.

To add a kind: write its builder, and add an entry here. To add a format: write a renderer of documents,
rows, figures or histograms; no entry changes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from snat_race.analysis.comparison import Comparable, comparable_client, comparable_lab
from snat_race.report.builders import (
    client,
    comparison,
    csv_rows,
    doctor,
    fleet,
    forecast,
    lab,
    trace,
    watch,
)
from snat_race.report.document import Document
from snat_race.report.figures.data import Figure
from snat_race.results.conclusions import Cause
from snat_race.results.schema import ClientResult, LabResult, MergedResult, Summary


class Reportable(Protocol):
    """Whatever says of which kind it is."""

    @property
    def kind(self) -> str:
        """A key of :data:`KINDS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What became of the dials of one rule, or of a whole run."""

    # Of the rule; "": there is only one.
    name: str
    summary: Summary
    diagnosis: Sequence[Cause]


def _nothing(_result: Any) -> tuple[()]:  # noqa: ANN401
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How to report one kind of result. Each function takes a result of that kind."""

    document: Callable[[Any], Document]
    csv_rows: Callable[[Any], Iterable[dict[str, Any]]]
    figures: Callable[[Any], tuple[Figure, ...]] = _nothing
    # What has dials: their summaries, and so their histograms and what limits are held against.
    measured: Callable[[Any], Sequence[Measured]] = _nothing
    # What ``compare`` takes, with the name that people call it; None: there are no dials to compare.
    comparable: Callable[[str, Any], Comparable] | None = None


def _rules_measured(result: LabResult) -> list[Measured]:
    return [
        Measured(name=variant.name, summary=variant.summary, diagnosis=variant.diagnosis)
        for variant in result.variants
    ]


def _run_measured(result: ClientResult | MergedResult) -> list[Measured]:
    return [Measured(name="", summary=result.summary, diagnosis=result.diagnosis)]


KINDS: dict[str, Kind] = {
    "lab": Kind(
        document=lab.document,
        csv_rows=csv_rows.of_lab,
        figures=lab.figures,
        measured=_rules_measured,
        comparable=comparable_lab,
    ),
    "client": Kind(
        document=client.document,
        csv_rows=csv_rows.of_client,
        figures=client.figures,
        measured=_run_measured,
        comparable=comparable_client,
    ),
    "merged": Kind(
        document=client.document_of_merged,
        csv_rows=csv_rows.of_client,
        figures=client.figures_of_merged,
        measured=_run_measured,
        comparable=comparable_client,
    ),
    "watch": Kind(
        document=watch.document,
        csv_rows=csv_rows.of_watch,
        figures=watch.figures,
    ),
    "trace": Kind(
        document=trace.document,
        csv_rows=csv_rows.of_trace,
    ),
    "doctor": Kind(
        document=doctor.document,
        csv_rows=csv_rows.of_doctor,
    ),
    "fleet": Kind(
        document=fleet.document,
        csv_rows=csv_rows.of_fleet,
    ),
    "comparison": Kind(
        document=comparison.document,
        csv_rows=csv_rows.of_comparison,
    ),
    "forecast": Kind(
        document=forecast.document,
        csv_rows=csv_rows.of_forecast,
    ),
}


def kind_of(result: Reportable) -> Kind:
    """Return how to report a result of any kind."""
    return KINDS[result.kind]


def document(result: Reportable) -> Document:
    """Return the report of a result of any kind."""
    return kind_of(result).document(result)


def latency_histograms(result: Reportable) -> dict[str, str]:
    """Return the encoded histogram of all dials of each rule, by its name; "" names a whole run."""
    return {
        measured.name: measured.summary.histogram_all
        for measured in kind_of(result).measured(result)
        if measured.summary.histogram_all
    }
