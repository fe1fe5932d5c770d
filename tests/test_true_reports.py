"""No page denies what was measured: a lost SYN is a loss on every page, one result has one interval, and
what a file lacks is left out.
"""

import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snat_race.analysis.comparison import Comparable, comparable_client, comparable_lab, compare, compared
from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.loss_rates import BETWEEN_RUNS, LossCounts, Unit, collision_interval
from snat_race.analysis.merge import merged
from snat_race.analysis.stream import so_far
from snat_race.analysis.thresholds import Thresholds, checked
from snat_race.report import registry
from snat_race.report.builders.checks import checks
from snat_race.report.document import Document, Tone
from snat_race.report.renderers.csv import as_csv
from snat_race.report.renderers.html import page
from snat_race.report.renderers.markdown import markdown
from snat_race.report.renderers.text import text
from snat_race.report.terminal import Terminal
from snat_race.report.wording import causes, warnings
from snat_race.report.wording.client_lines import LATE, period_extra
from snat_race.report.wording.formats import percent_interval, plural
from snat_race.results.conclusions import (
    Advice,
    CandidateCause,
    Cause,
    CauseName,
    MeasurementWarning,
    WarningKind,
)
from snat_race.results.counters import KernelCounters
from snat_race.results.findings import Check, Level
from snat_race.results.model import Result
from snat_race.results.nat import Nat
from snat_race.results.schema import ClientResult, LabResult, Started
from tests.conftest import fork_cli
from tests.results import (
    rise,
    small_client,
    small_comparison,
    small_doctor,
    small_fleet,
    small_lab,
    small_prediction,
    small_watch,
)
from tests.test_wording import VALUES, comment_of

Kept = Callable[..., Path]
WIDE = Terminal(width=400)


def changed(result: Any, **fields: Any) -> Any:
    return type(result).model_validate(result.model_dump() | fields)


def late_client(name: str, *, late: int, failed: int = 0, twice: int = 0) -> ClientResult:
    """A client of 10,000 dials, of which some connected after their SYN was sent again."""
    client = small_client(name, failed=failed, watched=rise(failed + late + 2 * twice))
    retransmits = {"0": 3, "1": late, "2": twice}
    summary = changed(client.summary, syn_retransmits=retransmits)
    (period,) = client.periods
    return changed(
        client,
        summary=summary,
        periods=[changed(period, syn_retransmits=retransmits)],
        diagnosis=diagnose(summary, client.kernel),
    )


def stream_of(client: ClientResult) -> ClientResult:
    """The same as its stream has it, if it was killed."""
    head = client.model_dump(include={"run_id", "tool", "started_at", "elapsed_s", "environment", "spec"})
    source = client.kernel.source
    counted = {"netns": "x", "began_at": client.started_at, "elapsed_s": 10, "conntrack": source, "tcp": {}}
    run = so_far(Started(kind="client", **head))
    run.add({"event": "period", "summary": client.periods[0].model_dump() | {"counters": [counted]}})
    result = run.result()
    assert isinstance(result, ClientResult)
    return result


def late_lab(late: int) -> LabResult:
    lab = small_lab()
    cured = lab.variants[1]
    summary = changed(cured.summary, syn_retransmits={"1": late}, paired=None, collisions=None)
    kernel = KernelCounters(source=rise(late), destination={}, containers={})
    cured = changed(
        cured,
        summary=summary,
        kernel=kernel,
        diagnosis=diagnose(summary, kernel),
        collision_rate_ci95=None,
        periods=[],
    )
    return changed(lab, variants=[cured])


LATE_RESULTS: dict[str, Callable[[], Result]] = {
    "client": lambda: late_client("a", late=10),
    "merged": lambda: merged([late_client("a", late=6), late_client("b", late=4)], [small_watch("w", 10)]),
    "cut off": lambda: stream_of(late_client("a", late=10)),
    "lab": lambda: late_lab(10),
}


