"""A forecast as text."""

from typing import Any

from snat_race.report.builders.lab import wrapped
from snat_race.results.schema import Forecast

_ASSUMED = (
    "Assumes connections that come independently and steadily; those that a timer or a retry sets off "
    "together lose more. A busy NAT's window is shorter and an idle one's longer: 'lab --window --caches'."
)


def forecast_text(spec: dict[str, Any], found: Forecast) -> str:
    """Return a forecast, with what it assumes."""
    apart = f", spread over {spec['cpus']} CPUs" if spec["cpus"] else ""
    each = f"each opening {spec['rate_per_container']:g} connections a second"
    to = "one destination" if spec["destinations"] == 1 else f"{spec['destinations']:,} destinations"
    conditions = (
        f"{spec['containers']} containers behind one address, {each} to {to} from {spec['ports']:,} "
        f"ephemeral ports{apart}; race window {spec['window_ns']:,.0f} ns."
    )
    return "\n".join(
        (
            *wrapped(conditions),
            "",
            f"{'SYNs lost an hour':<46}{'expected':>10}   95 % interval of the window",
            _expected(
                "the NAT keeps source ports (plain masquerade)", found.kept_ports, found.kept_ports_ci95
            ),
            _expected("the NAT draws ports (--random-fully)", found.drawn_ports, found.drawn_ports_ci95),
            "",
            *wrapped(_ASSUMED),
        )
    )


def _expected(name: str, value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{name:<46}{value:>8.3g}   {low:.3g} to {high:.3g}"
