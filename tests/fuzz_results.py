"""All that ``report`` and ``compare`` do with a file of results, for the fuzz targets."""

import os
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from zlib import crc32

from snat_race.analysis.comparison import compared
from snat_race.analysis.histogram import Histogram
from snat_race.analysis.race_window import window_for_forecast
from snat_race.analysis.thresholds import Thresholds
from snat_race.cli.limits import measured_in, require
from snat_race.cli.result_reader import read_all
from snat_race.cli.result_writer import json_text
from snat_race.errors import SnatRaceError, UsageError
from snat_race.report.registry import document, kind_of, latency_histograms
from snat_race.report.renderers.csv import as_csv
from snat_race.report.renderers.hgrm import distribution
from snat_race.report.renderers.html import page as html_page
from snat_race.report.renderers.markdown import markdown
from snat_race.report.renderers.text import text as in_text
from snat_race.report.terminal import Terminal
from tests.results import small_client, small_lab

OTHER_CLIENT, OTHER_LAB = (
    small_client("other", failed=5),
    small_lab().model_copy(update={"run_id": "other"}),
)
TERMINAL = Terminal(width=80, colour=True)
DRAWN_ONCE_IN = 40  # figures take half a second


def file_of(text: str) -> Path:
    """Return a file that is in memory only."""
    descriptor = os.memfd_create("result")
    os.write(descriptor, text.encode("utf-8", "surrogatepass"))
    return Path(f"/proc/self/fd/{descriptor}")


def reported(text: str) -> None:
    """Do with a file of results all that ``report`` and ``compare`` do."""
    path = file_of(text)
    try:
        result = read_all([path])
    finally:
        os.close(int(path.name))
    kind = kind_of(result)
    page = kind.document(result)
    rendered = [in_text(page, TERMINAL, full=True), markdown(page), json_text(result)]
    rendered.append(as_csv(kind.csv_rows(result)))
    figures = kind.figures(result)
    if crc32(text.encode("utf-8", "surrogatepass")) % DRAWN_ONCE_IN == 0:
        rendered.append(html_page(page, figures))
    histograms = map(Histogram.of, ([encoded] for encoded in latency_histograms(result).values()))
    rendered.extend(distribution(histogram, 1000.0) for histogram in histograms)
    limits = Thresholds(error_rate=0.001, p99_ns=1, race_losses=0)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), suppress(SnatRaceError):
        require(limits, measured_in(result), as_json=True)
    if kind.comparable:
        other = OTHER_LAB if result.kind == "lab" else OTHER_CLIENT
        with suppress(UsageError):
            comparisons = compared(kind.comparable("a", result), [kind_of(other).comparable("b", other)])
            rendered.append(in_text(document(comparisons), TERMINAL, full=True))
    if result.kind == "lab":
        with suppress(UsageError):
            window_for_forecast(result)
    assert all(isinstance(part, str) for part in rendered)
