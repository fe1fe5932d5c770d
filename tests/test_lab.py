"""The lab, for real: the kernel loses SYNs here, and every one of them is explained."""

import codecs
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from snat_race.cli import app
from snat_race.errors import EnvironmentLacks
from snat_race.kernel import counters
from snat_race.kernel.netns import enter_sandbox
from snat_race.lab import variants
from snat_race.lab.scenarios import SCENARIOS
from snat_race.lab.settings import Backend
from snat_race.lab.topology import IPV4, build
from snat_race.lab.variant_loader import VariantLoader
from tests.conftest import (
    COMMAND,
    MOST_S,
    PRIVATE,
    SOON_S,
    TWO_CPUS,
    ask_for_priority,
    assert_all_clashed,
    clean_environment,
    eventually,
    fewest_met,
    fork_cli,
    gone,
    in_fork,
    in_sandbox,
    lab,
    network_namespaces,
    run_cli,
    start_cli,
    until_enough,
    without_a_trace,
)

_PR_SET_DUMPABLE, NOBODY = 4, 65534
PAIRS = 200  # of each rule


@PRIVATE
@TWO_CPUS
@pytest.mark.parametrize("scenario", ["tcp-snat", "ipv6"])
def test_packets_prove_every_loss_that_the_kernel_counts(scenario: str) -> None:
    run = lab("--trace", "--scenario", scenario, first_s=0.5, fewest=PAIRS)
    for variant in run.result["variants"]:
        assert variant["proven"] <= sum(variant["kernel"]["source"]["insert_failed"])
    racing = run.result["variants"][0]
    assert racing["proven"] == sum(racing["kernel"]["source"]["insert_failed"]) > 0
    assert_all_clashed(racing["summary"]["failed"], racing["proven"])
    assert re.search(r"^rule +verdict +dials +lost +insert_failed +proven ", run.done.stdout, re.MULTILINE)


def test_what_sends_udp_cannot_be_traced() -> None:
    done = fork_cli("lab", "--trace", "--scenario", "udp-snat")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--trace: udp-snat sends UDP" in done.stderr


def check_racing(result: dict[str, Any]) -> None:
    """The claims of every lab run: all is accounted for, all losses explained."""
    racing, cured = result["variants"]
    for variant in (racing, cured):
        summary, source = variant["summary"], variant["kernel"]["source"]
        assert_all_clashed(summary["failed"], sum(source["insert_failed"]), sum(source["drop"]))
        assert summary["errors"] in ({}, {"TIMEOUT": summary["failed"]})
        assert variant["accepted"] == summary["connected"]
        assert summary["attempted"] == summary["connected"] + summary["failed"]
        assert summary["overruns"] == summary["cut_short"] == 0
        assert summary["paired"] >= PAIRS
        assert summary["collisions"] <= summary["failed"]
        for each in variant["periods"]:
            assert_all_clashed(each["failed"], sum(each["counters"][0]["conntrack"]["insert_failed"]))
        assert sum(each["failed"] for each in variant["periods"]) == summary["failed"]
    assert racing["summary"]["failed"] >= 5
    named = {cause["cause"] for cause in racing["diagnosis"]}
    assert {"snat_race"} <= named <= {"snat_race", "unexplained"}
    # Even --random-fully gives two simultaneous SYNs the same one of 64,512 ports now and then.
    assert sum(cured["kernel"]["source"]["insert_failed"]) <= 2
    assert result["verdict"]["outcome"] == "reproduced"
    (mitigation,) = result["verdict"]["mitigations"]
    assert mitigation["loss_reduction"] > 0.9
    assert mitigation["ci95"][0] > 0.5


@PRIVATE
@TWO_CPUS
def test_it_reproduces_explains_and_cures() -> None:
    done, result = lab(first_s=1, fewest=PAIRS, run=run_cli)
    check_racing(result)
    assert "race reproduced" in done.stdout
    assert "adversarial" in done.stdout
    assert done.stderr == "", "no progress line where there is no terminal"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder of everybody's. pytest closes its own to others, whenever another pytest starts."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def become_ordinary_user() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        # A process that changed its user does not own its /proc/self until it says so.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