@pytest.mark.parametrize("kind", LATE_RESULTS)
def test_a_lost_syn_is_a_loss_on_every_page_if_its_dial_survived(kind: str) -> None:
    result = LATE_RESULTS[kind]()
    shown = registry.document(result)
    figures = registry.kind_of(result).figures(result)
    for said in (text(shown, WIDE, full=True), markdown(shown), html.unescape(page(shown, figures))):
        assert LATE in said
        assert "none of" not in said
    rows = list(csv.DictReader(io.StringIO(as_csv(registry.kind_of(result).csv_rows(result)))))
    assert sum(int(row["late_by_retransmit"]) for row in rows) == (0 if kind == "lab" else 10)
    if kind != "lab":
        assert shown.tone is Tone.bad
        assert LATE in shown.verdict
    (measured,) = registry.kind_of(result).measured(result)
    (check,) = checked(Thresholds(error_rate=0), measured.summary, measured.diagnosis)
    assert (check.holds, check.late_by_retransmit) == (False, 10)
    (check,) = checked(Thresholds(race_losses=9), measured.summary, measured.diagnosis)
    assert (check.holds, check.observed) == (False, 10)


def test_ktap_counts_what_survived() -> None:
    check, _unavailable = checks(late_lab(10), race=False).checks
    assert "lost to the race 10 of 1,557 dials" in check.evidence[0]


def test_both_kinds_of_loss_are_counted_apart_and_together() -> None:
    client = late_client("a", late=10, twice=2, failed=5)
    assert client.summary.late_by_retransmit == 12
    assert client.summary.failed_or_late == 17
    assert client.summary.loss_rate == 5 / 10_000, "which keeps its meaning"
    shown = registry.document(client)
    assert shown.verdict.startswith("17 of 10,000 dials (0.17%) were lost or late: 5 failed, 12 connected")
    assert "lost SYNs: 19 snat_race" in shown.verdict
    rows = {row[0]: row[1] for section in shown.sections if section.table for row in section.table.rows}
    assert (rows["failed"], rows[LATE], rows["failed or late"], rows["slow"]) == ("5", "12", "17", "15")


def test_a_slow_connect_without_a_retransmit_is_no_loss() -> None:
    client = late_client("a", late=0)
    assert client.summary.syn_retransmits["0"] == 3
    assert registry.document(client).verdict == "none of 10,000 dials was lost."


@pytest.mark.parametrize("claimed", [-5, 10**30])
def test_no_more_were_late_than_connected(claimed: int) -> None:
    client = late_client("a", late=0)
    retransmits = {"syn_retransmits": {"1": claimed}}
    summary = client.summary.model_copy(update=retransmits)
    assert 0 <= summary.late_by_retransmit <= summary.connected
    assert text(registry.document(client.model_copy(update={"summary": summary})), WIDE)


def test_a_period_says_how_many_were_late() -> None:
    assert "late by a retransmit: 10" in period_extra(late_client("a", late=10).periods[0])


def test_a_comparison_sees_what_survived() -> None:
    base = comparable_client("base.json", late_client("base", late=200))
    other = comparable_client("other.json", late_client("other", late=0))
    (comparison,) = compared(base, [other]).comparisons
    assert (comparison.outcome, comparison.base.lost, comparison.base.late_by_retransmit) == (
        "fewer",
        200,
        200,
    )
    assert LATE in text(registry.document(compared(base, [other])), WIDE)


# One result, one interval


def drifting_client(name: str) -> ClientResult:
    """A client whose periods differ by far more than chance has it."""
    client = small_client(name, failed=200)
    (period,) = client.periods
    periods = [
        changed(period, attempted=1000, connected=1000 - failed, failed=failed, errors={"TIMEOUT": failed})
        for failed in (0, 60, 2, 38, 0, 50, 0, 30, 20, 0)
    ]
    return changed(client, periods=periods)


def intervals_in(said: str) -> set[str]:
    return set(re.findall(r"[\d.]+% to [\d.]+%", said))


def test_a_client_has_one_interval_on_every_page() -> None:
    client, calm = drifting_client("drifting"), small_client("calm", failed=3)
    own = {
        row[-1].partition("interval of this run ")[2]
        for section in registry.document(client).sections
        if section.table
        for row in section.table.rows
        if row[0] == "failed"
    }
    assert len(own) == 1
    both = merged([client, calm], [])
    pages = html.unescape(page(registry.document(client), registry.kind_of(client).figures(client)))
    of_both = html.unescape(page(registry.document(both), registry.kind_of(both).figures(both)))
    against = compared(comparable_client("a", client), [comparable_client("b", calm)])
    assert intervals_in(pages) == own
    assert own <= intervals_in(of_both)
    assert {percent_interval(against.comparisons[0].base.loss_rate_ci95)} == own
    assert own != {percent_interval(client.summary.loss_rate_ci95)}, "else this test looks at nothing"


