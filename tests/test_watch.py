"""watch against conntrack -S, in text, as JSON and for Prometheus; SYNs sent again."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from snat_race.kernel import counters, netns_lookup
from snat_race.kernel.counters import CounterReader
from snat_race.kernel.tools import where
from snat_race.lab.topology import build
from snat_race.results.counters import CONNTRACK_COUNTERS
from snat_race.runs import watch
from snat_race.runs.signals import StopSignals
from tests.conftest import (
    COMMAND,
    PRIVATE,
    SOON_S,
    TWO_CPUS,
    clean_environment,
    eventually,
    fork_cli,
    in_sandbox,
    start_cli,
)
from tests.stage import SECOND_IP, Stage, drop_forwarded
from tests.test_causes import RACING

NAMES = {"insert_failed": "insert_failed", "drop": "drop", "found": "found", "clash_resolve": "clashres"}


def conntrack_s(stage: Stage) -> dict[str, list[int]]:
    with stage.source.entered():
        text = subprocess.check_output(["conntrack", "-S"], text=True, stderr=subprocess.DEVNULL)
    rows = [dict(field.split("=") for field in row.split() if "=" in field) for row in text.splitlines()]
    ours = {name: name if name in rows[0] else theirs for name, theirs in NAMES.items()}
    return {name: [int(row[theirs]) for row in rows] for name, theirs in ours.items()}


@PRIVATE
@TWO_CPUS
def test_watch_shows_what_conntrack_shows_on_the_right_cpus(tmp_path: Path) -> None:
    if not where("conntrack"):
        pytest.skip("needs the conntrack binary to compare with")

    def watch() -> tuple[str, dict[str, list[int]], dict[str, list[int]]]:
        stage = Stage(backlog=None)
        stage.accept_all()
        stage.add_address(SECOND_IP)
        before = conntrack_s(stage)
        with stage.source.entered():
            watching = start_cli("watch", "--json", "-i", "500ms", "-o", str(tmp_path / "watch.json"))
        assert watching.stdout
        begun = watching.stdout.readline()  # it has read the counters by then
        # Some losses, and two periods of the watch at the least.
        ends_s = time.monotonic() + 1.5
        lost = stage.insert_failed()
        stage.run_until(
            lambda: time.monotonic() > ends_s and stage.insert_failed() > lost,
            *RACING,
            out=tmp_path / "client.json",
        )
        watching.send_signal(signal.SIGINT)
        rest, complained = watching.communicate(timeout=SOON_S)
        said = begun + rest
        assert watching.returncode == 0, complained
        after = conntrack_s(stage)
        stage.server.terminate()
        return said, before, after

    said, before, after = in_sandbox(watch)
    events = [json.loads(line) for line in said.splitlines()]
    assert [event["event"] for event in events] == ["start", *["period"] * (len(events) - 2), "result"]
    assert len(events) >= 5
    for name in NAMES:
        laps = [event["conntrack"][name] for event in events[1:-1]]
        risen = [sum(column) for column in zip(*laps, strict=True)]
        assert risen == [b - a for a, b in zip(before[name], after[name], strict=True)], name
        assert events[-1]["total"]["conntrack"][name] == risen
    assert sum(after["insert_failed"]) > 0
    assert json.loads((tmp_path / "watch.json").read_text()) == {
        k: v for k, v in events[-1].items() if k != "event"
    }


@PRIVATE
def test_proc_says_the_same_as_netlink() -> None:
    def both() -> tuple[counters.Reading, counters.Reading]:
        stage = Stage()
        stage.hold([20000, 20001])
        netlink = counters.read_conntrack(stage.source)
        with stage.source.entered():
            return netlink, counters.parse_stat(Path("/proc/thread-self/net/stat/nf_conntrack").read_text())

    netlink, proc = in_sandbox(both)
    assert proc == netlink


OLD = (
    "entries  searched found new invalid ignore delete delete_list insert insert_failed drop early_drop "
    "icmp_error  expect_new expect_create expect_delete search_restart\n"
    "0000000a  00000001 000000ff 00000000 00000002 00000000 00000000 00000000 00000000 00000010 00000011 "
    "00000000 00000003  00000000 00000000 00000000 00000004\n"
)


def test_columns_are_found_by_name_whatever_the_version() -> None:
    read = counters.parse_stat(OLD)
    assert set(read) == set(CONNTRACK_COUNTERS)
    expected = {
        "found": 255,
        "invalid": 2,
        "insert_failed": 16,
        "drop": 17,
        "error": 3,
        "search_restart": 4,
    }
    assert {name: values[0] for name, values in read.items() if values[0]} == expected


@PRIVATE
def test_without_netlink_proc_is_read_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(counters, "read_conntrack", refuse)

    def read() -> tuple[str, str, int]:
        stage = Stage()
        stage.hold([20000])
        reader = CounterReader(stage.source)
        return reader.read_from, reader.netlink_refusal or "", reader.read().count

    source, why, count = in_sandbox(read)
    assert (source, count >= 1) == ("/proc/net/stat/nf_conntrack", True)
    assert "not permitted" in why


@PRIVATE
def test_lines_when_piped_a_warning_in_a_container_and_little_work() -> None:
    def watch() -> tuple[str, str, float]:
        stage = Stage()
        with stage.container.entered():
            watching = start_cli("watch", "-i", "200ms", "--prometheus", "127.0.0.1:9465")
            assert watching.stdout
            first = watching.stdout.readline()
            scraped = (
                urllib.request.urlopen("http://127.0.0.1:9465/metrics", timeout=SOON_S).read().decode()
            )
        process = psutil.Process(watching.pid)
        began = process.cpu_times()
        lines = [watching.stdout.readline() for _ in range(10)]
        spent = process.cpu_times()
        share = (spent.user + spent.system - began.user - began.system) / (10 * 0.2)
        watching.terminate()
        said, complained = watching.communicate(timeout=SOON_S)
        assert watching.returncode == 0, complained
        assert all("entries" in line for line in [first, *lines])
        assert "In all" in said
        return complained, scraped, share

    complained, scraped, share = in_sandbox(watch)
    assert "container's" in complained
    assert re.search(r"^node_nf_conntrack_stat_insert_failed 0.0$", scraped, re.MULTILINE)
    assert re.search(r'^snat_race_conntrack_drop_total\{cpu="0"\} 0.0$', scraped, re.MULTILINE)
    assert re.search(r"^node_netstat_TcpExt_ListenDrops \d", scraped, re.MULTILINE)
    assert share <= 0.05  # at five readings a second


def test_a_live_table_on_a_terminal_marks_what_changed() -> None:
    from rich.console import Console

    from snat_race.report.live.watch_table import live_table
    from snat_race.results.counters import CONNTRACK_COUNTERS, ConntrackDelta, CounterDelta

    rise = {name: [0, 0] for name in CONNTRACK_COUNTERS} | {"insert_failed": [0, 7]}
    lap = CounterDelta(
        netns="x",
        began_at="2026-01-01T00:00:00",
        elapsed_s=1,
        conntrack=ConntrackDelta(**rise, count=3, max=9),
        tcp={"ListenDrops": 2},
    )
    console = Console(width=100, force_terminal=True, record=True, file=io.StringIO())
    console.print(live_table("here", lap, lap, 4))
    text = console.export_text(clear=False)
    (row,) = [line for line in text.splitlines() if "insert_failed" in line]
    assert re.search(r"\+7 .*7 .*· .*\+7", row)
    assert "ListenDrops" in text
    assert "\x1b[1;31m+7" in console.export_text(styles=True)


@PRIVATE
def test_connects_whose_syn_was_lost_are_counted_by_how_often(tmp_path: Path) -> None:
    """Nothing is forwarded until the client has sent its first SYNs."""

    def late() -> dict[str, Any]:
        from pyroute2.nftables.main import NFTables

        stage, out = Stage(backlog=None), tmp_path / "client.json"
        stage.accept_all()
        drop_forwarded(stage.source)
        options = ("--mode", "independent", "-d", "5000000", "-t", "3000", "--count", "2", "-c", "2")
        client = stage.start(*options, out=out)
        waiting = {"02"}
        while waiting != {"open"}:
            with stage.container.entered():
                table = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
            if sum(line.split()[3] == "02" for line in table) == 2:
                with stage.source.entered(), NFTables(nfgen_family=2) as nft:
                    nft.begin()
                    nft.table("del", name="closed")
                    nft.commit()
                waiting = {"open"}
        result = stage.finish(client, out)
        stage.server.terminate()
        return result

    result = in_sandbox(late)
    assert result["summary"]["connected"] == 2
    assert result["summary"]["syn_retransmits"] == {"1": 2}
    (cause,) = result["diagnosis"]
    assert (cause["cause"], cause["losses"]) == ("unexplained", 2)


def test_a_namespace_is_found_by_pid_and_path() -> None:
    import os

    own = netns_lookup.here()
    for name in (str(os.getpid()), "/proc/self/ns/net"):
        assert netns_lookup.same(own, netns_lookup.find(name))


@pytest.mark.parametrize("text", [":{}", "localhost:{}", "[::1]:{}"])
def test_prometheus_is_served_to_this_host_only_unless_told(
    text: str, port: int, reaped: list[subprocess.Popen[str]]
) -> None:
    pytest.importorskip("prometheus_client")
    watching = start_cli("watch", "--json", "--prometheus", text.format(port))
    reaped.append(watching)
    assert watching.stdout
    assert "start" in watching.stdout.readline()
    sockets = psutil.Process(watching.pid).net_connections("tcp")
    listening = {sock.laddr.ip for sock in sockets if sock.status == psutil.CONN_LISTEN}
    assert listening
    assert listening <= {"127.0.0.1", "::1"}


def test_watch_needs_prometheus_client_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError")
    done = subprocess.run(
        [*COMMAND, "watch", "--prometheus", ":9466"],
        capture_output=True,
        text=True,
        timeout=SOON_S,
        check=False,
        env=clean_environment() | {"PYTHONPATH": f"{tmp_path}:{clean_environment()['PYTHONPATH']}"},
    )
    assert (done.returncode, "pip install" in done.stderr) == (4, True), sys.version


@PRIVATE
def test_a_watch_ends_with_what_it_watches(tmp_path: Path) -> None:
    out = tmp_path / "watch.json"

    def ended() -> tuple[int | None, str, str]:
        counters.read_conntrack(build(2).source)  # so that conntrack is there
        child = subprocess.Popen(["unshare", "-n", "sleep", "50"])
        eventually(lambda: not netns_lookup.same(netns_lookup.here(), netns_lookup.find(str(child.pid))))
        watch = start_cli("watch", "--netns", str(child.pid), "-i", "100ms", "--output", str(out))
        assert watch.stdout
        watch.stdout.readline()
        child.kill()
        child.wait()
        said, complained = watch.communicate(timeout=SOON_S)
        return watch.returncode, said, complained

    code, said, complained = in_sandbox(ended)
    assert (code, "has ended" in complained, "In all" in said) == (4, True, True)
    assert json.loads(out.read_text())["periods"]


@PRIVATE
def test_a_watch_lasts_as_long_as_it_should_however_long_the_rules_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_rules = watch.rules_for

    def slowly(*args: Any) -> Any:
        time.sleep(0.5)  # as nft does, of many rules
        return read_rules(*args)

    monkeypatch.setattr(watch, "rules_for", slowly)
    out = tmp_path / "watch.json"
    done = in_sandbox(lambda: fork_cli("watch", "--duration", "400ms", "-o", str(out)))
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["total"]["elapsed_s"] >= 0.4


def test_a_namespace_of_two_names_is_watched_once() -> None:
    assert len(netns_lookup.find_all([str(os.getpid()), "/proc/self/ns/net"])) == 1


def test_a_signal_wakes_who_waits() -> None:
    """A lock in the handler, as threading.Event has one, stopped one of some 150 waits for good."""
    with StopSignals() as warm:
        assert not warm.wait(0)
    for microseconds in range(1, 200):
        with StopSignals() as interrupt:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
            signal.setitimer(signal.ITIMER_REAL, microseconds / 1e6)
            began_s = time.monotonic()
            assert interrupt.wait(2 * SOON_S)
            assert time.monotonic() - began_s < SOON_S, "it was not woken"
