"""``doctor``: tells whether a host is exposed, and whether a measurement there would be clean."""

import typer

from snat_race.commands import arguments
from snat_race.errors import UsageError
from snat_race.options import MOST_WORKERS

_EXPOSED, _COULD_NOT_LOOK = 3, 4


def doctor(
    netns: arguments.Netns = None,
    workers: arguments.PlannedWorkers = 0,
    json: arguments.Json = False,
) -> None:
    """Look for SNAT rules that race and for settings that blur a measurement; change nothing."""
    from snat_race.doctor import examine
    from snat_race.kernel import places
    from snat_race.report.doctor import doctor_report

    if not 0 <= workers <= MOST_WORKERS:
        raise UsageError(f"--workers: {workers} is out of range; give 1 to {MOST_WORKERS}")
    result = examine(places.find(netns, "--netns") if netns is not None else places.here(), workers)
    print(result.model_dump_json() if json else doctor_report(result))
    if result.has("exposed"):
        raise typer.Exit(_EXPOSED)
    if result.has("unknown"):
        raise typer.Exit(_COULD_NOT_LOOK)
