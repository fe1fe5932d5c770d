"""Every situation of the labelled set that no lab scenario stages, made for real; what the client
says of it must be right, or "inconclusive" where the counters cannot tell. Never a false race.
"""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from snat_race.kernel import counters
from snat_race.lab.topology import IPV4
from snat_race.results.conclusions import UNPROVEN
from tests.conftest import NFT, PRIVATE, TWO_CPUS, assert_all_clashed, eventually, in_sandbox
from tests.stage import (
    FIRST,
    SECOND_IP,
    WRONG_IP,
    Stage,
    drop_forwarded,
    fill_table,
    flood,
)

SHORT = ("--mode", "independent", "-d", "2000", "-t", "20", "--count", "40", "-c", "2")
RACING = ("-l", IPV4.container_ip(0), "-l", SECOND_IP, "-d", "1000", "-t", "4", "-c", "2")
MANY = 3500  # so that the race alone leaves most of them free
PORTS = ("--source-ports", f"{FIRST}-{FIRST + MANY - 1}")


def clean(out: Path) -> dict[str, Any]:
    return Stage().run(*SHORT, "-t", "500", out=out)


def refused(out: Path) -> dict[str, Any]:
    return Stage(backlog=None).run(*SHORT, out=out)


def filtered(out: Path) -> dict[str, Any]:
    stage = Stage()
    drop_forwarded(stage.source)
    return stage.run(*SHORT, out=out)


def reverse_path(out: Path) -> dict[str, Any]:
    stage = Stage()
    with stage.source.entered(), IPRoute() as netlink:
        netlink.route("add", dst="default", gateway=IPV4.destination_ip)
    stage.add_address(WRONG_IP)
    stage.run(*SHORT, out=out)  # so that the gateway's MAC is known: ARP from the wrong address is ignored
    stage.source.sysctl("ipv4/conf/all/rp_filter", 1)
    return stage.run(*SHORT, "-l", WRONG_IP, out=out)


def client_ports(out: Path) -> dict[str, Any]:
    stage = Stage()
    stage.hosts.containers[1].sysctl("ipv4/ip_local_port_range", f"{FIRST} {FIRST + 7}")
    stage.container = stage.hosts.containers[1]
    assert not stage.hold(range(FIRST, FIRST + 8))
    return stage.run(*SHORT, out=out)


def accept_queue(out: Path) -> dict[str, Any]:
    stage = Stage(backlog=1)
    stage.hold(range(FIRST, FIRST + 2))
    return stage.run(*SHORT, out=out)


def syn_queue(out: Path) -> dict[str, Any]:
    stage = Stage(backlog=None)
    stage.destination.sysctl("ipv4/tcp_syncookies", 0)
    stage.listener = stage._listen(64)
    flood_again = flood(stage, 65)
    client = stage.start(*SHORT, out=out)
    eventually(lambda: client.poll() is not None or flood_again())
    return stage.finish(client, out)


def table_full(out: Path) -> dict[str, Any]:
    stage = Stage()
    stage.hold([FIRST])
    fill_table(stage)
    return stage.run(*SHORT, out=out)


def exhausted(ports: int) -> Callable[[Path], dict[str, Any]]:
    def stage_it(out: Path) -> dict[str, Any]:
        stage = Stage(f"masquerade to-ports {FIRST}-{FIRST + ports - 1}")
        assert not stage.hold(range(FIRST, FIRST + ports))
        return stage.run(*SHORT, out=out)

    return stage_it


@PRIVATE
@pytest.mark.parametrize(
    ("stage_it", "cause"),
    [
        pytest.param(clean, None, id="clean"),
        pytest.param(refused, "refused", id="refused"),
        pytest.param(filtered, "filtered", id="filtered"),
        pytest.param(reverse_path, "reverse_path_filter", id="rp_filter"),
        pytest.param(client_ports, "client_ports_exhausted", id="ephemeral ports"),
        pytest.param(accept_queue, "accept_queue_full", id="backlog"),
        pytest.param(syn_queue, "syn_queue_full", id="SYN flood"),
        pytest.param(table_full, "conntrack_table_full", id="table full"),
        pytest.param(exhausted(1000), "nat_ports_exhausted", id="exhaustion, wide", marks=NFT),
        pytest.param(exhausted(16), "inconclusive", id="exhaustion, tiny", marks=NFT),
    ],
)
def test_the_cause_is_named(
    stage_it: Callable[[Path], dict[str, Any]], cause: str | None, tmp_path: Path
) -> None:
    result = in_sandbox(lambda: stage_it(tmp_path / "client.json"))
    summary = result["summary"]
    named = {each["cause"]: each["losses"] for each in result["diagnosis"]}
    assert "snat_race" not in named
    if cause is None:
        assert (summary["failed"], named) == (0, {})
        return
    assert summary["failed"] == summary["attempted"] == 40, result
    assert named.get(cause, 0) >= 0.95 * summary["failed"], result["diagnosis"]


@PRIVATE
@TWO_CPUS
def test_the_race_of_one_client_with_two_addresses(tmp_path: Path) -> None:
    def stage_it() -> dict[str, Any]:
        stage = Stage(backlog=None)
        stage.accept_all()
        stage.add_address(SECOND_IP)
        result = stage.run_until(lambda: stage.insert_failed() >= 20, *RACING, out=tmp_path / "client.json")
        stage.server.terminate()
        return result

    result = in_sandbox(stage_it)
    summary = result["summary"]
    named = {each["cause"]: each["losses"] for each in result["diagnosis"]}
    assert named["snat_race"] >= 5
    assert named.keys() <= {"snat_race", "unexplained"}
    assert_all_clashed(summary["failed"], named["snat_race"], cut_short=summary["cut_short"])
    watched = result["periods"][0]["counters"][0]["conntrack"]
    assert sum(watched["insert_failed"]) >= result["periods"][0]["failed"] > 0


@PRIVATE
@TWO_CPUS
@NFT
def test_a_mixture_of_race_and_exhaustion_is_split(tmp_path: Path) -> None:
    """First a NAT whose ports are all held; then, in the same run, they are free, and it races."""

    def stage_it() -> tuple[dict[str, Any], int]:
        stage, out = (
            Stage(f"masquerade to-ports {FIRST}-{FIRST + MANY - 1}", None),
            tmp_path / "client.json",
        )
        stage.destination.sysctl(
            "core/somaxconn", 4 * MANY
        )  # for all that is held, and all that is dialled
        stage.listener = stage._listen(4 * MANY)
        stage.add_address(SECOND_IP)
        stage.hold(range(40000, 40000 + MANY), timeout_ms=4)
        before = stage.insert_failed()
        client = stage.start(*RACING, *PORTS, out=out)
        eventually(lambda: stage.insert_failed() >= before + 300)
        stage.let_go()
        counters.flush_conntrack(stage.source)
        exhausted = stage.insert_failed() - before
        eventually(lambda: stage.insert_failed() >= before + exhausted + 60)
        client.send_signal(signal.SIGINT)
        return stage.finish(client, out), exhausted

    result, exhausted = in_sandbox(stage_it)
    named = {each["cause"]: each["losses"] for each in result["diagnosis"]}
    failed = result["summary"]["failed"]
    # Less of the race than there was, for the lap in which both happened; never more.
    assert 10 <= named["snat_race"] <= failed - exhausted + 5
    assert named["nat_ports_exhausted"] >= exhausted - 5
    assert sum(named.values()) == failed
    assert sum(count for name, count in named.items() if name in UNPROVEN) <= 0.1 * failed
