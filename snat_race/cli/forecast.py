"""``forecast``: what ordinary traffic loses, from the window."""

import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from snat_race.cli import parameters
from snat_race.cli.parsing import first, naming
from snat_race.errors import UsageError
from snat_race.kernel import host
from snat_race.runs.settings import ForecastSettings

if TYPE_CHECKING:
    from snat_race.results.schema import Window


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
    from snat_race.results.model import SCHEMA_VERSION

    if (result is None) == (window_ns is None):
        raise UsageError("--from: give a lab result that holds a window, or --window-ns, and not both")
    if result:
        window = _window_of(result)
        window_ns, window_ns_ci95 = window.window_ns, window.window_ns_ci95
    else:
        window_ns = window_ns or 0.0
        window_ns_ci95 = window_ns, window_ns
    low, high = host.local_port_range()
    settings = ForecastSettings(
        window_ns=window_ns,
        window_ns_ci95=window_ns_ci95,
        containers=containers,
        rate_per_container=rate_per_container,
        destinations=destinations,
        ports=first(ports, high - low + 1),
        cpus=cpus,
    )
    traffic = Traffic(
        containers=settings.containers,
        rate_per_s=settings.rate_per_container,
        destinations=settings.destinations,
        ports=settings.ports,
        cpus=settings.cpus,
    )
    expected = predict(settings.window_ns, settings.window_ns_ci95, traffic)
    if json:
        event = {"event": "forecast", "schema_version": SCHEMA_VERSION, "spec": settings.spec()}
        print(dumps(event | expected.model_dump(mode="json")))
    else:
        print(forecast_text(settings.spec(), expected))


def _window_of(path: Path) -> "Window":
    """Return the window in a lab's result.

    Raises:
        UsageError: it cannot be read, is no lab's result, or holds no window to predict from.

    """
    from snat_race.analysis.race_window import exceeds_sweep, window_for_forecast
    from snat_race.cli.result_reader import read

    with naming("--from"):
        result = read(path)
        if result.kind != "lab":
            raise UsageError(f"{path}: is a {result.kind} result; give one of 'snat-race lab --output'")
        try:
            window = window_for_forecast(result)
        except UsageError as unfit:
            raise UsageError(f"{path}: {unfit}: 'snat-race lab --window --output FILE'") from unfit
    if exceeds_sweep(window):
        print(
            f"warning: --from: the window in {path} is longer than was measured, so more is lost",
            file=sys.stderr,
        )
    return window
