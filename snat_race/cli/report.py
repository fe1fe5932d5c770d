"""``report``: results that were kept, merged and shown."""

import sys
from typing import TYPE_CHECKING

from snat_race.cli import help_text, parameters
from snat_race.cli.limits import measured_in, require
from snat_race.cli.parameters import ReportFormat
from snat_race.cli.program import keep_all_objects, this_program
from snat_race.cli.result_writer import deliver, json_text, require_output
from snat_race.errors import UsageError

if TYPE_CHECKING:
    from snat_race.cli.result_reader import AnyResult
    from snat_race.report.terminal import Terminal

_HGRM_UNIT_NS = 1000.0

EXAMPLES = help_text.examples(
    ("Merge two clients and a watch of their NAT", "snat-race report one.json two.json watch.json"),
    ("One table of many hosts, from 'doctor --json' of each", "snat-race report doctor-*.json"),
    ("Make a page with figures", "snat-race report lab.json --format html -o lab.html"),
)


def report(
    files: parameters.Results,
    form: parameters.ReportAs = ReportFormat.text,
    output: parameters.ReportOutput = None,
    variant: parameters.OneVariant = None,
    details: parameters.Details = False,
    max_error_rate: parameters.MaxErrorRate = None,
    max_p99: parameters.MaxP99 = None,
    max_race_losses: parameters.MaxRaceLosses = None,
    quiet: parameters.QuietVerdict = False,
    _schema: parameters.Schema = False,
) -> None:
    """Show a result; or merge those of several clients and watches, exactly; or of doctor on many hosts."""
    from snat_race.analysis.thresholds import Thresholds
    from snat_race.cli.result_reader import read_all
    from snat_race.report.registry import document
    from snat_race.report.renderers.text import verdict_line
    from snat_race.report.terminal import FILE, terminal_of

    keep_all_objects()
    limits = Thresholds(error_rate=max_error_rate, p99_ns=max_p99, race_losses=max_race_losses)
    if quiet and form is not ReportFormat.text:
        raise UsageError("--quiet: is of the text; drop --format")
    if variant is not None and form is not ReportFormat.hgrm:
        raise UsageError("--variant: chooses the rule of --format hgrm; drop it")
    if details and (quiet or form is not ReportFormat.text):
        raise UsageError("--details: is of the whole text; drop --quiet and --format")
    require_output(output, files)
    result = read_all(files)
    measured = measured_in(result) if limits else ()
    terminal = FILE if output else terminal_of(sys.stdout)
    if quiet:
        text = verdict_line(document(result), terminal)
    else:
        text = _formed(result, form, variant, terminal, full=details)
    deliver(text, output)
    if limits:
        require(limits, measured, as_json=form not in (ReportFormat.text, ReportFormat.markdown))


def _formed(
    result: "AnyResult", form: ReportFormat, variant: str | None, terminal: "Terminal", *, full: bool
) -> str:
    """Return a result in the form that was asked for; ``full`` concerns text only."""
    from snat_race.report import registry
    from snat_race.report.renderers.csv import as_csv
    from snat_race.report.renderers.markdown import markdown
    from snat_race.report.renderers.text import text
    from snat_race.report.terminal import FILE

    kind = registry.kind_of(result)
    if form is ReportFormat.json:
        return json_text(result)
    if form is ReportFormat.csv:
        return as_csv(kind.csv_rows(result))
    if form is ReportFormat.hgrm:
        return _hgrm(result, variant)
    if form is ReportFormat.html:
        from snat_race.report.renderers.html import page

        return page(kind.document(result), kind.figures(result))
    if form is ReportFormat.markdown:
        return markdown(kind.document(result))
    shown = kind.document(result)
    # A file may be read on another machine; what is printed is read here, as what the run itself printed.
    return text(shown if terminal is FILE else this_program().addressed(shown), terminal, full=full)


def _hgrm(result: "AnyResult", variant: str | None) -> str:
    """Return the distribution of all latencies of a run, or of one rule of a lab.

    Raises:
        UsageError: there is none, or there are several and none, or no such one, was chosen.

    """
    from snat_race.analysis.histogram import Histogram
    from snat_race.report.registry import latency_histograms
    from snat_race.report.renderers.hgrm import distribution

    histograms = latency_histograms(result)
    if not histograms:
        raise UsageError(
            f"--format hgrm: a {result.kind} result has no latencies; give a client's or a lab's"
        )
    if variant is None and len(histograms) == 1:
        (variant,) = histograms
    if variant not in histograms:
        what = "takes one rule" if variant is None else f"has no rule {variant!r}"
        names = ", ".join(map(repr, histograms))
        raise UsageError(f"--variant: --format hgrm {what}; choose one of {names}")
    return distribution(Histogram.of([histograms[variant]]), _HGRM_UNIT_NS).rstrip("\n")
