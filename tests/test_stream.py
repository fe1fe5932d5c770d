"""Runs that are read from their streams: whole, or as far as they came."""

import gzip
import json
import os
import re
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from snat_race.analysis import kept_periods
from snat_race.analysis.merge import merged
from snat_race.cli import result_lines
from snat_race.cli.result_reader import read, read_all, read_runs
from snat_race.errors import UsageError
from snat_race.results.schema import (
    ClientResult,
    LabResult,
    MergedPart,
    MergedResult,
    WatchResult,
    WindowPoint,
)
from tests.conftest import fork_cli
from tests.results import BEGAN, small_client, small_lab, small_watch
from tests.streams import client_events, lines_of, watch_events, write_large

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


# ---- several runs in one file


def written(path: Path, *parts: list[str] | str) -> Path:
    """Write lines of streams, or text that is no whole line, one after the other."""
    path.write_text("".join(part if isinstance(part, str) else "\n".join([*part, ""]) for part in parts))
    return path


def test_runs_that_were_appended_are_all_read(tmp_path: Path) -> None:
    path = written(
        tmp_path / "all.json",
        lines_of(client_events("a", 3)),
        lines_of(client_events("b", 2)),
        lines_of(watch_events("w", 4)),
    )
    assert [(result.kind, result.run_id) for result in read_runs(path)] == [
        ("client", "a"),
        ("client", "b"),
        ("watch", "w"),
    ]
    result = read_all([path])
    assert isinstance(result, MergedResult)
    assert result.summary.attempted == 50_000
    assert [part.run_id for part in result.merged_from] == ["a", "b", "w"]


def test_runs_that_were_appended_are_those_of_several_files(tmp_path: Path) -> None:
    runs = [lines_of(client_events("a", 3)), lines_of(client_events("b", 2))]
    together = read_all([written(tmp_path / "all.json", *runs)])
    apart = read_all([written(tmp_path / f"{number}.json", run) for number, run in enumerate(runs)])
    assert together == apart


def test_a_run_that_was_cut_off_in_mid_line_is_read_and_so_is_the_next(tmp_path: Path) -> None:
    cut = lines_of(client_events("a", 3))[:3]
    for broken in (
        '{"event": "per',
        lines_of(client_events("a", 3))[-1][:-30],
        '{"event": "failure", "a',
        "{",
    ):
        path = written(tmp_path / "all.json", cut, broken, lines_of(client_events("b", 2)))
        first, second = read_runs(path)
        assert isinstance(first, ClientResult)
        assert isinstance(second, ClientResult)
        assert (first.run_id, first.cut_off, first.summary.attempted) == ("a", True, 20_000), broken
        assert (second.run_id, second.cut_off, second.summary.attempted) == ("b", False, 20_000), broken


def test_a_run_without_an_end_in_mid_file_counts_its_own_periods_only(tmp_path: Path) -> None:
    path = written(
        tmp_path / "all.json",
        lines_of(watch_events("v", 2), ended=False),
        lines_of(watch_events("w", 5), ended=False),
    )
    assert [
        (result.run_id, len(result.periods), sum(result.total.conntrack.drop))
        for result in read_runs(path)
        if isinstance(result, WatchResult) and result.total and result.total.conntrack
    ] == [("v", 2, 14), ("w", 5, 35)]


def test_a_run_without_a_period_is_left_out(tmp_path: Path) -> None:
    start = lines_of(client_events("a"))[:1]
    path = written(tmp_path / "all.json", start, lines_of(client_events("b")), start, '{"event": "peri')
    assert [result.run_id for result in read_runs(path)] == ["b"]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((lines_of(client_events("a")), lines_of(client_events("a"))), "the same run twice"),
        (
            (lines_of(client_events("a"))[:-1], lines_of(client_events("b"))[-1:]),
            "another run than that of line 1",
        ),
        ((lines_of(client_events("a")), "rubbish\n", lines_of(client_events("b"))), "line 6: "),
        ((lines_of(client_events("a"))[:2], "{,}\n", lines_of(client_events("a"))[2:4]), "line 3: "),
        (
            (lines_of(client_events("a"))[:2], '{"event": "period", "summary": 5}\n'),
            "line 3: it cannot be",
        ),
        (
            (lines_of(watch_events("a"))[:2], '{"event": "period", "netns": ["x"]}\n'),
            "line 3: netns cannot be",
        ),
        (
            (lines_of(watch_events("a"))[:2], '{"event": "period", "schema_version": 2, "netns": 5}\n'),
            "line 3: netns cannot be '5'",
        ),
        (
            (lines_of(client_events("a"))[:2], '{"event": "period", "schema_version": 2, "summary": 5}\n'),
            "line 3: it cannot be '5'",
        ),
        (
            (
                lines_of(watch_events("a"))[:2],
                '{"event": "period", "schema_version": 2, "netns\n',
                lines_of(watch_events("a"))[2:3],
            ),
            "line 3: it is no JSON",
        ),
        (
            (lines_of(client_events("a"))[:1], '{"a": ' + "[" * 10_000 + "\n", "{}\n"),
            "line 2: ",
        ),
    ],
)
def test_what_is_wrong_with_a_stream_is_one_line_that_says_where(
    tmp_path: Path, parts: tuple[list[str] | str, ...], said: str
) -> None:
    path = written(tmp_path / "all.json", *parts)
    with pytest.raises(UsageError, match=re.escape(said)) as refused:
        read_all([path])
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_compare_takes_one_run_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "all.json", lines_of(client_events("a")), lines_of(client_events("b")))
    done = fork_cli("compare", str(path), str(written(tmp_path / "c.json", lines_of(client_events("c")))))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "all.json: holds 2 runs; give each in a file of its own" in done.stderr


