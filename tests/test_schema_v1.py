"""Files and streams that version 1 wrote, of which some are in tests/results_v1, are read and shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from snat_race.cli.result_reader import read, read_all
from snat_race.report.wording import causes, verdicts
from snat_race.results.conclusions import UNPROVEN, Advice, CauseName, VerdictReason
from snat_race.results.schema import ClientResult, LabResult, MergedResult, WatchResult
from snat_race.results.schema_v1 import upgraded
from tests.conftest import fork_cli

KEPT = sorted((Path(__file__).parent / "results_v1").iterdir())
OLD_NAMES = {"watched", "syn_resent", "suspects", "sources", "text"}


def kept_v1(name: str) -> Path:
    return Path(__file__).parent / "results_v1" / name


def document(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(kept_v1(name).read_text())
    return loaded


def names_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {name for part in value.values() for name in names_in(part)}
    return {name for part in value for name in names_in(part)} if isinstance(value, list) else set()


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_it_is_read_shown_and_written_as_version_2(path: Path, tmp_path: Path) -> None:
    shown = fork_cli("report", str(path))
    assert (shown.returncode, shown.stderr) == (0, "")
    again = tmp_path / "again.json"
    again.write_text(read(path).model_dump_json())
    assert json.loads(again.read_text())["schema_version"] == 2
    assert fork_cli("report", str(again)).stdout == shown.stdout


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_no_old_name_is_left_but_where_it_still_is_one(path: Path) -> None:
    kind = read(path).kind
    still = {"merged": {"watched"}, "doctor": {"text"}}.get(kind, set())
    assert not names_in(read(path).model_dump(mode="json")) & OLD_NAMES - still


def test_what_is_of_this_version_is_left_alone() -> None:
    new = upgraded(document("client.json"))
    assert upgraded(new) is new


def test_a_cause_keeps_the_words_it_was_written_in() -> None:
    old = document("client_causes.json")["diagnosis"]
    client = read(kept_v1("client_causes.json"))
    assert isinstance(client, ClientResult)
    assert [(cause.cause, cause.losses) for cause in client.diagnosis] == [("snat_race", 5)]
    assert [causes.evidence(cause) for cause in client.diagnosis] == [each["evidence"] for each in old]
    assert [causes.advice(cause) for cause in client.diagnosis] == [each["advice"] for each in old]
    assert client.diagnosis[0].advice == Advice.draw_ports_at_random


NEWER = {CauseName.other_error, CauseName.conntrack_entry_dying, CauseName.udp_clash}


@pytest.mark.parametrize("name", sorted(set(CauseName) - NEWER))
def test_every_cause_of_version_1_has_an_advice(name: CauseName) -> None:
    old = {"cause": name.value, "losses": 3, "evidence": "said so", "advice": "do so"}
    run = document("client.json") | {"diagnosis": [old]}
    (cause,) = upgraded(run)["diagnosis"]
    assert cause["cause"] == name
    assert cause["recorded"] == {"evidence": "said so", "advice": "do so"}


def test_a_cause_that_was_named_after_its_errno_names_it_as_evidence() -> None:
    old = {"cause": "eproto", "losses": 2, "evidence": "said so", "advice": "do so"}
    (cause,) = upgraded(document("client.json") | {"diagnosis": [old]})["diagnosis"]
    assert (cause["cause"], cause["evidence"]) == ("other_error", {"EPROTO": 2})


def test_counters_and_merged_parts_have_their_new_names() -> None:
    merged = read(kept_v1("merged_causes.json"))
    assert isinstance(merged, MergedResult)
    assert [part.kind for part in merged.merged_from] == ["client", "client", "watch"]
    assert sum(len(period.counters) for period in merged.periods) == 1
    watch = read(kept_v1("watch_causes.json"))
    assert isinstance(watch, WatchResult)
    assert {each.cause: each.at_most for each in watch.candidate_causes} == {
        "snat_race": 12,
        "accept_queue_full": 3,
    }


def test_old_parts_merge_to_what_version_1_made_of_them() -> None:
    merged = read_all([kept_v1("client.json"), kept_v1("watch.json")])
    old = read(kept_v1("merged.json"))
    assert isinstance(merged, MergedResult)
    assert isinstance(old, MergedResult)
    assert merged.summary == old.summary
    parts = [part.model_copy(update={"loss_rate_ci95": None}) for part in merged.merged_from]
    assert (parts, merged.kernel) == (old.merged_from, old.kernel)


@pytest.mark.parametrize(
    ("name", "reasons", "said"),
    [
        (
            "lab.json",
            ["lost_to_race", "none_lost", "none_lost"],
            "race reproduced: 'masquerade' lost 20 dials",
        ),
        ("lab_other_causes.json", ["other_causes"], "not the race: of 65 losses, other causes explain 65"),
    ],
)
def test_the_reason_of_a_verdict_is_worked_out(name: str, reasons: list[str], said: str) -> None:
    lab = read(kept_v1(name))
    assert isinstance(lab, LabResult)
    assert [variant.reason for variant in lab.variants] == reasons
    assert lab.verdict.reason == reasons[0]
    assert verdicts.verdict(lab.variants[0]).startswith(said)


@pytest.mark.parametrize(
    ("changes", "summary", "reason"),
    [
        ({"translated": False}, {}, VerdictReason.nothing_translated),
        ({}, {"paired": None, "failed": 0}, VerdictReason.dials_do_not_meet),
        ({}, {"paired": 12, "failed": 0}, VerdictReason.too_few_pairs),
        ({}, {"paired": 1200, "failed": 0}, VerdictReason.too_few_ports),
        ({}, {"failed": 50, "attempted": 100}, VerdictReason.mixed_causes),
        ({"diagnosis": []}, {"failed": 50, "attempted": 100}, VerdictReason.other_causes),
    ],
)
def test_the_reasons_of_what_was_inconclusive(
    changes: dict[str, Any], summary: dict[str, Any], reason: VerdictReason
) -> None:
    lab = document("lab.json")
    unclear = {"cause": "inconclusive", "losses": 40, "evidence": "", "advice": ""}
    first = lab["variants"][0] | {"outcome": "inconclusive", "diagnosis": [unclear]} | changes
    first["summary"] = first["summary"] | summary
    assert upgraded(lab | {"variants": [first]})["variants"][0]["reason"] == reason


def test_one_cpu_was_too_few() -> None:
    lab = document("lab.json")
    first = lab["variants"][0] | {"outcome": "inconclusive", "diagnosis": []}
    first["summary"] = first["summary"] | {"failed": 0}
    alone = lab | {"variants": [first], "spec": lab["spec"] | {"cpus": [1]}}
    assert upgraded(alone)["variants"][0]["reason"] == VerdictReason.one_cpu


@pytest.mark.parametrize("name", ["client_cut_off.jsonl", "watch_cut_off.jsonl"])
def test_a_stream_that_was_cut_off_is_made_of_its_periods(name: str) -> None:
    result = read(kept_v1(name))
    assert isinstance(result, ClientResult | WatchResult)
    assert result.cut_off
    assert len(result.periods) == len(kept_v1(name).read_text().splitlines()) - 1


@pytest.mark.parametrize(
    "damage", [{"summary": 5}, {"periods": 5}, {"diagnosis": [1]}, {"diagnosis": [{"cause": "x"}]}]
)
def test_what_is_damaged_is_said_to_be(damage: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document("client.json") | damage))
    done = fork_cli("report", str(path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "damaged" in done.stderr
    assert "object" not in done.stderr, "a word of Python's"


def test_what_is_unproven_is_the_same_set_of_causes() -> None:
    assert {name.value for name in UNPROVEN} == {"inconclusive", "unexplained", "filtered", "not_watched"}
