"""Warm-up probes: SYNs, or datagrams, that go part of the way just before a slot, and so warm it."""

import _socket
import time
from collections.abc import Callable
from itertools import cycle

from snat_race.load.dialer_config import DialerConfig, Exchange
from snat_race.load.endpoint import any_ip
from snat_race.load.sockets import IP_BIND_ADDRESS_NO_PORT
from snat_race.load.udp_sockets import REQUEST

_DISCARD_PORT = 9  # a service (RFC 863) that nobody runs: closed


def warmup_probe(config: DialerConfig) -> Callable[[], int]:
    """Return ``probe()``: send a SYN, or a datagram, with a TTL of 1; return how long that took, in ns.

    It dies at the first router, before source translation, so nobody beyond sees it. On a host
    with veth the whole way there runs inside the system call. With ``config.probe_ports`` it
    goes on, through the NAT to a port where nobody listens, and warms the NAT too.
    """
    udp, remote, clock = config.exchange is Exchange.udp, config.remote, time.monotonic_ns
    kind = (_socket.SOCK_DGRAM if udp else _socket.SOCK_STREAM) | _socket.SOCK_NONBLOCK
    set_up = _to_first_router(config)
    if config.probe_ports:
        set_up, remote = _through_nat(config), (remote[0], _DISCARD_PORT)

    def probe() -> int:
        sock = _socket.socket(config.family, kind)
        set_up(sock)
        if udp:
            sock.connect(remote)
        start_ns = clock()
        if udp:
            sock.send(REQUEST)
        else:
            sock.connect_ex(remote)
        spent_ns = clock() - start_ns
        sock.close()
        return spent_ns

    return probe


def _to_first_router(config: DialerConfig) -> Callable[[_socket.socket], None]:
    one_hop = (_socket.IPPROTO_IP, _socket.IP_TTL, 1)
    if config.family == _socket.AF_INET6:
        one_hop = (_socket.IPPROTO_IPV6, _socket.IPV6_UNICAST_HOPS, 1)
    local_ip = config.local_ip

    def set_up(sock: _socket.socket) -> None:
        sock.setsockopt(*one_hop)
        if local_ip:
            sock.setsockopt(_socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((local_ip, 0))

    return set_up


def _through_nat(config: DialerConfig) -> Callable[[_socket.socket], None]:
    ports, local_ip = cycle(config.probe_ports), config.local_ip or any_ip(config.family)

    def set_up(sock: _socket.socket) -> None:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        sock.bind((local_ip, next(ports)))

    return set_up
