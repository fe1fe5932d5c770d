"""Two clients in two containers that share nothing but the clock meet in the kernel."""

import json
import os
import signal
from collections.abc import Callable
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
from tests.conftest import SOON_S, TWO_CPUS, assert_all_clashed, eventually, in_sandbox, start_cli

PORT = 8080


def race(
    rule: str, folder: Path, *options: str, until: Callable[[int, int], bool], apart: int = 1
) -> tuple[list[dict[str, Any]], counters.Reading, int]:
    """Run a client in each of two containers, whose addresses are so far ``apart``, ``until`` as many SYNs
    clashed and dials were accepted; return summaries, conntrack's rise, and accepts.
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
        with container.entered():
            clients.append(start_cli("client", "-r", f"{IPV4.destination_ip}:{PORT}", *options, *out))
    for client in clients:
        assert client.stdout
        assert "Starting" in client.stdout.readline()
    first = server.accepted
    try:
        eventually(
            lambda: until(
                sum(counters.read_conntrack(hosts.source)["insert_failed"]), server.accepted - first
            )
        )
    finally:
        for client in clients:
            client.send_signal(signal.SIGINT)
        for client in clients:
            client.communicate(timeout=SOON_S)
    codes = [client.returncode for client in clients]
    rise = counters.difference(counters.read_conntrack(hosts.source), before)
    accepted = server.stop()
    assert codes == [0, 0]
    return [json.loads((folder / f"{n}.json").read_text())["summary"] for n in (0, 1)], rise, accepted


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(2, 512))
def test_no_two_containers_share_their_cpus_for_ever(one: int, other: int, cpus: int) -> None:
    apart = [(a - b) % cpus for a, b in zip(first_cpus(one), first_cpus(other), strict=True)]
    assert any(apart) == (one != other)
    assert all(apart[::2]) == ((one - other) % cpus > 0)


@TWO_CPUS
@pytest.mark.parametrize(
    ("options", "apart", "fewest"),
    [
        (["-d", "2000"], 1, 5),
        (["-d", "2000", "-c", "1"], 1, 5),
        (["-d", "1000"], len(os.sched_getaffinity(0)), 1),
    ],
    ids=["default workers", "one worker", "on the same CPUs in every other turn"],
)
def test_strangers_meet(tmp_path: Path, options: list[str], apart: int, fewest: int) -> None:
    def some_clashed(clashed: int, _accepted: int) -> bool:
        return clashed >= fewest + 4  # of which each worker may be cut short in one

    summaries, rise, accepted = in_sandbox(
        lambda: race("masquerade", tmp_path, "-t", "50", *options, until=some_clashed, apart=apart)
    )
    lost, cut_short = (sum(summary[name] for summary in summaries) for name in ("failed", "cut_short"))
    assert lost >= fewest
    assert_all_clashed(lost, sum(rise["insert_failed"]), sum(rise["drop"]), cut_short=cut_short)
    assert 0 <= accepted - sum(summary["connected"] for summary in summaries) <= 2 + cut_short


def test_strangers_behind_a_randomised_nat_lose_nothing_to_speak_of(tmp_path: Path) -> None:
    def many_accepted(_clashed: int, accepted: int) -> bool:
        return accepted >= 2000

    options = ["-d", "2000", "-t", "200"]
    summaries, rise, _ = in_sandbox(
        lambda: race("masquerade fully-random", tmp_path, *options, until=many_accepted)
    )
    lost, cut_short = (sum(summary[name] for summary in summaries) for name in ("failed", "cut_short"))
    assert lost <= sum(rise["insert_failed"]) <= min(1, lost + cut_short)
    assert min(summary["connected"] for summary in summaries) > 200
