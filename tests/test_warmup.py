"""What a warm-up probe sends, and how far it goes: packets on a loopback of its own."""

import socket
import struct
import subprocess
from collections.abc import Iterator
from itertools import islice

import pytest

from snat_race.load.dialer_config import DialerConfig, Exchange
from snat_race.load.warmup import warmup_probe
from tests.conftest import PRIVATE, SOON_S, in_sandbox

ETH_P_IP = 0x0800
PORT, DISCARD_PORT = 8080, 9


def sent(config: DialerConfig, probes: int) -> list[tuple[int, int, int, int]]:
    """Send so many probes; return TTL, protocol, source port and destination port of what was sent."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    tap.bind(("lo", ETH_P_IP))
    tap.settimeout(SOON_S)
    probe = warmup_probe(config)
    assert all(probe() > 0 for _ in range(probes))

    def packets() -> Iterator[tuple[int, int, int, int]]:
        while True:
            packet = tap.recv(200)
            ttl, protocol, *ports = struct.unpack_from("!BB10xHH", packet, 8)
            if protocol == expected and ports[0] not in (PORT, DISCARD_PORT):  # no answer
                yield ttl, protocol, ports[0], ports[1]

    expected = socket.IPPROTO_UDP if config.exchange is Exchange.udp else socket.IPPROTO_TCP
    return list(islice(packets(), probes))


def config(
    exchange: Exchange, probe_ports: tuple[int, ...] = (), local_ip: str | None = None
) -> DialerConfig:
    return DialerConfig(
        family=socket.AF_INET, remote=("127.0.0.1", PORT), local_ip=local_ip, timeout_ms=4,
        exchange=exchange, probe_ports=probe_ports,
    )  # fmt: skip


@PRIVATE
@pytest.mark.parametrize("exchange", [Exchange.tcp_rst, Exchange.udp])
def test_a_probe_dies_at_the_first_router(exchange: Exchange) -> None:
    """It has the remote's port, but a TTL of 1, so neither NAT nor server sees it."""
    packets = in_sandbox(lambda: sent(config(exchange, local_ip="127.0.0.7"), 3))
    assert [(ttl, port) for ttl, _, _, port in packets] == [(1, PORT)] * 3


@PRIVATE
@pytest.mark.parametrize("exchange", [Exchange.tcp_rst, Exchange.udp])
def test_a_probe_that_warms_the_nat_goes_all_the_way_from_the_ports_in_turn(exchange: Exchange) -> None:
    """To a port where nobody listens: the server's is for dials only."""
    packets = in_sandbox(lambda: sent(config(exchange, (4001, 4002)), 4))
    assert [(source, port) for _, _, source, port in packets] == [
        (4001, DISCARD_PORT),
        (4002, DISCARD_PORT),
    ] * 2
    assert all(ttl > 1 for ttl, *_ in packets)
