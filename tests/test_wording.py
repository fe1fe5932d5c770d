"""Results are data, and report/wording has a sentence for each; nothing reads a sentence to decide."""

import ast
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snat_race.analysis.comparison import Compared, ComparisonOutcome
from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.verdict import outcome_of
from snat_race.cli.result_reader import schema
from snat_race.report.wording import causes, verdicts, warnings
from snat_race.results import conclusions
from snat_race.results.conclusions import (
    Advice,
    CandidateCause,
    Cause,
    CauseName,
    MeasurementWarning,
    Outcome,
    VerdictReason,
    WarningKind,
)
from snat_race.results.counters import CONNTRACK_COUNTERS, ConntrackDelta, KernelCounters
from snat_race.results.findings import Undo
from snat_race.results.nat import Nat
from snat_race.results.schema import Started
from tests.conftest import ROOT
from tests.results import lost

PACKAGE = ROOT / "snat_race"
LOWER_FLOORS = ("runs", "lab", "analysis", "load", "rules", "kernel", "results")
WORDING = ("causes", "verdicts", "warnings")
# They read what other programs say: click's errors, and those of iptables.
READ_OTHERS = {"cli/mistakes.py", "rules/loader.py"}
LOOKING = {"startswith", "endswith", "removeprefix", "removesuffix", "partition", "find", "index", "count"}

TCP = ("ListenDrops", "ListenOverflows", "TCPReqQFullDrop", "IpOutNoRoutes", "TCPSYNChallenge", "PAWSEstab")
ROUTES = ("IPReversePathFilter", "IpExtInNoRoutes", "IcmpInDestUnreachs")
ERRORS = ("TIMEOUT", "ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "EADDRNOTAVAIL", "EMFILE", "EPROTO")


def modules(*rooms: str) -> Iterator[tuple[str, ast.Module]]:
    for room in rooms:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text())


def texts(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def sentences() -> set[str]:
    """What the wording says, in pieces between the values that are put in."""
    found: set[str] = set()
    for name in WORDING:
        tree = ast.parse((PACKAGE / "report" / "wording" / f"{name}.py").read_text())
        documented = {
            ast.get_docstring(node, clean=False) for node in ast.walk(tree) if may_have_docstring(node)
        }
        strings = {part.value for part in tree.body if isinstance(part, ast.Expr)}
        bare = {value.value for value in strings if isinstance(value, ast.Constant)}
        for text in set(texts(tree)) - documented - bare:
            pieces = (
                piece.strip(" .,;:'")
                for piece, *_ in Formatter().parse(text.replace("{{", "{").replace("}}", "}"))
            )
            found |= {piece for piece in pieces if len(piece.split()) >= 4}
    return found


def may_have_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)


def test_no_lower_floor_words_what_the_report_words() -> None:
    said = sentences()
    assert len(said) > 60, "else this test looks at nothing"
    below = {name: "\n".join(texts(tree)) for name, tree in modules(*LOWER_FLOORS)}
    assert not [(name, piece) for name, text in below.items() for piece in said if piece in text]


def test_no_code_reads_a_sentence_to_decide() -> None:
    """Neither compares with, nor looks for, a text of several words."""
    found = []
    for name, tree in modules("."):
        for node in ast.walk(tree):
            looks = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in LOOKING
            if isinstance(node, ast.Compare) or looks:
                found += [(name, text) for text in texts(node) if " " in text.strip()]
    assert {name for name, _ in found} <= READ_OTHERS, found


