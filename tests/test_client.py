import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from snat_race.load.dialer_config import DialerConfig, Exchange
from snat_race.load.dialer_pool import DialerPool, Placement
from snat_race.load.endpoint import Endpoint
from snat_race.load.servers import TcpServer
from tests.conftest import (
    SOON_S,
    RunningServer,
    clean_environment,
    eventually,
    fork_cli,
    gone,
    run_cli,
    start_cli,
)

BLOCK = re.compile(
    r"""^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} Summary of the last 1 seconds:
 {13}Max response time: {1,3}\d+\.\dms
 {17}99 percentile: {1,3}\d+\.\dms
 {17}95 percentile: {1,3}\d+\.\dms
 {24}median: {1,3}\d+\.\dms
 {18}Request Rate: {1,5}\d+req/s

Requests since start \(error/total\): {1,5}\d+/\d+
$""",
    re.MULTILINE,
)


def result_of(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.mark.parametrize("close", ["rst", "fin"])
@pytest.mark.parametrize("mode", ["rendezvous", "independent"])
def test_known_workload(server: RunningServer, tmp_path: Path, mode: str, close: str) -> None:
    """23 dials: 23 samples, 23 accepts."""
    out = tmp_path / "r.json"
    args = ["-c", "4", "-d", "2000", "--count", "23", "--mode", mode, "--close", close]
    done = fork_cli("client", "-r", server.address, *args, "--output", str(out))
    assert done.returncode == 0, done.stderr
    summary = result_of(out)["summary"]
    assert (summary["attempted"], summary["connected"], summary["failed"]) == (23, 23, 0)
    assert (summary["overruns"], summary["cut_short"]) == (0, 0)
    assert server.stop() == 23


def test_fewer_dials_than_workers(server: RunningServer) -> None:
    assert fork_cli("client", "-r", server.address, "-c", "8", "--count", "3").returncode == 0
    assert server.stop() == 3


def test_warm_up_is_dialled_but_not_counted(server: RunningServer, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    args = ["-c", "1", "-d", "1000", "--warmup", "500ms", "--count", "5", "-o", str(out)]
    assert fork_cli("client", "-r", server.address, *args).returncode == 0
    assert result_of(out)["summary"]["attempted"] == 5
    assert server.stop() >= 5 + 20


def test_flat_out_attempted_is_recorded_and_accepted_is_connected(
    server: RunningServer, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    args = [
        "-c",
        "2",
        "--mode",
        "independent",
        "-d",
        "0",
        "--count",
        "20000",
        "-s",
        "1",
        "-o",
        str(out),
    ]
    done = fork_cli("client", "-r", server.address, *args)
    assert done.returncode == 0, done.stderr
    result = result_of(out)
    summary = result["summary"]
    assert summary["attempted"] == summary["connected"] + summary["failed"] + summary["overruns"] == 20_000
    assert summary["errors"] == {}
    assert server.stop() == summary["connected"]
    assert sum(period["connected"] for period in result["periods"]) <= summary["connected"]
    latency = summary["latency_ns"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]


def test_the_block_is_the_ancestors(server: RunningServer) -> None:
    done = fork_cli(
        "client", "-r", server.address, "-c", "2", "-d", "5000", "-s", "1", "--duration", "2.5s"
    )
    assert done.returncode == 0
    assert len(BLOCK.findall(done.stdout)) == 2, done.stdout
    for word in ("attempted", "connected", "late slots", "overruns", "p99.9"):
        assert word in done.stdout


def test_a_signal_ends_the_run_normally(server: RunningServer) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    clients = [
        start_cli("client", "-r", server.address, "-c", "2", "-d", "500000", "-t", "600000", "-s", "600")
        for _ in numbers
    ]
    connected = 0
    for number, client in zip(numbers, clients, strict=True):
        assert client.stdout
        assert "Starting" in client.stdout.readline()
        client.send_signal(number)
        out, err = client.communicate(timeout=SOON_S)  # the dials and the period would take much longer
        assert client.returncode == 0, err
        connected += int(re.findall(r"connected\s+([\d,]+)", out)[0].replace(",", ""))
    assert server.stop() == connected


def test_a_stop_cuts_blocking_dials_short(tmp_path: Path) -> None:
    with full_backlog() as address:
        out = tmp_path / "r.json"
        client = start_cli(
            "client", "-r", address, "-c", "2", "-t", "600000", "-d", "10000", "-o", str(out)
        )
        assert client.stdout
        assert "Starting" in client.stdout.readline()
        eventually(lambda: len(in_connect(client.pid)) == 2)
        client.send_signal(signal.SIGINT)
        client.communicate(timeout=SOON_S)
        assert client.returncode == 0
        summary = result_of(out)["summary"]
        assert summary["cut_short"] == 2
        assert summary["failed"] == 0, summary


class full_backlog:  # noqa: N801
    """A listener whose accept queue is full: further SYNs are dropped."""

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._fillers = []
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._listener.getsockname())
            self._fillers.append(filler)
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def __exit__(self, *_: object) -> None:
        for sock in [*self._fillers, self._listener]:
            sock.close()


def in_connect(pid: int) -> list[psutil.Process]:
    """The workers of ``pid`` that have a SYN on the way."""
    return [
        child
        for child in psutil.Process(pid).children()
        if any(each.status == psutil.CONN_SYN_SENT for each in child.net_connections("tcp"))
    ]


def test_timeouts_are_told_with_both_addresses() -> None:
    with full_backlog() as address:
        done = fork_cli(
            "client", "-r", address, "-c", "1", "-t", "50", "-d", "100000", "--count", "12", "-s", "60"
        )
    lines = re.findall(
        rf'error after (\d+)ms, err: "dial tcp 127\.0\.0\.1:\d+->{re.escape(address)}: i/o timeout"',
        done.stdout,
    )
    assert len(lines) == 10, done.stdout
    waits_ms = sorted(map(int, lines))
    assert waits_ms[0] >= 50, waits_ms
    assert waits_ms[5] < 300, waits_ms  # of a machine that pauses, one or the other takes longer
    assert "TIMEOUT 12" in done.stdout


def test_refused_dials_are_errors_and_a_threshold_is_exit_3(port: int) -> None:
    done = fork_cli("client", "-r", f"127.0.0.1:{port}", "--count", "6", "--max-error-rate", "50%")
    assert done.returncode == 3
    assert "connection refused" in done.stdout
    assert "--max-error-rate" in done.stderr


def test_json_events(server: RunningServer) -> None:
    done = fork_cli("client", "-r", server.address, "-c", "1", "-s", "1", "--duration", "1.5s", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["start", "period", "result"]
    assert events[-1]["kind"] == "client"
    assert all(event["schema_version"] == 2 for event in events)
    assert "Summary of the whole run" in done.stderr


@pytest.mark.parametrize("mode", ["rendezvous", "independent"])
def test_each_slot_is_dialled_or_late(tmp_path: Path, mode: str) -> None:
    out = tmp_path / "r.json"
    args = ["-c", "1", "-t", "100", "-d", "10000", "--duration", "1s", "--mode", mode, "-o", str(out)]
    with full_backlog() as address:
        fork_cli("client", "-r", address, *args)
    summary = result_of(out)["summary"]
    assert summary["failed"] == summary["attempted"] >= 5
    assert abs(summary["attempted"] + summary["late"] - 100) <= 1


@pytest.mark.parametrize(
    ("args", "environment"),
    [
        (["client", "--remote-addr", "{}", "-c", "4", "-d", "1000", "-t", "500", "-s", "5"], {}),
        (["c", "-r", "{}", "--go-routines", "2"], {}),
        (["client"], {"REMOTE_ADDR": "{}", "GO_ROUTINES": "2"}),
    ],
)
def test_the_ancestors_command_lines(
    server: RunningServer, args: list[str], environment: dict[str, str]
) -> None:
    at = server.address
    client = start_cli(*(a.format(at) for a in args), **{k: v.format(at) for k, v in environment.items()})
    assert client.stdout
    assert "Starting" in client.stdout.readline()
    workers = 4 if "-d" in args else 2
    eventually(lambda: len(psutil.Process(client.pid).children()) == workers)
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=SOON_S)
    assert client.returncode == 0, err


def test_many_workers_on_few_cpus_stay_responsive(server: RunningServer) -> None:
    workers = 8 * len(os.sched_getaffinity(0))
    count = workers * 15  # one each 100 ms
    done = fork_cli(
        "client", "-r", server.address, "--workers", str(workers), "--count", str(count), "-s", "1"
    )
    assert done.returncode == 0
    assert "share" in done.stderr
    assert len(BLOCK.findall(done.stdout)) >= 1
    assert server.stop() == count


def test_workers_die_within_a_second_of_a_killed_parent(server: RunningServer) -> None:
    client = start_cli("client", "-r", server.address, "-c", "4", "-d", "1000")
    assert client.stdout
    client.stdout.readline()
    workers = psutil.Process(client.pid).children()
    assert len(workers) == 4
    shared = set(Path("/dev/shm").iterdir())
    client.kill()
    client.communicate()
    eventually(lambda: all(gone(worker) for worker in workers), within_s=1)
    assert set(Path("/dev/shm").iterdir()) <= shared


def test_a_killed_worker_is_reported_and_totals_stay_right(server: RunningServer, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    client = start_cli("client", "-r", server.address, "-c", "2", "-d", "2000", "-o", str(out))
    assert client.stdout
    client.stdout.readline()
    victim = psutil.Process(client.pid).children()[0]
    victim.kill()
    _, err = client.communicate(timeout=SOON_S)
    assert client.returncode == 1
    assert f"worker 0 (pid {victim.pid}) was killed by SIGKILL" in err
    summary = result_of(out)["summary"]
    assert summary["attempted"] == summary["connected"] + summary["failed"] > 0
    # The victim may have been killed between its connect and its store.
    assert 0 <= (server.stop() or 0) - summary["connected"] <= summary["cut_short"] <= 1


def test_workers_are_pinned_each_to_a_cpu_this_process_may_use(server: RunningServer) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    client = start_cli("client", "-r", server.address, "-c", str(len(cpus)))
    assert client.stdout
    client.stdout.readline()
    pins = [worker.cpu_affinity() for worker in psutil.Process(client.pid).children()]
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=SOON_S)
    assert pins == [[cpu] for cpu in cpus]


def test_attempted_is_recorded_plus_overruns_even_when_the_ring_overflows(port: int) -> None:
    config = DialerConfig(
        family=socket.AF_INET, remote=("127.0.0.1", port), timeout_ms=500, exchange=Exchange.tcp_rst
    )
    with (
        TcpServer(Endpoint("127.0.0.1", port, port), [None]) as server,
        DialerPool([Placement(config=config)], lambda: False, 1024) as pool,
    ):
        for _ in pool.round(None, 5000, every_s=3600):
            pass  # nothing is drained meanwhile, so a ring of 1024 runs over
        counts = pool.counts()
        assert counts.overruns > 0
        assert counts.attempted == counts.recorded + counts.overruns
        assert counts.cut_short == 0
        assert server.stop() == counts.attempted


def test_head_ends_the_run_quietly(server: RunningServer) -> None:
    client = start_cli("client", "-r", server.address, "-c", "1", "-s", "1")
    assert client.stdout
    client.stdout.readline()
    client.stdout.close()
    client.wait(timeout=SOON_S)
    assert client.stderr
    assert "Traceback" not in client.stderr.read()
    assert client.returncode == 0


def test_the_output_file_is_never_half_written(server: RunningServer, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    out.write_text("old")
    client = start_cli("client", "-r", server.address, "-c", "1", "-o", str(out))
    assert client.stdout
    client.stdout.readline()
    assert out.read_text() == "old"
    client.kill()
    client.communicate()
    assert out.read_text() == "old"
    assert [path for path in tmp_path.iterdir() if path != out] == []


def test_console_script_and_module_are_the_same() -> None:
    script = Path(sys.executable).with_name("snat-race")
    if not script.exists():
        pytest.skip("snat_race is not installed beside this Python")
    environment = clean_environment()
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == run_cli("--help").stdout
