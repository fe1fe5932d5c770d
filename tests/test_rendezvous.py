"""Two clients in two containers that share nothing but the clock meet in the kernel."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snat_race.kernel import counters
from snat_race.lab import variants
from snat_race.lab.settings import Backend
from snat_race.lab.topology import IPV4, build
from snat_race.lab.variant_loader import VariantLoader
from snat_race.load.endpoint import Endpoint
from snat_race.load.servers import TcpServer
from snat_race.runs.worker_placement import first_cpus
from tests.conftest import COMMAND, assert_all_clashed, clean_environment, in_sandbox

PORT = 8080


def race(
    rule: str, folder: Path, *options: str, apart: int = 1
) -> tuple[list[dict[str, Any]], counters.Reading, int]:
    """Run a client in each of two containers, whose addresses are so far ``apart``; return
    summaries, conntrack's rise, and accepts.
    """
    hosts = build(1 + apart)
    VariantLoader(hosts.source, IPV4, "tcp", Backend.netlink).load(variants.VARIANTS[rule])
    with hosts.destination.entered():
        server = TcpServer(Endpoint(IPV4.destination_ip, PORT, PORT), [None])
        server.__enter__()
    before = counters.read_conntrack(hosts.source)
    clients = []
    for number, container in enumerate((hosts.containers[0], hosts.containers[-1])):
        out = ["--output", str(folder / f"{number}.json")]
        command = [*COMMAND, "client", "-r", f"{IPV4.destination_ip}:{PORT}", *options, *out]
        with container.entered():
            clients.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, env=clean_environment()))
    codes = [client.wait(timeout=20) for client in clients]
    rise = counters.difference(counters.read_conntrack(hosts.source), before)
    accepted = server.stop()
    assert codes == [0, 0]
    return [json.loads((folder / f"{n}.json").read_text())["summary"] for n in (0, 1)], rise, accepted


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(2, 512))
def test_no_two_containers_share_their_cpus_for_ever(one: int, other: int, cpus: int) -> None:
    apart = [(a - b) % cpus for a, b in zip(first_cpus(one), first_cpus(other), strict=True)]
    assert any(apart) == (one != other)
    assert all(apart[::2]) == ((one - other) % cpus > 0)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the race needs two CPUs")
@pytest.mark.parametrize(
    ("options", "apart", "fewest"),
    [
        (["-d", "2000", "--duration", "2s"], 1, 5),
        (["-d", "2000", "--duration", "2s", "-c", "1"], 1, 5),
        (["-d", "1000", "--duration", "4s"], len(os.sched_getaffinity(0)), 1),
    ],
    ids=["default workers", "one worker", "on the same CPUs in every other turn"],
)
def test_strangers_meet(tmp_path: Path, options: list[str], apart: int, fewest: int) -> None:
    summaries, rise, accepted = in_sandbox(
        lambda: race("masquerade", tmp_path, "-t", "50", *options, apart=apart)
    )
    lost = sum(summary["failed"] for summary in summaries)
    assert lost >= fewest
    assert_all_clashed(lost, sum(rise["insert_failed"]), sum(rise["drop"]))
    assert 0 <= accepted - sum(summary["connected"] for summary in summaries) <= 2


def test_strangers_behind_a_randomised_nat_lose_nothing_to_speak_of(tmp_path: Path) -> None:
    options = ["-d", "2000", "-t", "200", "--duration", "2s"]
    summaries, rise, _ = in_sandbox(lambda: race("masquerade fully-random", tmp_path, *options))
    lost = sum(summary["failed"] for summary in summaries)
    assert lost == sum(rise["insert_failed"]) <= 1
    assert min(summary["connected"] for summary in summaries) > 200