def test_a_lab_has_one_interval_on_every_page() -> None:
    lab = small_lab()
    own = {
        percent_interval(variant.collision_rate_ci95)
        for variant in lab.variants
        if variant.collision_rate_ci95
    }
    shown = registry.document(
        changed(lab, window=None, verdict=lab.verdict.model_dump() | {"mitigations": []})
    )
    verdict = re.findall(r"[\d.]+% to [\d.]+%", shown.verdict)
    assert set(verdict) <= own
    figures = registry.kind_of(lab).figures(lab)[:1]
    assert intervals_in(html.unescape(page(shown, figures))) == own
    other = changed(lab, run_id="other")
    against = compared(comparable_lab("a", lab), [comparable_lab("b", other)])
    assert {percent_interval(each.base.loss_rate_ci95) for each in against.comparisons} == own


def test_intervals_of_runs_that_differ_as_measured_cover_one_another() -> None:
    """Runs whose rates differ as those of idle machines did: the mean of all is within 95 of 100."""
    rng = np.random.default_rng(11)
    mean_logit, covered, disjoint = 0.1, 0, 0
    intervals = []
    for _ in range(1000):
        rate = 1 / (1 + np.exp(-rng.normal(mean_logit, BETWEEN_RUNS)))
        intervals.append(collision_interval(int(rng.binomial(500, rate)), 500, 1.0))
    for low, high in intervals:
        covered += low <= 1 / (1 + np.exp(-mean_logit)) <= high
    for (low, high), (other_low, other_high) in zip(intervals[::2], intervals[1::2], strict=True):
        disjoint += high < other_low or other_high < low
    assert 920 <= covered <= 985
    assert disjoint <= 0.02 * 500


def test_the_same_rule_in_two_runs_is_seldom_told_apart() -> None:
    rng = np.random.default_rng(5)
    outcomes = [compare(run_of_a_rule(rng), run_of_a_rule(rng)).outcome for _ in range(1000)]
    assert sum(outcome in ("fewer", "more") for outcome in outcomes) <= 0.06 * 1000


def run_of_a_rule(rng: np.random.Generator) -> LossCounts:
    """Eight rounds of a run whose rate differs from that of other runs as measured."""
    rate = 1 / (1 + np.exp(-rng.normal(0, BETWEEN_RUNS)))
    rounds = tuple((int(rng.binomial(60, rate)), 60) for _ in range(8))
    return LossCounts(name="x", rounds=rounds, unit=Unit.pair)


def test_clients_in_rendezvous_are_warned_that_runs_differ() -> None:
    def kinds(mode: str, failed: int) -> set[str]:
        clients = (small_client(name, failed=failed) for name in ("a", "b"))
        one, two = (changed(client, spec=client.spec | {"mode": mode}) for client in clients)
        warned = compared(comparable_client("a", one), [comparable_client("b", two)]).warnings
        return {warning.kind for warning in warned}

    assert WarningKind.rendezvous_runs_differ in kinds("rendezvous", 9)
    assert WarningKind.rendezvous_runs_differ not in kinds("rendezvous", 0)
    assert WarningKind.rendezvous_runs_differ not in kinds("independent", 9)


# Labs, compared


def lab_of(collisions: dict[str, int]) -> LabResult:
    """A lab of these rules, each with 556 pairs of which so many collided."""
    template = small_lab()
    variants = []
    for name, count in collisions.items():
        variant = template.variants[0]
        summary = changed(variant.summary, paired=556, collisions=count)
        periods = [changed(variant.periods[0], paired=556, collisions=count)]
        interval = collision_interval(count, 556, 1.0)
        variants.append(
            changed(variant, name=name, summary=summary, periods=periods, collision_rate_ci95=interval)
        )
    return changed(template, variants=variants, run_id="+".join(collisions), window=None)


def comparable(name: str, **collisions: int) -> Comparable:
    return comparable_lab(name, lab_of(collisions))