def test_a_watch_of_an_older_version_has_the_periods_of_its_stream(tmp_path: Path) -> None:
    *lines, end = lines_of(watch_events("w", 3))
    older = json.dumps(json.loads(end) | {"periods": []})
    watch = read(written(tmp_path / "w.json", lines, [older]))
    assert isinstance(watch, WatchResult)
    assert (watch.cut_off, len(watch.periods)) == (False, 3)


@pytest.mark.parametrize("events", [client_events, watch_events])
@pytest.mark.parametrize("periods", [1, 40])
def test_a_period_counts_the_same_however_its_event_is_written(
    tmp_path: Path, events: Callable[..., Iterator[dict[str, Any]]], periods: int
) -> None:
    ours = lines_of(events("a", periods), ended=False)
    as_we_write = read(written(tmp_path / "ours.json", ours))
    for separators, order in (((",", ":"), 1), ((", ", ": "), -1)):
        others = [
            json.dumps(dict([*json.loads(line).items()][::order]), separators=separators) for line in ours
        ]
        assert read(written(tmp_path / "others.json", others)) == as_we_write


@pytest.mark.parametrize("at_once", [1, 700, 5000, 1 << 20])
def test_a_stream_is_the_same_in_pieces_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    parts = (
        lines_of(client_events("a", 7, failures=3), ended=False),
        '{"event": "per',
        lines_of(watch_events("v", 9), ended=False),
        lines_of(client_events("b", 4, failures=2)),
        lines_of(watch_events("w", 5), ended=False),
    )
    path = written(tmp_path / "all.json", *parts)
    expected = read_runs(path)
    monkeypatch.setattr(result_lines, "_AT_ONCE", at_once)
    assert read_runs(path) == expected
    assert [result.run_id for result in expected] == ["a", "v", "b", "w"]


@pytest.mark.parametrize("at_once", [1, 1 << 20])
def test_a_damaged_period_among_failed_dials_is_found_at_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    lines = lines_of(client_events("a", 6, failures=3), ended=False)
    damaged = 1 + 4 * 4 - 1
    lines[damaged] = lines[damaged].replace('"attempted": 10000', '"attempted": -1')
    monkeypatch.setattr(result_lines, "_AT_ONCE", at_once)
    with pytest.raises(UsageError, match=rf"line {damaged + 1}: attempted cannot be '-1'"):
        read_runs(written(tmp_path / "a.json", lines))


# ---- long streams


@pytest.mark.parametrize("kind", ["client", "watch"])
@pytest.mark.parametrize("ended", [True, False])
def test_reading_a_long_stream_takes_no_memory_for_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, ended: bool
) -> None:
    monkeypatch.setattr(kept_periods, "MOST_PERIODS", 16)
    path = tmp_path / "long.json"
    with path.open("w") as file:
        write_large(file, kind, 4, ended=ended)
    tracemalloc.start()
    try:
        result = read(path)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(result, ClientResult | WatchResult)
    assert result.cut_off is not ended
    assert held < 1_500_000


# ---- files that are none


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe{\x00}\x00", "UTF-16"),
        (b"\xfe\xff\x00{\x00}", "UTF-16"),
        (gzip.compress(b"{}", mtime=0), "gunzip"),
        (b"\x28\xb5\x2f\xfd....", "unzstd"),
        (b"\x00\x01\x02\x03\n\x7fELF", "is no result"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\n \n\t\n", "is empty"),
        (b'{"kind": "client", "schema_version": 2, "run_id": "\\ud800"}', "is no result"),
        (b'{"kind": "client", "schema_version": 2, "elapsed_s": NaN}', "is no result"),
        (b'{"kind": "client", "schema_version": ' + b"9" * 5000 + b"}", "is no result"),
        (
            b'{"kind": "client", "schema_version": 2, "\\u001b[2J\\n": 5, "tool": {"\\n": 1}}',
            "is no result",
        ),
        (b'{"kind": ["client"]}', "holds no result"),
        (b'{"kind": "\\n"}', "holds no result"),
    ],
)
def test_what_is_no_text_of_ours_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert str(refused.value).isprintable()


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(lines_of(client_events("a"))).encode())
    assert read(path).run_id == "a"


