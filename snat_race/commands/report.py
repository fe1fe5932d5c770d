"""``report``: results that were kept, merged and shown."""

from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option

from snat_race.errors import UsageError
from snat_race.output import require_writable, write_atomically

if TYPE_CHECKING:
    from snat_race.reading import AnyResult


class Form(StrEnum):
    """What a report looks like."""

    text = "text"
    markdown = "markdown"
    json = "json"
    csv = "csv"
    html = "html"
    hgrm = "hgrm"


def _print_schema(wanted: bool) -> None:
    from snat_race.reading import schema

    if wanted:
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
    _schema: Schema = False,
) -> None:
    """Show a result; or merge those of several clients and of watches of their nodes, exactly."""
    from snat_race.reading import read_all

    if output:
        require_writable(output)
    text = _formed(read_all(files), form)
    if output:
        write_atomically(output, text + "\n")
    else:
        print(text)


def _formed(result: "AnyResult", form: Form) -> str:
    from snat_race.report import form as forms
    from snat_race.report.pages import document
    from snat_race.report.rows import as_csv, as_hgrm

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
        from snat_race.report.html import page

        return page(document(result), result)
    return (forms.markdown if form is Form.markdown else forms.text)(document(result))
