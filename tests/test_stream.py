"""Runs that are read from their streams: whole, or as far as they came."""

import json
from pathlib import Path
from typing import Any

import pytest

from snat_race.analysis.merge import merged
from snat_race.cli.result_reader import read
from snat_race.results.schema import WatchResult
from tests.conftest import fork_cli
from tests.results import BEGAN, small_client, small_watch

HEAD = ("schema_version", "run_id", "tool", "started_at", "elapsed_s", "environment", "spec", "nat")


def stream(watch: WatchResult, *, ended: bool) -> str:
    """What ``watch --json`` prints: a result without the periods, which it has told."""
    whole: dict[str, Any] = watch.model_dump(mode="json")
    events = [
        {"event": "start", "kind": "watch", "counters_from": "netlink"}
        | {name: whole[name] for name in HEAD}
    ]
    events += [{"event": "period", "schema_version": 2} | lap for lap in whole["periods"]]
    events += [{"event": "result"} | whole | {"periods": []}] if ended else []
    return "".join(f"{json.dumps(event)}\n" for event in events)


def watch_of(tmp_path: Path, *, ended: bool) -> WatchResult:
    path = tmp_path / "watch.json"
    path.write_text(stream(small_watch("w", insert_failed=71), ended=ended))
    found = read(path)
    assert isinstance(found, WatchResult)
    return found


def test_a_watch_that_was_cut_off_says_what_its_counters_could_account_for(tmp_path: Path) -> None:
    (cause,) = watch_of(tmp_path, ended=False).candidate_causes
    assert (cause.cause, cause.at_most) == ("snat_race", 71)


@pytest.mark.parametrize("ended", [True, False])
def test_a_watch_has_the_periods_of_its_stream(tmp_path: Path, ended: bool) -> None:
    watch = watch_of(tmp_path, ended=ended)
    assert watch.cut_off is not ended
    assert [sum(each.conntrack.insert_failed) for each in watch.periods if each.conntrack] == [71]


def test_a_part_that_was_cut_off_is_doubted(tmp_path: Path) -> None:
    watch = watch_of(tmp_path, ended=False)
    assert [each.cut_off for each in merged([small_client("a", failed=71)], [watch]).merged_from] == [
        False,
        True,
    ]


def test_a_latency_that_a_stream_has_not_is_no_broken_limit(tmp_path: Path, port: int) -> None:
    args = [
        "-r",
        f"127.0.0.1:{port}",
        "-c",
        "1",
        "-d",
        "10000",
        "--duration",
        "1300ms",
        "-s",
        "1",
        "--json",
    ]
    lines = fork_cli("client", *args).stdout.splitlines()
    path = tmp_path / "cut.json"
    path.write_text("\n".join(line for line in lines if '"event":"result"' not in line.replace(" ", "")))
    done = fork_cli("report", str(path), "--max-p99", "50ms")
    assert (done.returncode, "cut off" in done.stderr) == (4, True), done.stderr


def test_a_period_is_never_shorter_than_no_time(tmp_path: Path, port: int) -> None:
    out = tmp_path / "short.json"
    fork_cli("client", "-r", f"127.0.0.1:{port}", "-c", "1", "-d", "1000", "--count", "3", "-o", str(out))
    (period,) = json.loads(out.read_text())["periods"]
    assert period["elapsed_s"] > 0
    assert period["began_at"] > BEGAN
