"""``report``: results that were kept, merged and shown."""

from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Context, Exit, Option

from snat_race.cli import parameters
from snat_race.cli.limits import gathered, require
from snat_race.cli.result_writer import require_other_than, require_writable, write_atomically
from snat_race.errors import UsageError

if TYPE_CHECKING:
    from snat_race.cli.result_reader import AnyResult
    from snat_race.results.conclusions import Cause
    from snat_race.results.schema import Summary


class Form(StrEnum):
    """What a report looks like."""

    text = "text"
    markdown = "markdown"
    json = "json"
    csv = "csv"
    html = "html"
    hgrm = "hgrm"


def _print_schema(context: Context, wanted: bool) -> None:
    from snat_race.cli.result_reader import schema

    if wanted and not context.resilient_parsing:  # a shell only asks what could follow
        print(dumps(schema(), indent=1))
        raise Exit


Files = Annotated[
    list[Path], Argument(metavar="FILE...", help="Results: files of --output, or streams of --json.")
]
AsForm = Annotated[Form, Option("--format", help="What to make of them.")]
Into = Annotated[
    Path | None, Option("--output", "-o", metavar="FILE", help="Write it to FILE; by default, to stdout.")
]
Schema = Annotated[
    bool,
    Option(
        "--schema",
        callback=_print_schema,
        is_eager=True,
        help="Print the JSON Schema of results, and stop.",
    ),
]


def report(
    files: Files,
    form: AsForm = Form.text,
    output: Into = None,
    max_error_rate: parameters.MaxErrorRate = None,
    max_p99: parameters.MaxP99 = None,
    max_race_losses: parameters.MaxRaceLosses = None,
    _schema: Schema = False,
) -> None:
    """Show a result; or merge those of several clients and of watches of their nodes, exactly."""
    from snat_race.cli.result_reader import read_all

    limits = gathered(max_error_rate, max_p99, max_race_losses)
    if output:
        require_other_than(output, files)
        require_writable(output)
    result = read_all(files)
    measured = _measured(result) if limits else []
    text = _formed(result, form)
    if output:
        write_atomically(output, text + "\n")
    else:
        print(text)
    if limits:
        require(limits, measured, as_json=form not in (Form.text, Form.markdown))


def _measured(result: "AnyResult") -> "list[tuple[str, Summary, list[Cause]]]":
    from snat_race.results.schema import ClientResult, LabResult, MergedResult

    if isinstance(result, LabResult):
        return [(each.name, each.summary, each.diagnosis) for each in result.variants]
    if isinstance(result, ClientResult | MergedResult):
        return [("", result.summary, result.diagnosis)]
    raise UsageError(
        f"a {result.kind} result has no dials to hold to a limit; give that of a client or a lab"
    )


def _formed(result: "AnyResult", form: Form) -> str:
    from snat_race.report.builders.documents import document
    from snat_race.report.renderers import text as forms
    from snat_race.report.renderers.csv import as_csv, as_hgrm

    if form is Form.json:
        return result.model_dump_json(indent=1)
    if form is Form.csv:
        return as_csv(result)
    if form is Form.hgrm:
        if found := as_hgrm(result):
            return found
        raise UsageError(
            f"--format hgrm: a {result.kind} result has no latencies; give a client's or a lab's"
        )
    if form is Form.html:
        from snat_race.report.renderers.html import page

        return page(document(result), result)
    return (forms.markdown if form is Form.markdown else forms.text)(document(result))
