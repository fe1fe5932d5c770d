"""``doctor``: tells whether a host is exposed, and whether a measurement there would be clean."""

import sys

import typer

from snat_race.cli import help_text, parameters
from snat_race.cli.parsing import namespace
from snat_race.cli.program import keep_all_objects, this_program
from snat_race.cli.terminal import print_document

_EXPOSED, _COULD_NOT_LOOK = 3, 4

EXAMPLES = help_text.examples(
    ("Look at this host", "sudo $(which snat-race) doctor"),
    ("Look into a container's own network", "sudo $(which snat-race) doctor --netns docker:web"),
    ("For a script: only the exit code and the verdict", "sudo $(which snat-race) doctor --quiet"),
)


def doctor(
    netns: parameters.Netns = None,
    workers: parameters.PlannedWorkers = None,
    json: parameters.Json = False,
    quiet: parameters.QuietVerdict = False,
) -> None:
    """Look for SNAT rules that race and for settings that blur a measurement; change nothing."""
    from snat_race.report.builders.doctor import document
    from snat_race.results.findings import Level
    from snat_race.runs.doctor import examine

    keep_all_objects()
    result = examine(namespace(netns), workers or 0)
    if json:
        from snat_race.cli.events import print_event

        print_event("result", result)
    else:
        print_document(document(result, this_program()), sys.stdout, quiet=quiet)
    if result.has(Level.exposed):
        raise typer.Exit(_EXPOSED)
    if result.has(Level.unknown):
        raise typer.Exit(_COULD_NOT_LOOK)
