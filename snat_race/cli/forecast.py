"""``forecast``: what ordinary traffic loses, from the window."""

import sys
from json import JSONDecodeError, dumps, loads
from pathlib import Path
from typing import Any

from snat_race.cli import parameters
from snat_race.cli.parsing import first
from snat_race.errors import UsageError
from snat_race.kernel import host
from snat_race.runs.settings import ForecastSettings


def forecast(
    containers: parameters.ForecastContainers,
    rate_per_container: parameters.RatePerContainer,
    result: parameters.FromResult = None,
    window_ns: parameters.WindowNs = None,
    destinations: parameters.Destinations = 1,
    ports: parameters.EphemeralPorts = None,
    cpus: parameters.SharedCpus = 0,
    json: parameters.Json = False,
) -> None:
    """Predict the SYNs that ordinary traffic loses an hour, with and without randomised ports."""
    from snat_race.analysis.forecast import Traffic
    from snat_race.analysis.forecast import forecast as predict
    from snat_race.report.builders.forecast import forecast_text

    if (result is None) == (window_ns is None):
        raise UsageError("--from: give a lab result that holds a window, or --window-ns, and not both")
    given = window_ns or 0.0
    window, interval = _window_of(result) if result else (given, (given, given))
    low, high = host.local_port_range()
    options = ForecastSettings(
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

    from snat_race.analysis.race_window import too_short
    from snat_race.results.schema import LabResult

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