def test_conclusions_are_compared_as_enum_members() -> None:
    enums = (CauseName, Advice, WarningKind, VerdictReason, Outcome, ComparisonOutcome)
    values = {member.value for enum in enums for member in enum}
    found = []
    for name, tree in modules("analysis", "lab", "runs", "report", "cli"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                found += [(name, text) for text in texts(node) if text in values]
    assert not found


@pytest.mark.parametrize("advice", Advice)
def test_every_advice_has_a_sentence(advice: Advice) -> None:
    cause = Cause(cause=CauseName.unexplained, losses=1, advice=advice)
    assert causes.advice(cause)


VALUES = {
    "overruns": 7,
    "late": 1000,
    "slots": 2000,
    "workers": 4,
    "cpus": 2,
    "lanes": 4,
    "remote": "10.0.0.1:80",
    "namespace": "this namespace",
    "device": "eth0",
    "step_s": -1.5,
    "tail_rate": 0.12,
    "unexplained": 3,
    "kind": "watch",
    "run_id": "0123456789abcdef",
    "hosts": 2,
    "late_s": 1.0,
    "ahead_s": 7.0,
    "apart_s": 7.0,
    "early_s": 0.5,
    "setting": "lanes",
    "own": "2",
    "other": "4",
    "name": "other.json",
    "dials": 10,
    "baseline": 20,
    "tools": "nft",
    "key": "kernel",
    "value": "6.1",
}


@pytest.mark.parametrize("kind", WarningKind)
def test_every_warning_has_whole_sentences_made_of_its_values(kind: WarningKind) -> None:
    named = comment_of(kind)
    values = {name: value for name, value in VALUES.items() if name in named}
    if kind in (WarningKind.unlike_setting, WarningKind.unlike_environment):
        values["baseline"] = "5.4"
    sentence = warnings.sentence(MeasurementWarning(kind=kind, values=values))
    assert sentence.endswith(".")
    assert "{" not in sentence
    assert not sentence[0].islower() or sentence.startswith(("this namespace", "other.json"))


def comment_of(kind: WarningKind) -> str:
    """The comment behind an enum member, which names its values."""
    (line,) = (
        line
        for line in Path(conclusions.__file__).read_text().splitlines()
        if line.startswith(f'    {kind.name} = "')
    )
    return line.partition("#")[2]


@pytest.mark.parametrize("reason", VerdictReason)
def test_every_reason_has_an_outcome_and_a_verdict(reason: VerdictReason) -> None:
    assert reason in verdicts._VERDICTS
    assert outcome_of(reason) in Outcome


def counted(rises: dict[str, int], entries: int) -> KernelCounters:
    per_cpu = {name: [rises.get(name, 0)] for name in CONNTRACK_COUNTERS}
    tcp = {name: count for name, count in rises.items() if name not in CONNTRACK_COUNTERS}
    source = ConntrackDelta(**per_cpu, count=entries, max=100_000)
    return KernelCounters(source=source, source_tcp=tcp, destination={}, containers={})


@given(
    st.dictionaries(st.sampled_from(ERRORS), st.integers(1, 100)),
    st.dictionaries(st.sampled_from((*CONNTRACK_COUNTERS, *TCP, *ROUTES)), st.integers(1, 100)),
    st.integers(0, 70_000),
    st.builds(
        Nat,
        ports=st.sampled_from([16, 256, 64512]),
        known=st.booleans(),
        absent=st.booleans(),
        clashes_raise_drop=st.booleans(),
        udp_clashes=st.booleans(),
    ),
    st.integers(0, 50),
)
def test_every_diagnosis_can_be_worded(
    errors: dict[str, int], rises: dict[str, int], entries: int, nat: Nat, answered_late: int
) -> None:
    summary = lost(1000, errors)
    found = diagnose(summary, counted(rises, entries), nat=nat, answered_late=answered_late)
    candidates: list[Cause | CandidateCause] = [each for cause in found for each in cause.candidates]
    for cause in [*found, *candidates]:
        assert causes.evidence(cause)
        assert "{" not in causes.evidence(cause)
        assert causes.advice(cause)


def test_the_schema_says_what_every_field_means() -> None:
    schemas = [
        schema(),
        Compared.model_json_schema(),
        Started.model_json_schema(),
        Undo.model_json_schema(),
    ]
    undescribed = []
    for document in schemas:
        for name, definition in [("", document), *document["$defs"].items()]:
            fields = definition.get("properties", {}).items()
            undescribed += [
                (name, field) for field, described in fields if not described.get("description")
            ]
    assert not undescribed
