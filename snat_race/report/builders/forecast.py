"""What ordinary traffic is expected to lose, as a document."""

from dataclasses import dataclass
from typing import Any, ClassVar

from snat_race.report.document import Column, Document, Importance, Section, Table
from snat_race.report.wording import forecasts
from snat_race.report.wording.formats import significant
from snat_race.results.schema import Forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A forecast and the traffic that it is for."""

    kind: ClassVar[str] = "forecast"
    # Settings of ``forecast``: the window in ns, and the traffic.
    spec: dict[str, Any]
    forecast: Forecast


def document(prediction: Prediction) -> Document:
    """Return the SYNs lost an hour, with and without randomised ports, and what that assumes."""
    forecast = prediction.forecast
    columns = [
        Column(heading="SYNs lost an hour", importance=Importance.key),
        Column(heading="expected", number=True, importance=Importance.main),
    ]
    sentences = [forecasts.ASSUMPTION]
    if forecast.kept_ports_ci95:
        columns.append(Column(heading="95 % interval of the window", number=True))
    else:
        sentences.insert(0, forecasts.NO_INTERVAL)
    rows = (
        _row(
            "the NAT keeps source ports (plain masquerade)", forecast.kept_ports, forecast.kept_ports_ci95
        ),
        _row("the NAT draws ports (--random-fully)", forecast.drawn_ports, forecast.drawn_ports_ci95),
    )
    section = Section(
        title="Forecast",
        table=Table(columns=tuple(columns), rows=rows),
        sentences=tuple(sentences),
    )
    return Document(
        title=f"snat_race forecast, race window {prediction.spec['window_ns']:,.0f} ns",
        facts=(forecasts.traffic(prediction.spec),),
        verdict=forecasts.verdict(forecast),
        sections=(section,),
    )


def _row(name: str, expected: float, interval: tuple[float, float] | None) -> tuple[str, ...]:
    if interval is None:
        return name, significant(expected)
    low, high = interval
    return name, significant(expected), f"{significant(low)} to {significant(high)}"