@PRIVATE
@TWO_CPUS
def test_it_needs_no_root(open_folder: Path) -> None:
    """Root becomes nobody first; an ordinary user just runs the lab."""
    out = open_folder / "lab.json"

    def as_ordinary_user(duration_s: float) -> int:
        # Imported before the change of user, who may not be able to read this Python.
        import snat_race.cli.lab
        import snat_race.report.builders.lab
        import snat_race.report.live.lab_view
        import snat_race.report.renderers.ktap
        import snat_race.runs.lab  # noqa: F401

        codecs.lookup("idna")  # which getaddrinfo() asks for
        ask_for_priority()
        become_ordinary_user()
        duration = f"{duration_s * 1000:.0f}ms"
        sys.argv = ["snat_race", "lab", "--duration", duration, "--output", str(out)]
        with (open_folder / "said").open("w") as said:
            sys.stdout = sys.stderr = said
            try:
                app.main()
            except SystemExit as ended:
                return int(ended.code or 0)
        return 1

    def enter() -> None:
        become_ordinary_user()
        enter_sandbox()

    try:
        in_fork(enter)
    except EnvironmentLacks as refused:
        pytest.skip(f"refused to an ordinary user here: {refused}")

    def measure(duration_s: float) -> dict[str, Any]:
        code = in_fork(lambda: as_ordinary_user(duration_s))
        said = (open_folder / "said").read_text()
        assert code == 0, said
        measured: dict[str, Any] = json.loads(out.read_text())
        return measured

    result = until_enough(measure, lambda result: fewest_met(result) / PAIRS, first_s=1)
    check_racing(result)
    assert result["environment"]["root"] is False


@PRIVATE
@TWO_CPUS
def test_an_interrupt_prints_what_there_is() -> None:
    def interrupted(after_s: float) -> str:
        running = start_cli("lab", "--duration", "30m", "--json")
        workers = eventually(lambda: len(found := psutil.Process(running.pid).children()) == 3 and found)
        # Rounds last half a second: by now both variants have had several, if the machine is not busy.
        with pytest.raises(subprocess.TimeoutExpired):
            running.communicate(timeout=after_s)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=SOON_S)
        assert all(gone(worker) for worker in workers)
        if "before every rule had been measured" in err:
            return ""
        assert running.returncode == 0, err
        return out

    said = until_enough(lambda after_s: without_a_trace(lambda: interrupted(after_s)), len, first_s=2)
    result = json.loads(said)
    assert result["elapsed_s"] < MOST_S
    assert result["interrupted"] is True
    assert {variant["name"] for variant in result["variants"]} == set(SCENARIOS["tcp-snat"].variants)


@PRIVATE
@TWO_CPUS
def test_a_killed_lab_leaves_nothing() -> None:
    def killed() -> None:
        running = start_cli("lab", "--duration", "30s")
        workers = eventually(lambda: len(found := psutil.Process(running.pid).children()) == 3 and found)
        made = network_namespaces(workers) - network_namespaces([psutil.Process()])
        assert made
        running.kill()
        running.communicate()
        eventually(lambda: all(gone(worker) for worker in workers), within_s=10)
        assert not made & network_namespaces(psutil.process_iter())

    without_a_trace(killed)


@PRIVATE
@TWO_CPUS
def test_a_killed_dialer_is_reported() -> None:
    running = start_cli("lab", "--duration", "30s")
    workers = eventually(lambda: len(found := psutil.Process(running.pid).children()) == 3 and found)
    workers[-1].kill()
    _, err = running.communicate(timeout=SOON_S)
    assert running.returncode == 1
    assert "killed by SIGKILL" in err
    assert err.count("\n") == 1
    assert all(gone(worker) for worker in workers)


