"""Results of doctor of many hosts as one table: report doctor-*.json."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snat_race.analysis.fleet import fleet, namesakes
from snat_race.report import registry
from snat_race.results.findings import (
    ChainAddress,
    Check,
    DoctorResult,
    ExaminedRule,
    Finding,
    Level,
    RuleOwner,
    Unchangeable,
    Unreadable,
    UnreadableReason,
)
from snat_race.results.model import Tool
from tests.conftest import ROOT, fork_cli
from tests.results import small_client

OLD_RESULTS = ROOT / "tests" / "results_v1"
CHAIN = ChainAddress(tool="iptables-nft", family="ip", table="nat", chain="POSTROUTING")


def exposed(owner: RuleOwner, unchangeable: Unchangeable | None = None) -> Finding:
    rule = ExaminedRule(
        address=CHAIN,
        text=f"-A POSTROUTING by {owner}",
        owner=owner,
        client_ports=(1, 65535),
        unchangeable=unchangeable,
    )
    return Finding(level=Level.exposed, check=Check.snat_rule, rule=rule)


UNREAD = Finding(
    level=Level.unknown, check=Check.rules, unreadable=(Unreadable(reason=UnreadableReason.no_tool),)
)
OK = Finding(level=Level.ok, check=Check.rules)


def examined(
    host: str,
    *findings: Finding,
    boot: str = "",
    minute: int = 0,
    netns: str = "this namespace",
    run: str = "",
) -> DoctorResult:
    return DoctorResult(
        host=host,
        run_id=run or f"{host}-{boot}-{minute}-{netns}",
        tool=Tool(version="0"),
        started_at=f"2026-01-01T00:{minute:02d}:00.000Z",
        elapsed_s=0.5,
        environment={"kernel": f"6.1.{minute}", "boot_id": boot, "root": True},
        spec={"netns": netns, "workers": 1},
        sysctls={},
        findings=[*findings, OK],
    )


HOSTS = {
    "calm": examined("calm"),
    "docker": examined("docker", exposed(RuleOwner.docker)),
    "mixed": examined(
        "mixed", exposed(RuleOwner.calico), exposed(RuleOwner.docker), exposed(RuleOwner.calico), UNREAD
    ),
    "blind": examined("blind", UNREAD),
}


def written(folder: Path, **results: Any) -> list[str]:
    """Files of results, by the name of each, as their paths."""
    for name, result in results.items():
        event = {"event": "result"} | result.model_dump(mode="json")
        (folder / f"doctor-{name}.json").write_text(json.dumps(event) + "\n")
    return [str(folder / f"doctor-{name}.json") for name in results]


def test_the_worst_host_comes_first_with_what_helps_there(tmp_path: Path) -> None:
    done = fork_cli("report", *written(tmp_path, **HOSTS), COLUMNS="400")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "Exposed: 4 rules on 2 of 4 hosts can lose SYNs to the race; on 2 hosts not everything"
        in done.stdout
    )
    lines = done.stdout.splitlines()
    table = [line.split() for line in lines if line.startswith(("EXPOSED", "UNKNOWN"))]
    assert [row[:2] + row[3:5] for row in table] == [
        ["EXPOSED", "mixed", "2", "Calico"],
        ["EXPOSED", "mixed", "1", "Docker"],
        ["UNKNOWN", "mixed", "?", "?"],
        ["EXPOSED", "docker", "1", "Docker"],
        ["UNKNOWN", "blind", "?", "?"],
    ]
    assert "FELIX_FEATUREDETECTOVERRIDE" in done.stdout
    assert "no tool that reads rules is here" in done.stdout
    assert "No rule races on 1 host, and everything there could be read." in done.stdout
    assert "calm" not in done.stdout
    assert "calm" in fork_cli("report", "--details", *written(tmp_path, **HOSTS)).stdout


def test_mitigate_is_advised_where_it_can_change_a_rule(tmp_path: Path) -> None:
    fixed = exposed(RuleOwner.unknown, Unchangeable.in_anonymous_chain)
    hosts = {
        "neither": examined("neither", fixed, fixed),
        "one": examined("one", exposed(RuleOwner.docker), fixed),
    }
    none = {"neither": hosts["neither"], "calm": examined("calm")}
    left = fork_cli("report", *written(tmp_path, **none), COLUMNS="400").stdout
    assert "'mitigate' cannot change these rules" in left
    assert "mitigate --apply" not in left
    assert "EXPOSED  neither" in left
    assert "jump { ... }" in left
    some = fork_cli("report", *written(tmp_path, **hosts), COLUMNS="400").stdout
    assert "'mitigate --apply' on a host" in some
    assert "but for 3 rules that it has to leave" in some


def test_every_format_shows_every_host(tmp_path: Path) -> None:
    files = written(tmp_path, **HOSTS)
    printed = {
        form: fork_cli("report", "--format", form, *files).stdout for form in ("csv", "markdown", "html")
    }
    assert all(name in text for text in printed.values() for name in HOSTS)
    rows = list(csv.DictReader(io.StringIO(printed["csv"])))
    assert [(row["level"], row["host"], row["exposed_rules"], row["owner"]) for row in rows] == [
        ("exposed", "mixed", "2", "Calico"),
        ("exposed", "mixed", "1", "Docker"),
        ("unknown", "mixed", "0", ""),
        ("exposed", "docker", "1", "Docker"),
        ("unknown", "blind", "0", ""),
        ("ok", "calm", "0", ""),
    ]
    assert all(bool(row["what_helps"]) == (row["level"] != "ok") for row in rows)


def test_it_is_kept_as_one_result_that_is_read_again(tmp_path: Path) -> None:
    kept = tmp_path / "fleet.json"
    files = written(tmp_path, **HOSTS)
    assert fork_cli("report", "--format", "json", "-o", str(kept), *files).returncode == 0
    assert json.loads(kept.read_text())["kind"] == "fleet"
    assert fork_cli("report", str(kept)).stdout == fork_cli("report", *files).stdout
    refused = fork_cli("report", str(kept), *files)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_the_verdict_says_what_is_not_known() -> None:
    def verdict(*names: str) -> str:
        return registry.document(fleet([(name, HOSTS[name]) for name in names])).verdict

    assert verdict("blind", "calm") == "Cannot tell: on 1 of 2 hosts not everything could be read."
    assert verdict("calm") == "Not exposed: no rule on 1 host can lose SYNs to the race."
    assert verdict("docker").startswith("Exposed: 1 rule on 1 of 1 host can")


def test_a_later_reading_of_a_host_counts_and_that_is_said(tmp_path: Path) -> None:
    before = examined("web", exposed(RuleOwner.docker), boot="b", minute=1)
    after = examined("web", boot="b", minute=2)
    for order in ({"x": before, "y": after}, {"x": after, "y": before}):
        done = fork_cli("report", *written(tmp_path, **order))
        assert "Not exposed: no rule on 1 host" in done.stdout
        assert "1 result left out: there is a later one of the same host" in " ".join(done.stdout.split())


def test_hosts_of_one_name_are_both_shown_and_that_is_said(tmp_path: Path) -> None:
    one = examined("localhost", exposed(RuleOwner.docker), boot="b")
    other = examined("localhost", boot="c", minute=2)
    result = fleet([("x", one), ("y", other)])
    assert namesakes(result.hosts) == ["localhost"]
    assert len(result.hosts) == 2
    done = fork_cli("report", *written(tmp_path, x=one, y=other))
    assert "two hosts have one name: 'localhost'" in " ".join(done.stdout.split())


def test_namespaces_of_a_host_are_rows_of_their_own() -> None:
    result = fleet([("x", examined("web", boot="b")), ("y", examined("web", boot="b", netns="docker:db"))])
    assert namesakes(result.hosts) == []
    assert [row["host"] for row in registry.kind_of(result).csv_rows(result)] == ["web (docker:db)", "web"]


def test_a_result_without_a_host_is_called_after_its_file(tmp_path: Path) -> None:
    old = json.loads((OLD_RESULTS / "doctor.json").read_text())
    (tmp_path / "doctor-old.json").write_text(json.dumps(old))
    nameless = examined("", run="n").model_dump(mode="json")
    del nameless["host"]
    (tmp_path / "nameless.json").write_text(json.dumps(nameless))
    done = fork_cli("report", "--format", "csv", *map(str, sorted(tmp_path.glob("*.json"))))
    assert done.returncode == 0
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {row["host"] for row in rows} == {"old", "nameless"}


def test_a_host_whose_file_is_empty_is_there_as_not_read(tmp_path: Path) -> None:
    (tmp_path / "doctor-far.json").write_text("")
    done = fork_cli("report", *written(tmp_path, calm=HOSTS["calm"]), str(tmp_path / "doctor-far.json"))
    assert done.returncode == 0
    assert "UNKNOWN  far" in done.stdout
    assert "its file is empty" in done.stdout
    alone = fork_cli("report", str(tmp_path / "doctor-far.json"))
    assert (alone.returncode, "is empty" in alone.stderr) == (2, True)


def test_several_hosts_may_be_in_one_file(tmp_path: Path) -> None:
    files = written(tmp_path, **HOSTS)
    whole = tmp_path / "all.json"
    whole.write_text("".join(Path(file).read_text() for file in files))
    assert fork_cli("report", str(whole)).stdout == fork_cli("report", *files).stdout


@pytest.mark.parametrize("first", [True, False])
def test_results_of_other_kinds_are_refused_in_one_line(tmp_path: Path, first: bool) -> None:
    (tmp_path / "client.json").write_text(small_client("c").model_dump_json())
    files = written(tmp_path, **HOSTS)
    client = [str(tmp_path / "client.json")]
    done = fork_cli("report", *(client + files if first else files + client))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "a doctor result cannot be merged with others; give doctor's results only" in done.stderr
    empty = tmp_path / "empty.json"
    empty.write_text("")
    assert "empty.json: is empty" in fork_cli("report", *client, str(empty)).stderr


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["", "1", "2"]), st.integers(0, 9), st.integers(0, 3)
        ),
        min_size=1,
    )
)
def test_each_host_is_there_once_and_the_latest_of_it(drawn: list[tuple[str, str, int, int]]) -> None:
    readings = [
        (
            name,
            examined(name, *[exposed(RuleOwner.docker)] * rules, boot=boot, minute=minute, run=str(index)),
        )
        for index, (name, boot, minute, rules) in enumerate(drawn)
    ]
    result = fleet(readings)
    newest: dict[tuple[str, str], int] = {}
    for name, boot, minute, _ in drawn:
        newest[name, boot] = max(minute, newest.get((name, boot), 0))
    kept = {(host.host, host.environment["boot_id"]): host.kernel for host in result.hosts}
    assert kept == {key: f"6.1.{minute}" for key, minute in newest.items()}
    assert len(result.hosts) + result.older_readings == len(drawn)
    counts = [len(host.of_level(Level.exposed)) for host in result.hosts]
    assert counts == sorted(counts, reverse=True)
