"""``doctor``: tells whether a host is exposed, and whether a measurement there would be clean."""

import typer

from snat_race.cli import parameters
from snat_race.cli.parsing import naming
from snat_race.cli.program import this_program
from snat_race.errors import UsageError
from snat_race.lab.settings import MOST_WORKERS

_EXPOSED, _COULD_NOT_LOOK = 3, 4


def doctor(
    netns: parameters.Netns = None,
    workers: parameters.PlannedWorkers = 0,
    json: parameters.Json = False,
) -> None:
    """Look for SNAT rules that race and for settings that blur a measurement; change nothing."""
    from snat_race.kernel import netns_lookup
    from snat_race.report.builders.doctor import doctor_report
    from snat_race.results.findings import Level
    from snat_race.runs.doctor import examine

    if not 0 <= workers <= MOST_WORKERS:
        raise UsageError(f"--workers: {workers} is out of range; give 1 to {MOST_WORKERS}")
    with naming("--netns"):
        namespace = netns_lookup.here() if netns is None else netns_lookup.find(netns)
    result = examine(namespace, workers)
    print(result.model_dump_json() if json else doctor_report(result, this_program()))
    if result.has(Level.EXPOSED):
        raise typer.Exit(_EXPOSED)
    if result.has(Level.UNKNOWN):
        raise typer.Exit(_COULD_NOT_LOOK)
