"""The sentences of a forecast: for which traffic it is, what it comes to, what it assumes."""

from typing import Any

from snat_race.report.wording.formats import plural, significant
from snat_race.results.schema import Forecast

ASSUMPTION = (
    "Assumes connections that come independently and steadily; those that a timer or a retry sets off "
    "together lose more. A busy NAT's window is shorter and an idle one's longer: 'lab --window --caches'."
)

NO_INTERVAL = "How far this window may be off is not known, because it was given and not measured."


def traffic(spec: dict[str, Any]) -> str:
    """Return the traffic that is forecast; ``spec``: the settings, as JSON has them."""
    destinations = "one destination"
    if spec["destinations"] > 1:
        destinations = plural(spec["destinations"], "destination")
    apart = f", spread over {plural(spec['cpus'], 'CPU')}" if spec["cpus"] else ""
    return (
        f"{plural(spec['containers'], 'container')} behind one address, each opening "
        f"{plural(spec['rate_per_container'], 'connection')} a second to {destinations} from "
        f"{plural(spec['ports'], 'ephemeral port')}{apart}."
    )


def verdict(forecast: Forecast) -> str:
    """Return what is lost, in one sentence."""
    return (
        f"{significant(forecast.kept_ports)} SYNs lost an hour if the NAT keeps source ports, "
        f"{significant(forecast.drawn_ports)} if it draws them."
    )