@PRIVATE
def test_a_killed_acceptor_is_reported_and_blamed_on_nobody() -> None:
    running = start_cli("lab", "--duration", "30s")
    acceptor, *_ = eventually(lambda: len(found := psutil.Process(running.pid).children()) == 3 and found)
    acceptor.kill()
    out, err = running.communicate(timeout=SOON_S)
    assert running.returncode == 1
    assert "acceptor 0" in err
    assert "race" not in out


@PRIVATE
def test_one_cpu_proves_nothing() -> None:
    pinned = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    command = [*pinned, *COMMAND, "lab", "--workers", "1", "--duration", "300ms"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=clean_environment(), timeout=SOON_S
    )
    assert done.returncode == 0, done.stderr
    assert "inconclusive" in done.stdout
    assert "no race seen" not in done.stdout


@PRIVATE
def test_more_containers_and_workers_than_cpus(tmp_path: Path) -> None:
    out = tmp_path / "lab.json"
    args = ["--containers", "4", "--workers", "2", "--duration", "1s", "--interval-us", "10000"]
    done = fork_cli("lab", *args, "--timeout-ms", "200", "--output", str(out))
    assert done.returncode == 0, done.stderr
    for variant in json.loads(out.read_text())["variants"]:
        summary = variant["summary"]
        assert summary["failed"] == sum(variant["kernel"]["source"]["insert_failed"])
        assert variant["accepted"] == summary["connected"]


def test_without_privilege_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from snat_race.kernel import netns as module

    class Refusing:
        @staticmethod
        def unshare(_flags: int) -> int:
            ctypes.set_errno(1)
            return -1

    monkeypatch.setattr(module, "_libc", Refusing)
    with pytest.raises(EnvironmentLacks, match="sudo"):
        module.enter_sandbox()


def test_counters_are_what_conntrack_shows() -> None:
    if not shutil.which("conntrack"):
        pytest.skip("needs the conntrack binary to compare with")

    def both() -> tuple[counters.Reading, str, tuple[int, int]]:
        hosts = build(2)
        VariantLoader(hosts.source, IPV4, "tcp", Backend.netlink).load(variants.VARIANTS["masquerade"])
        with hosts.containers[0].entered():
            subprocess.run([sys.executable, "-c", PROBE], check=True)
        ours = counters.read_conntrack(hosts.source)
        with hosts.source.entered():
            # It says on stderr which version it is.
            command = ["conntrack", "-S"]
            theirs = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
        return ours, theirs, counters.read_fill(hosts.source)

    ours, theirs, (count, limit) = in_sandbox(both)
    rows = [dict(field.split("=") for field in row.split() if "=" in field) for row in theirs.splitlines()]
    for name in ("insert_failed", "drop", "found", "invalid", "early_drop", "clash_resolve"):
        assert ours[name] == [int(row[name]) for row in rows], name
    assert 1 <= count <= limit


PROBE = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.sendto(b"x", ("10.18.10.137", 9))
"""


def test_netstat_sections_are_parsed_by_name() -> None:
    text = "TcpExt: SyncookiesSent ListenDrops\nTcpExt: 3 4\nIpExt: InNoRoutes\nIpExt: 0\n"
    assert counters.parse_netstat(text, "TcpExt") == {"SyncookiesSent": [3], "ListenDrops": [4]}


def test_a_counter_that_wraps_rises_all_the_same() -> None:
    assert counters.difference({"found": [5]}, {"found": [(1 << 32) - 10]}, 1 << 32) == {"found": [15]}
    assert counters.difference({"CurrEstab": [5]}, {"CurrEstab": [7]}) == {"CurrEstab": [-2]}


def test_rises_add_up_per_cpu() -> None:
    first = counters.difference({"drop": [5, 9]}, {"drop": [4, 2]})
    assert counters.added([first, {"drop": [1, 1]}, {}]) == {"drop": [2, 8]}
