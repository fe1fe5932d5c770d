"""Documents as text: whole at any width, and the same whoever prints them."""

import ast
import io
import os
import pty
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snat_race.report
from snat_race.cli.result_reader import read_all
from snat_race.report import registry
from snat_race.report.builders import lab_listing
from snat_race.report.document import Column, Document, Importance, Section, Table, Tone
from snat_race.report.renderers.text import text
from snat_race.report.terminal import PIPED_WIDTH, Terminal, bar, terminal_of
from snat_race.results import schema
from snat_race.results.model import Result
from tests.conftest import PRIVATE, RunningServer, fork_cli
from tests.results import (
    small_comparison,
    small_doctor,
    small_fleet,
    small_lab,
    small_prediction,
    small_trace,
)

Kept = Callable[..., Path]

BREAKABLE = 24  # a longer word may be broken
SIZES = [110, 80, 60, 40]


def documents(kept: Kept) -> dict[str, Document]:
    """A document of each kind, with a little of everything."""
    files = [kept("a", failed=7), kept("b", failed=5), kept("w", kind="watch", insert_failed=12)]
    return {
        "lab": registry.document(small_lab()),
        "client": registry.document(read_all(files[:1])),
        "merged": registry.document(read_all(files)),
        "watch": registry.document(read_all(files[2:])),
        "trace": registry.document(small_trace()),
        "doctor": registry.document(small_doctor()),
        "fleet": registry.document(small_fleet()),
        "comparison": registry.document(small_comparison()),
        "forecast": registry.document(small_prediction()),
    }


def words(document: Document) -> set[str]:
    """Every word that the document's cells and sentences hold."""
    parts = [document.title, document.verdict, document.meaning, *document.facts, *document.warnings]
    for section in document.sections:
        parts += [section.title.upper(), *section.introduction, *section.sentences, *section.warnings]
        if section.table:
            parts += [cell for row in section.table.rows for cell in row if cell != "-"]
    return {word for part in parts for word in part.split() if len(word) <= BREAKABLE}


def headings(document: Document) -> set[str]:
    """Every word of the headings of columns that are not empty."""
    tables = [section.table for section in document.sections if section.table]
    columns = [
        column
        for table in tables
        for column, cells in zip(table.columns, zip(*table.rows, strict=True), strict=True)
        if set(cells) - {"", "-"}
    ]
    return {word for column in columns for word in column.heading.split()}


@pytest.mark.parametrize("width", SIZES)
def test_every_kind_is_whole_at_any_width(kept: Kept, width: int) -> None:
    for kind, document in documents(kept).items():
        shown = text(document, Terminal(width=width), full=True)
        assert max(map(len, shown.splitlines())) <= width, kind
        assert words(document) <= set(shown.split()), kind
        assert headings(document) <= set(shown.replace(":", "").split()), kind


WORD = st.text("abcdefghij-", min_size=1, max_size=BREAKABLE)
CELL = st.lists(WORD, max_size=6).map(" ".join)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    below_key = st.sampled_from([level for level in Importance if level is not Importance.key])
    columns = [
        Column(heading="name", importance=Importance.key),
        *(
            Column(heading=f"c{number}", number=draw(st.booleans()), importance=draw(below_key))
            for number in range(draw(st.integers(0, 7)))
        ),
    ]
    cells = st.tuples(*(WORD if column.number else CELL for column in columns))
    rows = draw(st.lists(cells, min_size=1, max_size=4))
    return Table(columns=tuple(columns), rows=tuple(rows))


@given(tables(), st.integers(40, 120))
def test_any_table_fits_any_width_and_loses_no_word(table: Table, width: int) -> None:
    document = Document(title="t", sections=(Section(title="s", table=table),))
    shown = text(document, Terminal(width=width))
    assert max(map(len, shown.splitlines())) <= width
    expected = sorted(word for row in table.rows for cell in row for word in cell.split() if word != "-")
    found = shown.split()
    for word in expected:
        found.remove(word)


