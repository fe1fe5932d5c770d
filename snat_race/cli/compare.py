"""``compare``: tells whether it is better than before."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from snat_race.cli import help_text, parameters
from snat_race.cli.parameters import ComparisonFormat
from snat_race.cli.program import keep_all_objects
from snat_race.cli.result_writer import deliver, json_text, require_output
from snat_race.errors import ThresholdExceeded, UsageError

if TYPE_CHECKING:
    from snat_race.analysis.comparison import Comparable, Compared
    from snat_race.report.terminal import Terminal

EXAMPLES = help_text.examples(
    ("Before and after a change", "snat-race compare before.json after.json"),
    (
        "For a pipeline: exit 3 if there are more losses",
        "snat-race compare --fail-if more before.json after.json",
    ),
)


def compare(
    files: parameters.ComparedResults,
    form: parameters.CompareAs = ComparisonFormat.text,
    output: parameters.ReportOutput = None,
    fail_if: parameters.FailIfAny = None,
    quiet: parameters.QuietVerdict = False,
) -> None:
    """Compare loss rates with those of the first result: fewer, more, no difference detected."""
    from snat_race.analysis.comparison import compared
    from snat_race.report.terminal import FILE, terminal_of

    keep_all_objects()
    if len(files) < 2:
        raise UsageError("compare: takes two results or more, the baseline first")
    if quiet and form is not ComparisonFormat.text:
        raise UsageError("--quiet: is of the text; drop --format")
    require_output(output, files)
    base, *others = _comparable(files)
    result = compared(base, others)
    text = _formed(result, form, FILE if output else terminal_of(sys.stdout), quiet=quiet)
    deliver(text, output)
    for unwanted in fail_if or ():
        names = [
            comparison.other.name
            for comparison in result.comparisons
            if comparison.outcome.value == unwanted.value
        ]
        if names:
            raise ThresholdExceeded(f"--fail-if {unwanted}: holds for {', '.join(names)}")


def _comparable(files: list[Path]) -> "list[Comparable]":
    """Read the results.

    Raises:
        UsageError: one cannot be compared with the first.

    """
    from snat_race.cli.result_reader import read
    from snat_race.report.registry import kind_of

    comparables: list[Comparable] = []
    for path in files:
        result = read(path)
        comparable = kind_of(result).comparable
        if not comparable:
            raise UsageError(
                f"{path}: a {result.kind} result has no dials to compare; give a client's or a lab's"
            )
        if comparables and (result.kind == "lab") != (comparables[0].result.kind == "lab"):
            raise UsageError(
                f"{path}: is a {result.kind} result, and {files[0]} is a {comparables[0].result.kind} "
                "result; compare two labs, or two clients"
            )
        if any(earlier.result.run_id == result.run_id for earlier in comparables):
            raise UsageError(f"{path}: is the same run as another; give two runs")
        comparables.append(comparable(str(path), result))
    return comparables


def _formed(result: "Compared", form: ComparisonFormat, terminal: "Terminal", *, quiet: bool) -> str:
    from snat_race.report.builders.comparison import document
    from snat_race.report.renderers.markdown import markdown
    from snat_race.report.renderers.text import text, verdict_line

    if form is ComparisonFormat.json:
        return json_text(result)
    if form is ComparisonFormat.markdown:
        return markdown(document(result))
    return verdict_line(document(result), terminal) if quiet else text(document(result), terminal)
