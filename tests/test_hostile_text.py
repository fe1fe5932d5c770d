"""Whatever names and rules hold, a report says it and does nothing: in each format, and live."""

import csv
import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from snat_race.cli import terminal as cli_terminal
from snat_race.report.document import (
    Check,
    CheckList,
    Column,
    Document,
    Importance,
    Section,
    Table,
)
from snat_race.report.live.panel import LivePanel
from snat_race.report.live.watch_table import live_table
from snat_race.report.renderers.csv import as_csv
from snat_race.report.renderers.html import page
from snat_race.report.renderers.ktap import ktap
from snat_race.report.renderers.markdown import markdown
from snat_race.report.renderers.text import text, verdict_line
from snat_race.report.terminal import PIPED_WIDTH, Terminal, printable, terminal_of
from snat_race.results.counters import CONNTRACK_COUNTERS, ConntrackDelta, CounterDelta
from tests.conftest import fork_cli

PIECES = (
    *(
        "\x1b[2J",
        "\x1b]0;x\x07",
        "\x9b1m",
        "\x00",
        "\x7f",
        "\r",
        "\n",
        "\t",
        "\u2028",
        "\u2029",
        "\x85",
        "\x0b",
    ),
    *("\u202e", "\u2066", "\u200f", "\u200b", "\ufeff", "\ud800", "\U000e0041", "é", "界"),
    *(
        "=cmd|'/c calc'!A0",
        "+1",
        "-2+3",
        "@SUM(A1)",
        "\uff1d1",
        " =1",
        "|",
        "[x](javascript:1)",
        "![i](h)",
        "`",
        "**",
    ),
    *(
        "<script>alert(1)</script>",
        "<!--",
        "&lt;",
        "#",
        "# SKIP",
        "not ok 1",
        "1. a",
        "> q",
        "---",
        "***",
        "\\",
    ),
    *('"', "'", "{{7*7}}", "{% x %}", "[/]", "[red]", "$x_$", "%s", "{0}", " ", "a"),
)
FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
HOSTILE = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join),
    st.text(st.characters(), max_size=40),
)
DOES_SOMETHING = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def document(word: str) -> Document:
    """One that holds a word wherever a document has text."""
    columns = (Column(heading=word, importance=Importance.key), Column(heading="n", number=True))
    table = Table(columns=columns, rows=((word, "1"), (word, word)))
    section = Section(
        title=word, introduction=(word,), table=table, sentences=(word, word), warnings=(word,)
    )
    return Document(
        title=word,
        verdict=word,
        meaning=word,
        facts=(word, word),
        origin=(word,),
        warnings=(word,),
        sections=(section,),
    )


def hostile(test: Any) -> Any:
    for piece in PIECES:
        test = example(piece)(test)
    return settings(max_examples=60)(given(HOSTILE)(test))


@hostile
def test_text_holds_nothing_that_a_terminal_obeys(word: str) -> None:
    for shown in (
        text(document(word), Terminal(width=40), full=True),
        text(document(word), Terminal(width=120), full=True),
        verdict_line(document(word)),
    ):
        assert not DOES_SOMETHING.search(shown)
    assert "\n" not in verdict_line(document(word))


@hostile
def test_markdown_has_the_shape_of_its_document_whatever_the_words(word: str) -> None:
    shown = markdown(document(word))
    assert not DOES_SOMETHING.search(shown)
    plain = markdown(document("word"))
    unescaped = re.sub(r"\\.", "x", shown)
    if not printable(word).strip():
        return
    assert len(shown.splitlines()) == len(plain.splitlines())
    # Besides our own marks there are none.
    for mark in "`<[~&":
        assert mark not in unescaped
    for theirs, ours in zip(unescaped.splitlines(), plain.splitlines(), strict=True):
        assert theirs.count("|") == ours.count("|")
        beginning = re.match(r"(#+ |- (\*\*)?|\*\*|\| |)", ours)
        assert beginning
        rest = theirs.removeprefix(beginning[0])
        if not beginning[0] or beginning[0] == "- ":
            assert not re.match(r"\s*([#>=+-]|[0-9]+[.)])", rest), theirs