def test_rules_of_two_labs_are_matched_by_name_and_the_rest_is_listed() -> None:
    base = comparable("a.json", plain=300, random=0, old=7)
    other = comparable("b.json", random=200, plain=2, new=9)
    result = compared(base, [other])
    assert [(pair.base.name, pair.other.name, pair.outcome) for pair in result.comparisons] == [
        ("a.json, plain", "b.json, plain", "fewer"),
        ("a.json, random", "b.json, random", "more"),
    ]
    assert [(only.name, only.rules) for only in result.only_in] == [
        ("a.json", ["old"]),
        ("b.json", ["new"]),
    ]
    shown = text(registry.document(result), WIDE)
    assert shown.startswith("snat_race compare, baseline a.json\n")
    assert "Only in a.json: 'old'." in shown
    assert "b.json, random against a.json, random: more" in shown


def test_labs_are_compared_by_collisions_per_pair() -> None:
    (pair,) = compared(comparable("a", plain=300), [comparable("b", plain=3)]).comparisons
    assert (pair.base.unit, pair.base.lost, pair.base.dialled) == ("pair", 300, 556)
    assert "collided" in text(
        registry.document(compared(comparable("a", x=3), [comparable("b", x=3)])), WIDE
    )


def test_a_single_rule_of_each_lab_is_compared_whatever_it_is_called() -> None:
    result = compared(comparable("a", plain=300), [comparable("b", random=0)])
    assert (result.comparisons[0].outcome, result.only_in) == ("fewer", [])


def written(tmp_path: Path, name: str, result: Result) -> str:
    path = tmp_path / name
    path.write_text(result.model_dump_json())
    return str(path)


def test_what_cannot_be_compared_is_one_line(tmp_path: Path) -> None:
    several = written(tmp_path, "several.json", lab_of({"a": 1, "b": 2}))
    others = written(tmp_path, "others.json", lab_of({"c": 1, "d": 2}))
    unpaired = changed(late_lab(1), run_id="unpaired")
    cases = (
        (several, others, "measured none of the rules"),
        (several, written(tmp_path, "client.json", small_client("x")), "compare two labs, or two clients"),
        (
            written(tmp_path, "one.json", lab_of({"masquerade fully-random": 1})),
            written(tmp_path, "unpaired.json", unpaired),
            "compare labs of one scenario",
        ),
    )
    for base, other, message in cases:
        done = fork_cli("compare", base, other)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert message in done.stderr


def test_what_is_lacking_is_said_of_the_run_that_lacks_it() -> None:
    base = comparable_client("base.json", small_client("base", failed=10, attempted=1000))
    other = comparable_client("other.json", small_client("other", failed=30, attempted=4000))
    (pair,) = compared(base, [other]).comparisons
    assert pair.outcome == "inconclusive"
    assert pair.more_dials_of_base
    assert pair.more_dials == pair.more_dials_of_base == (pair.more_dials_of_other or 0) + 3000
    said = registry.document(compared(base, [other])).verdict
    assert f"{pair.more_dials_of_base:,} more dials of the baseline" in said


def test_warnings_of_a_comparison_name_options_that_the_command_has() -> None:
    lab = lab_of({"plain": 9})
    (variant,) = lab.variants
    fewer = {"attempted": 100, "connected": 100 - variant.summary.failed}
    short = changed(lab, variants=[changed(variant, summary=changed(variant.summary, **fewer))])
    warned = compared(comparable_lab("a", lab), [comparable_lab("b", short)]).warnings
    (said,) = (warnings.sentence(warning) for warning in warned)
    options = set(re.findall(r"--[a-z-]+", said))
    assert options
    assert all(fork_cli("lab", "--help").stdout.count(option) for option in options)


# Whose losses cannot be told


def test_what_nobody_can_tell_names_what_it_may_be_and_one_thing_to_do() -> None:
    """A third of the ports in use, or a race soon after another run: two clients met, one is judged."""
    nat = Nat()
    seen = 0
    for clashes in range(1, 120, 7):
        for found in (0, 480, 4828, 40_000):
            kernel = KernelCounters(
                source=changed(rise(clashes, found=found), count=25_000), destination={}, containers={}
            )
            for others in ({}, {"ListenOverflows": 5, "ListenDrops": 5}):
                kernel = changed(kernel, destination=others)
                found_causes = diagnose(small_client("x", failed=43).summary, kernel, nat=nat)
                unclear = [cause for cause in found_causes if cause.cause == CauseName.inconclusive]
                assert len(unclear) <= 1
                for cause in unclear:
                    seen += 1
                    said = causes.evidence(cause)
                    assert "inconclusive" not in said
                    assert "snat_race" in said
                    assert all(candidate.at_most <= 43 for candidate in cause.candidates)
                    assert CauseName.inconclusive not in {candidate.cause for candidate in cause.candidates}
    assert seen > 20


