"""``forecast``: what ordinary traffic loses, from the window."""

import sys
from json import JSONDecodeError, dumps, loads
from pathlib import Path
from typing import Any

from snat_race.commands import arguments, first
from snat_race.errors import UsageError
from snat_race.kernel import host
from snat_race.options import ForecastOptions


def forecast(
    containers: arguments.ForecastContainers,
    rate_per_container: arguments.RatePerContainer,
    result: arguments.FromResult = None,
    window_ns: arguments.WindowNs = None,
    destinations: arguments.Destinations = 1,
    ports: arguments.EphemeralPorts = None,
    cpus: arguments.SharedCpus = 0,
    json: arguments.Json = False,
) -> None:
    """Predict the SYNs that ordinary traffic loses an hour, with and without randomised ports."""
    from snat_race.analysis.forecast import Traffic
    from snat_race.analysis.forecast import forecast as predict
    from snat_race.report.forecast import forecast_text

    if (result is None) == (window_ns is None):
        raise UsageError("--from: give a lab result that holds a window, or --window-ns, and not both")
    given = window_ns or 0.0
    window, interval = _window_of(result) if result else (given, (given, given))
    low, high = host.local_port_range()
    options = ForecastOptions(
        window_ns=window,
        window_ns_ci95=interval,
        containers=containers,
        rate_per_container=rate_per_container,
        destinations=destinations,
        ports=first(ports, high - low + 1),
        cpus=cpus,
    )
    traffic = Traffic(containers, rate_per_container, destinations, options.ports, cpus)
    found = predict(options.window_ns, options.window_ns_ci95, traffic)
    if json:
        print(dumps({"event": "forecast", "spec": options.spec()} | found.model_dump(mode="json")))
    else:
        print(forecast_text(options.spec(), found))


def _window_of(path: Path) -> tuple[float, tuple[float, float]]:
    """Return the window in a lab's result, and its interval.

    Raises:
        UsageError: it cannot be read, is no lab's result, or holds no window.

    """
    from pydantic import ValidationError

    from snat_race.analysis.result import LabResult
    from snat_race.analysis.window import too_short

    try:
        document: Any = loads(path.read_text())
        result = LabResult.model_validate(document)
    except OSError as failed:
        raise UsageError(f"--from: cannot read {path}: {failed.strerror}") from failed
    except (UnicodeDecodeError, JSONDecodeError, ValidationError) as failed:
        raise UsageError(f"--from: {path} is no result of 'snat-race lab --output'") from failed
    if not result.window:
        raise UsageError(
            f"--from: {path} holds no window; measure it with 'snat-race lab --window --output FILE'"
        )
    window = result.window
    if too_short(window):
        print(
            f"warning: --from: the window in {path} is longer than was measured, so more is lost",
            file=sys.stderr,
        )
    drawing = [each.name for each in result.variants if each.drawn_ports]
    if window.variant in drawing or not window.collisions:
        raise UsageError(
            f"--from: the window in {path} is of '{window.variant}', which does not keep source ports or "
            "never collided; measure that of 'masquerade'"
        )
    return window.window_ns, window.window_ns_ci95