@hostile
def test_csv_holds_no_formula_and_numbers_stay_numbers(word: str) -> None:
    rows = [{"a": word, word: 1, "n": -5, "f": -1.5e-9}, {"a": "ok", "n": -2}]
    shown = as_csv(rows)
    assert not DOES_SOMETHING.search(shown)
    read = list(csv.reader(io.StringIO(shown)))
    assert len(read) == 3
    cells = [cell for row in read for cell in row]
    numbers = {"-5", "-1.5e-09", "-2"}
    for cell in cells:
        assert cell in numbers or not cell.lstrip().startswith(FORMULAS)
    assert numbers <= set(cells) or word in ("n", "f")


@hostile
def test_ktap_has_one_result_for_each_check(word: str) -> None:
    checks = (
        Check(name=word, passed=True, evidence=(word, word)),
        Check(name=word, passed=False),
        Check(name=word, passed=None, why_skipped=word),
    )
    lines = ktap(CheckList(title=word, checks=checks)).split("\n")
    assert not any(DOES_SOMETHING.search(line) for line in lines)
    assert lines[0] == "KTAP version 1"
    assert lines[2] == "1..3"
    results = [line for line in lines[3:] if not line.startswith("#")]
    assert [re.match(r"(ok|not ok) [0-9]+ ", line)[0] for line in results] == [  # type: ignore[index]
        "ok 1 ",
        "not ok 2 ",
        "ok 3 ",
    ]
    assert ["# SKIP" in line for line in results] == [False, False, True]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, tuple(name for name, _ in attrs)))

    def handle_comment(self, data: str) -> None:
        self.seen.append(("comment", (data,)))


def tags(html: str) -> set[tuple[str, tuple[str, ...]]]:
    parser = Tags()
    parser.feed(html)
    return set(parser.seen)


@hostile
def test_a_page_has_no_other_tags_whatever_the_words(word: str) -> None:
    shown = page(document(word), ())
    assert not DOES_SOMETHING.search(shown)
    assert shown.encode()
    allowed = tags(page(document("word --word " + "long" * 20), ())) | tags(page(document(""), ()))
    assert tags(shown) <= allowed | {("code", ())}


def test_live_views_hold_nothing_that_a_terminal_obeys() -> None:
    delta = CounterDelta(
        netns="here",
        inode=0,
        began_at="2026-01-01T00:00:00.000000",
        elapsed_s=1.0,
        conntrack=ConntrackDelta(**{name: [1] for name in CONNTRACK_COUNTERS}, count=1, max=2),
        tcp={},
    )
    for word in PIECES:
        console = Console(file=io.StringIO(), force_terminal=False, width=200)
        console.print(live_table(word, delta, delta, 1))
        panel = LivePanel(Console(file=io.StringIO(), force_terminal=False))
        panel.print_above(word)
        panel._print_waiting()
        for shown in (console.file, panel._console.file):
            assert isinstance(shown, io.StringIO)
            assert not DOES_SOMETHING.search(shown.getvalue()), word


@pytest.mark.parametrize("word", PIECES)
def test_a_warning_and_a_line_of_a_run_hold_nothing_that_a_terminal_obeys(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli_terminal.warn(word)
    assert not DOES_SOMETHING.search(capsys.readouterr().err)
    assert "\n" not in cli_terminal.one_line(word)


@pytest.mark.parametrize(
    ("argument", "said"),
    [("a\x1b[31mb", "a?[31mb"), ("\udcff", r"'\udcff' is not UTF-8"), ("x" * 100_000, "x" * 200 + "...")],
)
def test_a_message_is_one_line_whatever_was_typed(argument: str, said: str) -> None:
    done = fork_cli("report", argument)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stderr) < 400
    assert not DOES_SOMETHING.search(done.stderr)


@pytest.mark.parametrize("columns", ["9" * 5000, "\u0663", "-1", "x", "", "0"])
def test_a_width_that_is_none_is_passed_over(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal_of(io.StringIO()).width == PIPED_WIDTH


@pytest.mark.parametrize("number", ["", "x", "1" * 5000])
def test_a_shell_that_asks_in_another_way_gets_one_line(number: str) -> None:
    asked = {"_SNAT_RACE_COMPLETE": "complete_bash", "COMP_WORDS": "snat-race l", "COMP_CWORD": number}
    done = fork_cli(**asked)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("snat_race: no shell that is known here asks like this: .*\n", done.stderr)
