"""Real losses behind a real NAT: each is proven by its packets, and no other is called the race."""

import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from pyroute2 import IPRoute

from snat_race.kernel import counters
from snat_race.kernel.routing import Routing
from snat_race.lab.topology import IPV4
from snat_race.packets.matching import Journeys
from snat_race.packets.syn import address
from snat_race.packets.tracer import Tracer
from tests.conftest import (
    COMMAND,
    NFT,
    PRIVATE,
    SOON_S,
    TWO_CPUS,
    clean_environment,
    eventually,
    in_sandbox,
)
from tests.stage import FIRST, REMOTE, SECOND_IP, WRONG_IP, Stage, drop_forwarded, fill_table
from tests.test_causes import MANY, PORTS, RACING, SHORT


class Proof(NamedTuple):
    """What the packets of a run prove."""

    vanished: Journeys
    winners: Journeys
    left: int
    unknown: int
    dropped: int
    insert_failed: int

    @property
    def raced(self) -> int:
        return int((self.winners["left_ns"] > 0).sum())


def proof_of(stage: Stage, work: Callable[[], Any]) -> tuple[Proof, Any]:
    """Trace the source while ``work()`` runs."""
    routes = Routing(stage.source)
    with stage.source.entered():
        tracer = Tracer(routes.keeps)
    with tracer:
        before = stage.insert_failed()
        done = work()
        clashed = stage.insert_failed() - before
        judged = tracer.settle()
        routes.close()
        return Proof(
            judged.vanished, judged.winners, len(judged.left), tracer.unknown, tracer.dropped, clashed
        ), done


def race(stage: Stage, *options: str, losses: int, out: Path) -> dict[str, Any]:
    """Two addresses of one container dial from the same ports, until there are that many losses."""
    stage.accept_all()
    stage.add_address(SECOND_IP)
    before = stage.insert_failed()
    result = stage.run_until(lambda: stage.insert_failed() >= before + losses, *RACING, *options, out=out)
    stage.server.terminate()
    stage.server.communicate()
    return result


@PRIVATE
@TWO_CPUS
def test_every_loss_to_the_race_is_proven_with_its_winner(tmp_path: Path) -> None:
    def work() -> tuple[Proof, int]:
        stage = Stage(backlog=None)
        proof, result = proof_of(stage, lambda: race(stage, losses=8, out=tmp_path / "client.json"))
        return proof, result["summary"]["failed"] + result["summary"]["cut_short"]

    proof, failed = in_sandbox(work)
    assert (len(proof.vanished), proof.unknown, proof.dropped) == (proof.raced, 0, 0)
    assert proof.raced == proof.insert_failed >= 8
    assert proof.raced <= failed
    ours = {IPV4.container_ip(0), SECOND_IP}
    for victim, winner in zip(proof.vanished, proof.winners, strict=True):
        assert {address(victim["source"]), address(winner["source"])} == ours
        assert address(winner["last_source"]) == IPV4.source_ip
        assert victim["source"]["port"] == winner["source"]["port"] == winner["last_source"]["port"]
        assert (address(victim["destination"]), victim["destination"]["port"]) == REMOTE
        assert np.count_nonzero(victim["devices"]) == 2


def filtered(stage: Stage, out: Path) -> Any:
    drop_forwarded(stage.source)
    return stage.run(*SHORT, out=out)


def reverse_path(stage: Stage, out: Path) -> Any:
    with stage.source.entered(), IPRoute() as netlink:
        netlink.route("add", dst="default", gateway=IPV4.destination_ip)
    stage.add_address(WRONG_IP)
    stage.run(*SHORT, out=out)  # so that the gateway's MAC is known: ARP from the wrong address is ignored
    stage.source.sysctl("ipv4/conf/all/rp_filter", 1)
    return stage.run(*SHORT, "-l", WRONG_IP, out=out)


def accept_queue(stage: Stage, out: Path) -> Any:
    stage.hold(range(FIRST, FIRST + 2))
    return stage.run(*SHORT, out=out)


def table_full(stage: Stage, out: Path) -> Any:
    stage.hold([FIRST])
    fill_table(stage)
    return stage.run(*SHORT, out=out)


def exhausted(stage: Stage, out: Path) -> Any:
    assert not stage.hold(range(FIRST, FIRST + 16))
    return stage.run(*SHORT, out=out)


@PRIVATE
@pytest.mark.parametrize(
    ("variant", "backlog", "lose", "vanishes"),
    [
        pytest.param("masquerade", 4096, lambda stage, out: stage.run(*SHORT, out=out), False, id="clean"),
        pytest.param("masquerade", 4096, filtered, True, id="filtered"),
        pytest.param("masquerade", 4096, reverse_path, True, id="rp_filter"),
        pytest.param("masquerade", 1, accept_queue, False, id="backlog"),
        pytest.param("masquerade", 4096, table_full, True, id="table full"),
        pytest.param(
            f"masquerade to-ports {FIRST}-{FIRST + 15}", 4096, exhausted, True, id="exhaustion", marks=NFT
        ),
    ],
)
def test_no_other_loss_is_called_the_race(
    variant: str,
    backlog: int,
    lose: Callable[[Stage, Path], Any],
    vanishes: bool,
    tmp_path: Path,
) -> None:
    def work() -> tuple[Proof, int]:
        stage = Stage(variant, backlog)
        proof, result = proof_of(stage, lambda: lose(stage, tmp_path / "client.json"))
        return proof, result["summary"]["failed"]

    proof, failed = in_sandbox(work)
    assert (proof.raced, proof.unknown) == (0, 0)
    assert len(proof.vanished) == (failed if vanishes else 0)