def test_a_verdict_names_what_unclear_losses_may_be() -> None:
    kernel = KernelCounters(
        source=changed(rise(43, found=40_000), count=50_000), destination={}, containers={}
    )
    client = small_client("x", failed=43)
    unclear = changed(client, kernel=kernel, diagnosis=diagnose(client.summary, kernel))
    assert "inconclusive (perhaps snat_race or nat_ports_exhausted)" in registry.document(unclear).verdict


# Latencies


def test_the_latency_figure_says_how_many_dials_never_connected() -> None:
    lab = small_lab()
    pages = html.unescape(page(registry.document(lab), registry.kind_of(lab).figures(lab)))
    assert "4.6% never connected" in pages, "72 of 1,557 dials of the first rule"
    client = small_client("x", failed=700)
    pages = html.unescape(page(registry.document(client), registry.kind_of(client).figures(client)))
    assert "7.0% never connected" in pages
    nothing = small_client("x", failed=50, attempted=50)
    summary = changed(nothing.summary, histogram_from_slot=nothing.summary.histogram_all)
    (figure,) = (
        each
        for each in registry.kind_of(nothing).figures(changed(nothing, summary=summary))
        if "latency" in each.title
    )
    assert "because no dial connected: all." in figure.caption
    calm = small_client("x")
    assert "never connected" not in page(registry.document(calm), registry.kind_of(calm).figures(calm))


# Words


def test_a_count_and_its_noun_agree() -> None:
    assert [plural(count, "dial") for count in (0, 1, 2)] == ["0 dials", "1 dial", "2 dials"]
    assert plural(2**63 + 1, "slot") == "9,223,372,036,854,775,809 slots"  # no float has that
    assert [plural(2, noun) for noun in ("loss", "entry", "retry", "CPU")] == [
        "2 losses",
        "2 entries",
        "2 retries",
        "2 CPUs",
    ]


ONE_OF_MANY = re.compile(r"(?<![\d,.])1 (?:more |paired |taken )?[a-z]+(?<!s)s\b(?! a| of| or)")


@pytest.mark.parametrize("kind", WarningKind)
def test_no_warning_speaks_of_1_dials(kind: WarningKind) -> None:
    values = {name: 1 if isinstance(value, int) else value for name, value in VALUES.items()}
    named = comment_of(kind)
    warning = MeasurementWarning(kind=kind, values={name: values[name] for name in values if name in named})
    assert not ONE_OF_MANY.search(warnings.sentence(warning)), warnings.sentence(warning)


def one_dial(failed: int) -> Iterator[Document]:
    client = small_client("x", attempted=1, failed=failed, watched=rise(failed))
    yield registry.document(client)
    yield registry.document(merged([client, small_client("y", attempted=1)], []))


@pytest.mark.parametrize("failed", [0, 1])
def test_no_report_speaks_of_1_dials(failed: int) -> None:
    for document in one_dial(failed):
        sentences = [document.verdict, *document.warnings]
        sentences += [said for section in document.sections for said in section.sentences]
        assert not [said for said in sentences if ONE_OF_MANY.search(said)]


def test_counters_say_whose_they_are() -> None:
    """A namespace that was named by a process id is not just a number."""
    client = small_client("x", failed=2, watched=rise(2))
    delta = {
        "netns": "7339",
        "began_at": client.started_at,
        "elapsed_s": 1,
        "conntrack": rise(2),
        "tcp": {},
    }
    client = changed(client, summary=changed(client.summary, counters=[delta]))
    said = text(registry.document(client), WIDE)
    assert "the namespace of process 7339: insert_failed +2" in said
    assert not re.search(r"^7339", said, re.MULTILINE)
    assert period_extra(client.summary).startswith("the namespace of process 7339: ")


# Files that lack something


RESULTS: dict[str, Callable[[], Result]] = {
    "lab": small_lab,
    "client": lambda: late_client("a", late=3, failed=2),
    "merged": lambda: merged([small_client("a", failed=3), small_client("b")], [small_watch("w", 3)]),
    "watch": lambda: small_watch("w", insert_failed=4),
    "doctor": small_doctor,
    "fleet": small_fleet,
}
KEPT: dict[str, Result] = {}


