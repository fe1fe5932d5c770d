"""What the lab can measure and stage, as a document."""

from collections.abc import Iterable
from typing import Protocol

from snat_race.report.document import Column, Document, Importance, Section, Table


class Explained(Protocol):
    """A variant or a scenario."""

    @property
    def name(self) -> str:
        """What an option takes."""

    @property
    def description(self) -> str:
        """What it is, in a phrase."""


def document(
    variants: Iterable[Explained],
    scenarios: Iterable[Explained],
    *,
    variant_option: str,
    scenario_option: str,
) -> Document:
    """Name and explain the variants and the scenarios, and name the option that takes each."""
    return Document(
        title="What snat_race lab measures",
        sections=(
            _section("Variants", variants, variant_option),
            _section("Scenarios", scenarios, scenario_option),
        ),
    )


def _section(title: str, things: Iterable[Explained], option: str) -> Section:
    columns = (Column(heading="name", importance=Importance.key), Column(heading="what it is"))
    rows = tuple((thing.name, thing.description) for thing in things)
    return Section(
        title=title,
        introduction=(f"{option} NAME takes one of these:",),
        table=Table(columns=columns, rows=rows),
    )
