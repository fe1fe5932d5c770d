"""SYNs, or datagrams, that go part of the way just before a slot, and so warm it."""

import _socket
import time
from collections.abc import Callable
from itertools import cycle

from snat_race.load.sockets import IP_BIND_ADDRESS_NO_PORT, REQUEST, DialerConfig, Exchange, any_ip

_DISCARD_PORT = 9  # a service (RFC 863) that nobody runs: closed


def rehearser(config: DialerConfig) -> Callable[[], int]:
    """Return ``rehearse()``: send a SYN, or a datagram, with a TTL of 1; return its ns.

    It dies at the first router, before source translation, so nobody beyond sees it. On a host
    with veth the whole way there runs inside the system call. With ``config.rehearsal_ports`` it
    goes on, through the NAT to a port where nobody listens, and warms the NAT too.
    """
    udp, remote, clock = config.exchange is Exchange.udp, config.remote, time.monotonic_ns
    kind = (_socket.SOCK_DGRAM if udp else _socket.SOCK_STREAM) | _socket.SOCK_NONBLOCK
    prepare = _one_hop_preparer(config)
    if config.rehearsal_ports:
        prepare, remote = _beyond_preparer(config), (remote[0], _DISCARD_PORT)

    def rehearse() -> int:
        sock = _socket.socket(config.family, kind)
        prepare(sock)
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

    return rehearse


def _one_hop_preparer(config: DialerConfig) -> Callable[[_socket.socket], None]:
    one_hop = (_socket.IPPROTO_IP, _socket.IP_TTL, 1)
    if config.family == _socket.AF_INET6:
        one_hop = (_socket.IPPROTO_IPV6, _socket.IPV6_UNICAST_HOPS, 1)
    local_ip = config.local_ip

    def prepare(sock: _socket.socket) -> None:
        sock.setsockopt(*one_hop)
        if local_ip:
            sock.setsockopt(_socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((local_ip, 0))

    return prepare


def _beyond_preparer(config: DialerConfig) -> Callable[[_socket.socket], None]:
    ports, local_ip = cycle(config.rehearsal_ports), config.local_ip or any_ip(config.family)

    def prepare(sock: _socket.socket) -> None:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        sock.bind((local_ip, next(ports)))

    return prepare
