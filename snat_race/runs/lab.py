"""One run of ``lab``: an experiment, until it is over or a signal comes -> a result."""

from collections.abc import Sequence

from snat_race.lab import experiment
from snat_race.lab.experiment import Progress
from snat_race.lab.scenarios import Scenario
from snat_race.lab.settings import LabSettings
from snat_race.lab.variants import Variant
from snat_race.results.schema import LabResult
from snat_race.runs.run_metadata import RunMetadata
from snat_race.runs.signals import StopSignals


def run(
    settings: LabSettings, scenario: Scenario, variants: Sequence[Variant], progress: Progress
) -> tuple[LabResult, Exception | None]:
    """Measure every variant; see :func:`experiment.run`, whose errors these are.

    Returns the result and, if a fault ended it early, that.
    """
    metadata = RunMetadata()
    with StopSignals() as stop:
        measurements = experiment.run(settings, scenario, variants, progress, cancelled=stop)
    result = LabResult(
        **metadata.fields(),
        spec=settings.spec(),
        interrupted=measurements.interrupted,
        variants=measurements.variants,
        unavailable=measurements.unavailable,
        verdict=measurements.verdict,
        window=measurements.window,
        warnings=measurements.warnings,
    )
    return result, measurements.fault