@pytest.mark.parametrize("text", ["{\n" + " " * 3000, '{"a": "' + "x" * 3000, "[\n" * 1500])
def test_more_than_an_object_may_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(result_lines, "LARGEST_OBJECT", 2000)
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"jq 'del\(.periods\)'"):
        read(path)


def test_a_pipe_is_read_to_its_end_and_no_further_than_an_object_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def piped(text: str) -> Path:
        path = tmp_path / "pipe"
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        writer = threading.Thread(target=written, args=(path, text), daemon=True)
        writer.start()
        return path

    stream = "\n".join(lines_of(client_events("a"), ended=False))
    assert isinstance(result := read(piped(stream)), ClientResult)
    assert (result.cut_off, result.summary.attempted) == (True, 30_000)
    monkeypatch.setattr(result_lines, "LARGEST_OBJECT", 2000)
    with pytest.raises(UsageError, match="too much for a pipe"):
        read(piped(stream))
    with pytest.raises(UsageError, match="too much for a pipe"):
        read(Path("/dev/zero"))


# ---- figures that cannot be


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("summary", "failed"), -5, "summary.failed cannot be '-5'"),
        (("summary", "attempted"), 7, "must add up to attempted"),
        (("summary", "errors"), {"TIMEOUT": 8}, "must add up to failed"),
        (("summary", "overruns"), 10**30, "summary.overruns cannot be"),
        (("summary", "loss_rate"), 1.5, "summary.loss_rate cannot be"),
        (("summary", "latency_ns"), {"min": -1}, "summary.latency_ns"),
        (
            ("summary", "counters"),
            [{"netns": "x", "began_at": "soon", "elapsed_s": 1, "tcp": {}}],
            "began_at",
        ),
        (("elapsed_s",), -1, "elapsed_s cannot be"),
        (("started_at",), "yesterday", "started_at: "),
        (("spec", "workers"), 10**300, "spec: holds a number beyond all sense"),
        (("kernel", "destination"), {"ListenDrops": -1}, "kernel.destination.ListenDrops cannot be"),
        (("diagnosis", 0, "losses"), -1, "diagnosis.0.losses cannot be"),
        (("nat",), {"ports": 0}, "nat.ports cannot be"),
    ],
)
def test_a_figure_that_cannot_be_is_refused(
    tmp_path: Path, where: tuple[str | int, ...], value: object, said: str
) -> None:
    document: Any = small_client("a", failed=7).model_dump(mode="json")
    *way, last = where
    part = document
    for name in way:
        part = part[name]
    part[last] = value
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document, indent=1))
    with pytest.raises(UsageError, match=re.escape(said)) as refused:
        read(path)
    assert "\n" not in str(refused.value)


def test_a_merged_result_without_a_client_is_refused(tmp_path: Path) -> None:
    document = merged([small_client("a"), small_client("b")], []).model_dump(mode="json")
    path = tmp_path / "x.json"
    for parts in ([], [part | {"kind": "watch"} for part in document["merged_from"]]):
        path.write_text(json.dumps(document | {"merged_from": parts}))
        with pytest.raises(UsageError, match="merged_from must hold a client"):
            read(path)


def test_two_rules_of_one_name_are_no_lab() -> None:
    document = small_lab().model_dump()
    with pytest.raises(ValidationError, match="variants must differ in their names"):
        LabResult(**document | {"variants": document["variants"] * 2})


def test_a_sum_beyond_all_figures_is_no_merged_result(tmp_path: Path) -> None:
    def almost(run_id: str) -> list[str]:
        document = json.loads(lines_of(client_events(run_id))[-1])
        document["summary"]["late"] = 10**20
        return [json.dumps(document)]

    with pytest.raises(UsageError, match=r"cannot be merged: late cannot be"):
        read_all([written(tmp_path / "all.json", almost("a"), almost("b"))])


def test_parts_and_points_that_cannot_be_are_refused() -> None:
    merged_result = merged([small_client("a", failed=7), small_client("b")], [])
    part = merged_result.merged_from[0].model_dump()
    with pytest.raises(ValidationError, match="must not exceed attempted"):
        MergedPart(**part | {"failed": part["attempted"] + 1})
    with pytest.raises(ValidationError, match="must not exceed paired"):
        WindowPoint(low_ns=0, high_ns=1, paired=3, collisions=4)