@PRIVATE
@TWO_CPUS
def test_a_nat_that_draws_ports_loses_nothing_to_a_port_that_was_kept(tmp_path: Path) -> None:
    def work() -> Proof:
        stage = Stage("masquerade fully-random", None)
        stage.accept_all()
        stage.add_address(SECOND_IP)
        run = lambda: stage.run(*RACING, "--count", "400", out=tmp_path / "client.json")  # noqa: E731
        proof, _ = proof_of(stage, run)
        stage.server.terminate()
        stage.server.communicate()
        return proof

    proof = in_sandbox(work)
    assert proof.raced == 0
    assert len(proof.vanished) == proof.insert_failed  # by chance: one of 64,512 pairs
    assert proof.left > 300


@PRIVATE
@TWO_CPUS
@NFT
def test_a_mixture_of_race_and_exhaustion_is_told_apart_loss_by_loss(tmp_path: Path) -> None:
    """First a NAT whose ports are all held; then, in the same run, they are free, and it races."""

    def work() -> tuple[Proof, tuple[int, int]]:
        stage, out = (
            Stage(f"masquerade to-ports {FIRST}-{FIRST + MANY - 1}", None),
            tmp_path / "client.json",
        )
        stage.destination.sysctl("core/somaxconn", 4 * MANY)
        stage.listener = stage._listen(4 * MANY)
        stage.add_address(SECOND_IP)
        stage.hold(range(40000, 40000 + MANY), timeout_ms=4)

        def mixture() -> tuple[int, int]:
            before = stage.insert_failed()
            client = stage.start(*RACING, *PORTS, out=out)
            eventually(lambda: stage.insert_failed() >= before + 300)
            at_least = stage.insert_failed() - before
            stage.let_go()
            counters.flush_conntrack(stage.source)
            exhausted = stage.insert_failed() - before
            eventually(lambda: stage.insert_failed() >= before + exhausted + 5)
            client.send_signal(signal.SIGINT)
            stage.finish(client, out)
            return at_least, exhausted

        return proof_of(stage, mixture)

    proof, (at_least, at_most) = in_sandbox(work)
    assert len(proof.vanished) == proof.insert_failed
    # While the ports were set free, SYNs may have met either.
    assert proof.insert_failed - at_most <= proof.raced <= proof.insert_failed - at_least
    assert proof.raced >= 5


@PRIVATE
def test_what_this_host_keeps_is_not_lost() -> None:
    def work() -> Proof:
        stage = Stage()
        with stage.source.entered():
            server = subprocess.Popen(
                [*COMMAND, "server", "-r", "0.0.0.0:8080"], stdout=subprocess.PIPE, env=clean_environment()
            )
        assert server.stdout
        assert b"Ready" in server.stdout.readline()

        def dial_the_host() -> None:
            with stage.container.entered():
                options = ("--mode", "independent", "-d", "2000", "--count", "30", "-c", "1")
                for ip in (IPV4.gateway, IPV4.source_ip):
                    done = subprocess.run(
                        [*COMMAND, "client", "-r", f"{ip}:8080", *options],
                        capture_output=True,
                        env=clean_environment(),
                        check=False,
                        timeout=SOON_S,
                    )
                    assert done.returncode == 0, done.stderr

        proof, _ = proof_of(stage, dial_the_host)
        server.terminate()
        server.communicate()
        return proof

    proof = in_sandbox(work)
    assert (len(proof.vanished), proof.left) == (0, 0)


@PRIVATE
def test_the_kernel_says_what_it_keeps() -> None:
    def work() -> tuple[list[bool], list[str]]:
        stage = Stage()
        routes = Routing(stage.source)
        asked = [IPV4.source_ip, IPV4.gateway, "127.0.0.9", IPV4.destination_ip, IPV4.container_ip(0)]
        answers = [routes.keeps(ip) for ip in (*asked, "203.0.113.9", "2001:db8::1")]
        with stage.source.entered():
            loopback, port = socket.if_nametoindex("lo"), socket.if_nametoindex("veth0")
        # At the port of a bridge: for a neighbour there, for this host, for elsewhere; at no bridge's port.
        answers += [routes.keeps(ip, port) for ip in (IPV4.container_ip(1), IPV4.gateway, REMOTE[0])]
        answers += [routes.keeps(REMOTE[0], loopback)]
        names = [routes.device_name(number) for number in (loopback, 4711)]
        routes.close()
        return answers, names

    answers, names = in_sandbox(work)
    assert answers == [*[True] * 3, *[False] * 4, True, True, False, True]
    assert names == ["lo", "device 4711"]
