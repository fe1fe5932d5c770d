"""``report``: results that were kept, merged and shown."""

from typing import TYPE_CHECKING

from snat_race.cli import help_text, parameters
from snat_race.cli.limits import require
from snat_race.cli.parameters import ReportFormat
from snat_race.cli.result_writer import json_text, require_other_than, require_writable, write_atomically
from snat_race.errors import UsageError

if TYPE_CHECKING:
    from snat_race.cli.result_reader import AnyResult
    from snat_race.results.conclusions import Cause
    from snat_race.results.schema import Summary

EXAMPLES = help_text.examples(
    ("Show one result", "snat-race report lab.json"),
    ("Merge two clients and a watch of their NAT", "snat-race report one.json two.json watch.json"),
    ("Make a page with figures", "snat-race report lab.json --format html -o lab.html"),
)


def report(
    files: parameters.Results,
    form: parameters.ReportAs = ReportFormat.text,
    output: parameters.ReportOutput = None,
    max_error_rate: parameters.MaxErrorRate = None,
    max_p99: parameters.MaxP99 = None,
    max_race_losses: parameters.MaxRaceLosses = None,
    quiet: parameters.QuietVerdict = False,
    _schema: parameters.Schema = False,
) -> None:
    """Show a result; or merge those of several clients and of watches of their nodes, exactly."""
    from snat_race.analysis.thresholds import Thresholds
    from snat_race.cli.result_reader import read_all

    limits = Thresholds(error_rate=max_error_rate, p99_ns=max_p99, race_losses=max_race_losses)
    if quiet and form is not ReportFormat.text:
        raise UsageError("--quiet: is of the text; drop --format")
    if output:
        require_other_than(output, files)
        require_writable(output)
    result = read_all(files)
    measured = _measured(result) if limits else []
    text = _verdict(result) if quiet else _formed(result, form)
    if output:
        write_atomically(output, text + "\n")
    else:
        print(text)
    if limits:
        require(limits, measured, as_json=form not in (ReportFormat.text, ReportFormat.markdown))


def _measured(result: "AnyResult") -> "list[tuple[str, Summary, list[Cause]]]":
    from snat_race.results.schema import ClientResult, LabResult, MergedResult

    if isinstance(result, LabResult):
        return [(each.name, each.summary, each.diagnosis) for each in result.variants]
    if isinstance(result, ClientResult | MergedResult):
        return [("", result.summary, result.diagnosis)]
    raise UsageError(
        f"a {result.kind} result has no dials to hold to a limit; give that of a client or a lab"
    )


def _verdict(result: "AnyResult") -> str:
    from snat_race.report.builders.documents import document

    return document(result).verdict


def _formed(result: "AnyResult", form: ReportFormat) -> str:
    from snat_race.report.builders.documents import document
    from snat_race.report.renderers import text as forms
    from snat_race.report.renderers.csv import as_csv, as_hgrm

    if form is ReportFormat.json:
        return json_text(result)
    if form is ReportFormat.csv:
        return as_csv(result)
    if form is ReportFormat.hgrm:
        if found := as_hgrm(result):
            return found
        raise UsageError(
            f"--format hgrm: a {result.kind} result has no latencies; give a client's or a lab's"
        )
    if form is ReportFormat.html:
        from snat_race.report.renderers.html import page

        return page(document(result), result)
    return (forms.markdown if form is ReportFormat.markdown else forms.text)(document(result))
