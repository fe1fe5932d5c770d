"""One run of ``lab``: an experiment, until it is over or a signal comes -> a result."""

from collections.abc import Sequence
from dataclasses import fields

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
) -> LabResult:
    """Measure every variant; see :func:`experiment.run`, whose errors these are."""
    record = RunMetadata()
    with StopSignals() as interrupt:
        outcome = experiment.run(settings, scenario, variants, progress, interrupt)
    measured = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
    return LabResult(**record.fields(), spec=settings.spec(), **measured)