def test_text_wraps_in_its_cell_before_a_column_goes_below() -> None:
    columns = (
        Column(heading="cause", importance=Importance.key),
        Column(heading="losses", number=True, importance=Importance.main),
        Column(heading="evidence"),
        Column(heading="late", number=True, importance=Importance.extra),
    )
    row = ("snat_race", "72", "insert_failed +72, drop +72, found +487", "7")
    document = Document(
        title="t", sections=(Section(title="s", table=Table(columns=columns, rows=(row,))),)
    )
    assert text(document, Terminal(width=45)).splitlines()[3:] == [
        "cause      losses  evidence              late",
        "snat_race      72  insert_failed +72,       7",
        "                   drop +72, found +487",
    ]
    assert text(document, Terminal(width=30)).splitlines()[3:] == [
        "cause      losses",
        "snat_race      72",
        "    evidence: insert_failed",
        "      +72, drop +72, found",
        "      +487",
        "    late: 7",
    ]


def test_a_result_cannot_command_a_terminal() -> None:
    table = Table(columns=(Column(heading="rule"),), rows=(("\x1b]0;x\x07\x9b31m",),))
    document = Document(title="\x1b[2J", verdict="a\nb", sections=(Section(title="s", table=table),))
    shown = text(document, Terminal(colour=False))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)
    assert "Verdict: a b" in shown


def test_colours_are_for_verdicts_and_change_no_width(kept: Kept) -> None:
    for kind, document in documents(kept).items():
        plain = text(document, Terminal(width=60), full=True)
        coloured = text(document, Terminal(width=60, colour=True), full=True)
        assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain, kind
        assert ("\x1b" in coloured) == (document.tone is not None), kind


def test_bars_are_drawn_in_ascii_where_there_is_nothing_else(kept: Kept) -> None:
    assert (bar(0.5, 8, ascii_only=False), bar(0.5, 8, ascii_only=True)) == ("████", "####")
    assert (bar(0.001, 8, ascii_only=False), bar(0.001, 8, ascii_only=True)) == ("▏", "#")
    assert bar(0, 8, ascii_only=True) == ""
    for kind, document in documents(kept).items():
        assert text(document, Terminal(ascii_only=True), full=True).isascii(), kind


def test_what_a_stream_can_show(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for encoding, ascii_only in (("utf-8", False), ("ascii", True), ("iso-8859-1", True)):
        with (tmp_path / "x").open("w", encoding=encoding) as file:
            expected = Terminal(width=PIPED_WIDTH, colour=False, ascii_only=ascii_only)
            assert terminal_of(file) == expected
    _, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        assert terminal_of(terminal).colour
        assert terminal_of(terminal).width == PIPED_WIDTH, "it has no size of its own"
        monkeypatch.setenv("COLUMNS", "44")
        assert terminal_of(terminal).width == 44
        monkeypatch.setenv("NO_COLOR", "1")
        assert not terminal_of(terminal).colour
    assert not terminal_of(io.StringIO()).colour


@PRIVATE
@pytest.mark.parametrize("options", [(), ("--details",)])
def test_a_lab_and_the_report_of_its_file_print_the_same_bytes(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    out = tmp_path / "lab.json"
    done = fork_cli("lab", "--duration", "300ms", "-o", str(out), *options, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert fork_cli("report", str(out), *options, COLUMNS="80").stdout == done.stdout


def test_a_client_ends_with_the_report_of_its_file(server: RunningServer, tmp_path: Path) -> None:
    out = tmp_path / "client.json"
    done = fork_cli("client", "-r", server.address, "-d", "5000", "--duration", "1s", "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(fork_cli("report", str(out)).stdout)


def test_every_kind_of_result_is_in_the_registry() -> None:
    kinds = {
        model.model_fields["kind"].default
        for model in vars(schema).values()
        if isinstance(model, type) and issubclass(model, Result) and model is not Result
    }
    others = {"doctor", "fleet", "trace", "comparison", "forecast"}
    assert {kind for kind in kinds if isinstance(kind, str)} | others == registry.KINDS.keys()


def test_only_the_registry_knows_kinds_of_results() -> None:
    """No function of the report asks for a result's class."""
    for path in Path(snat_race.report.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                assert "Result" not in ast.unparse(node), path


def test_the_listing_of_the_lab_explains_each_by_name() -> None:
    class Thing:
        name, description = "masquerade", "as Docker has it"

    document = lab_listing.document([Thing()], [], variant_option="--variant", scenario_option="--scenario")
    shown = text(document)
    assert "masquerade  as Docker has it" in shown
    assert "Verdict" not in shown


def test_a_tone_is_for_each_outcome(kept: Kept) -> None:
    tones = {kind: document.tone for kind, document in documents(kept).items()}
    assert tones["lab"] is tones["client"] is Tone.bad
    assert tones["forecast"] is None
