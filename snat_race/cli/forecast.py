"""``forecast``: what ordinary traffic loses, from the window."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from snat_race.cli import help_text, parameters
from snat_race.cli.parsing import naming
from snat_race.cli.terminal import print_document, warn
from snat_race.errors import UsageError
from snat_race.runs.settings import ForecastSettings

if TYPE_CHECKING:
    from snat_race.results.schema import Window

EXAMPLES = help_text.examples(
    (
        "With the window that a lab measured",
        "snat-race forecast --from lab.json --containers 20 --rate-per-container 50",
    ),
    (
        "With a window of 1.3 us",
        "snat-race forecast --window-ns 1300 --containers 20 --rate-per-container 50",
    ),
)


def forecast(
    containers: parameters.ForecastContainers,
    rate_per_container: parameters.RatePerContainer,
    result: parameters.FromResult = None,
    window_ns: parameters.WindowNs = None,
    destinations: parameters.Destinations = 1,
    ports: parameters.EphemeralPorts = None,
    cpus: parameters.SharedCpus = 0,
    json: parameters.Json = False,
    quiet: parameters.QuietVerdict = False,
) -> None:
    """Predict the SYNs that ordinary traffic loses an hour, with and without randomised ports."""
    from snat_race.analysis.forecast import Traffic
    from snat_race.analysis.forecast import forecast as predict
    from snat_race.kernel import host
    from snat_race.report.builders.forecast import Prediction, document

    if result and not window_ns:
        window = _window_of(result)
        window_ns, window_ns_ci95 = window.window_ns, window.window_ns_ci95
    elif window_ns and not result:
        window_ns_ci95 = None
    else:
        raise UsageError("--from: give a lab's result that holds a window, or --window-ns, and not both")
    low, high = host.local_port_range()
    settings = ForecastSettings(
        window_ns=window_ns,
        window_ns_ci95=window_ns_ci95,
        containers=containers,
        rate_per_container=rate_per_container,
        destinations=destinations,
        ports=ports or high - low + 1,
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
        from snat_race.cli.events import print_event

        print_event("forecast", {"spec": settings.spec()} | expected.model_dump(mode="json"))
    else:
        prediction = Prediction(spec=settings.spec(), forecast=expected)
        print_document(document(prediction), sys.stdout, quiet=quiet)


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
        warn(f"--from: the window in {path} is longer than was measured, so more is lost")
    return window
