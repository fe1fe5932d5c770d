"""``compare``: tells whether it is better than before."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from snat_race.cli.report import Into
from snat_race.cli.result_writer import require_other_than, require_writable, write_atomically
from snat_race.errors import ThresholdExceeded, UsageError

if TYPE_CHECKING:
    from snat_race.analysis.comparison import Comparable, Compared


class Shown(StrEnum):
    """What a comparison looks like."""

    text = "text"
    markdown = "markdown"
    json = "json"


class Outcome(StrEnum):
    """What may fail a comparison."""

    more = "more"
    fewer = "fewer"
    inconclusive = "inconclusive"


Results = Annotated[
    list[Path], Argument(metavar="BASE OTHER...", help="Results of the same kind, the baseline first.")
]
AsShown = Annotated[Shown, Option("--format", help="What to make of them.")]
FailIf = Annotated[
    list[Outcome] | None,
    Option("--fail-if", help="Exit 3 if any has more losses than the baseline, or ...; repeatable."),
]


def compare(
    files: Results,
    form: AsShown = Shown.text,
    output: Into = None,
    fail_if: FailIf = None,
) -> None:
    """Compare loss rates with those of the first result: fewer, more, no difference detected."""
    from snat_race.analysis.comparison import compared

    if len(files) < 2:
        raise UsageError("compare: takes two results or more, the baseline first")
    if output:
        require_other_than(output, files)
        require_writable(output)
    base, *others = _comparable(files)
    result = compared(base, others)
    text = _formed(result, form)
    if output:
        write_atomically(output, text + "\n")
    else:
        print(text)
    outcomes = {each.outcome.value for each in result.comparisons}
    if failed := [each.value for each in fail_if or () if each.value in outcomes]:
        raise ThresholdExceeded(f"--fail-if {failed[0]}: it is so")


def _comparable(files: list[Path]) -> "list[Comparable]":
    """Read the results.

    Raises:
        UsageError: one cannot be compared with the first.

    """
    from snat_race.analysis.comparison import comparable_client, comparable_lab
    from snat_race.cli.result_reader import read
    from snat_race.results.schema import ClientResult, LabResult, MergedResult

    found: list[Comparable] = []
    for path in files:
        result = read(path)
        if not isinstance(result, ClientResult | LabResult | MergedResult):
            raise UsageError(
                f"{path}: a {result.kind} result has no dials to compare; give a client's or a lab's"
            )
        if found and isinstance(result, LabResult) != isinstance(found[0].result, LabResult):
            raise UsageError(
                f"{path}: a {result.kind} result is not to be compared with {files[0]}, "
                f"a {found[0].result.kind} result"
            )
        if any(each.result.run_id == result.run_id for each in found):
            raise UsageError(f"{path}: is the same run as another; give two runs")
        if isinstance(result, LabResult):
            found.append(comparable_lab(str(path), result))
        else:
            found.append(comparable_client(str(path), result))
    return found


def _formed(result: "Compared", form: Shown) -> str:
    from snat_race.report.builders.comparison import compared
    from snat_race.report.renderers.text import markdown, text

    if form is Shown.json:
        return result.model_dump_json(indent=1)
    return (markdown if form is Shown.markdown else text)(compared(result))