def in_every_form(result: Result) -> None:
    kind = registry.kind_of(result)
    shown = kind.document(result)
    assert text(shown, WIDE, full=True)
    assert markdown(shown)
    assert page(shown, ())
    assert as_csv(kind.csv_rows(result))
    kind.figures(result)
    if kind.comparable:
        other = changed(result, run_id="other")
        assert compared(kind.comparable("a", result), [kind.comparable("b", other)]).comparisons
        assert compared(kind.comparable("a", RESULTS[kind_name(result)]()), [kind.comparable("b", other)])


def kind_name(result: Result) -> str:
    return str(result.model_dump()["kind"])


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_with_any_setting_removed_is_reported_in_every_form(name: str) -> None:
    whole = RESULTS[name]()
    for part in ("spec", "environment"):
        settings = getattr(whole, part)
        in_every_form(changed(whole, **{part: {}}))
        for key in settings:
            rest = {other: value for other, value in settings.items() if other != key}
            in_every_form(changed(whole, **{part: rest}))


def test_checks_of_a_lab_that_lacks_its_settings() -> None:
    assert checks(changed(small_lab(), spec={}, environment={}), race=True).title


JSON = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), 1 << 63)  # reading refuses what is larger
    | st.floats(-1e18, 1e18)
    | st.text(max_size=5)
    | st.lists(st.integers(-(1 << 63), 1 << 63), max_size=3)
)


@given(st.sampled_from([*RESULTS]), st.data())
def test_a_setting_of_another_kind_stops_no_report(name: str, data: st.DataObject) -> None:
    whole = KEPT.setdefault(name, RESULTS[name]())
    part = data.draw(st.sampled_from(["spec", "environment"]))
    settings = getattr(whole, part)
    key = data.draw(st.sampled_from([*settings]))
    result = changed(whole, **{part: settings | {key: data.draw(JSON)}})
    text(registry.document(result), WIDE, full=True)


@pytest.mark.parametrize("cause", CauseName)
def test_a_cause_without_its_evidence_is_still_reported(cause: CauseName) -> None:
    for advice in Advice:
        assert causes.evidence(Cause(cause=cause, losses=1, advice=advice)) is not None
        assert causes.evidence(CandidateCause(cause=cause, at_most=1, advice=advice)) is not None


@pytest.mark.parametrize("kind", WarningKind)
def test_a_warning_without_its_values_is_still_reported(kind: WarningKind) -> None:
    assert warnings.sentence(MeasurementWarning(kind=kind)) is not None


def test_a_finding_without_its_values_is_still_reported() -> None:
    doctor = small_doctor()
    for check in Check:
        for level in (Level.warning, Level.ok):
            finding = {"check": check, "level": level, "values": {"some": 3}}
            assert text(registry.document(changed(doctor, findings=[finding])), WIDE)


@pytest.mark.parametrize("points", [0, 1, 2, 3, 40])
def test_a_window_has_a_curve_of_any_length(points: int) -> None:
    lab = small_lab()
    window = changed(lab.window, curve=[point.model_dump() for point in lab.window.curve[:points]])
    lab = changed(lab, window=window.model_dump())
    assert "Race window of 'masquerade'" in text(registry.document(lab), WIDE)
    assert page(registry.document(lab), registry.kind_of(lab).figures(lab))


def test_a_lab_without_a_rule_is_no_result(tmp_path: Path) -> None:
    path = tmp_path / "empty.json"
    path.write_text(json.dumps(json.loads(small_lab().model_dump_json()) | {"variants": []}))
    done = fork_cli("report", str(path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "variants" in done.stderr


def test_the_other_documents_still_have_every_form() -> None:
    for document in (registry.document(small_comparison()), registry.document(small_prediction())):
        assert text(document, WIDE)
        assert markdown(document)


def test_json_of_a_comparison_says_what_was_counted(kept: Kept) -> None:
    done = fork_cli("compare", str(kept("a", failed=5)), str(kept("b", failed=9)), "--format", "json")
    document = json.loads(done.stdout)
    assert document["baseline"].endswith("a.json")
    assert (document["comparisons"][0]["base"]["unit"], document["only_in"]) == ("dial", [])
