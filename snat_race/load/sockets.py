"""The sockets that a worker dials with: which kind an exchange takes, and TCP's own.

All have a socket's ``connect_ex(remote)`` and ``close()``, so the hot loop knows nothing of the exchange.
A TCP socket may leave open what became of its connection: then ``outcome.settled`` decides.
"""

import os
import select
import struct
from _socket import (
    IPPROTO_IP,
    SO_LINGER,
    SO_REUSEADDR,
    SO_SNDTIMEO,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from collections import deque
from collections.abc import Callable
from typing import ClassVar

from snat_race.load.dialer_config import DialerConfig, Exchange
from snat_race.load.endpoint import RESET_ON_CLOSE, any_ip
from snat_race.load.udp_sockets import UdpRequest, set_up_udp

IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: leave the choice of port to connect()
_MOST_HELD_OPEN = 150

SocketFactory = Callable[[int], socket]


class ClosedAfterServer(socket):
    """A TCP connection whose server closes first, and so keeps the TIME_WAIT."""

    longest_wait_ms: int = 0

    def close(self) -> None:
        """Wait for the server's FIN, for ``longest_wait_ms`` at the most, and close."""
        # poll() sends nothing, and, unlike recv(), it does not begin anew after a signal (PEP 475).
        fin = select.poll()
        fin.register(self.fileno(), select.POLLIN)
        fin.poll(self.longest_wait_ms)
        super().close()


class HeldOpen(socket):
    """A TCP connection that stays open until this worker has dialled ``_MOST_HELD_OPEN`` more."""

    _held: ClassVar[deque["HeldOpen"]] = deque()

    def close(self) -> None:
        """Close the oldest one in place of this one, if there are enough."""
        self._held.append(self)
        if len(self._held) > _MOST_HELD_OPEN:
            socket.close(self._held.popleft())


def socket_factory(config: DialerConfig) -> SocketFactory:
    """Return ``make_socket(port)``: a blocking socket, bound to ``port`` unless that is 0.

    It raises OSError, as socket(2), bind(2) and setsockopt(2) do.
    """
    if config.shared_sockets:
        by_port = {sock.getsockname()[1]: sock for sock in config.shared_sockets}
        return by_port.__getitem__
    if config.exchange is Exchange.udp:
        return _udp_factory(config)
    return _tcp_factory(config)


def _tcp_factory(config: DialerConfig) -> SocketFactory:
    """Make TCP sockets.

    The raw socket class and SO_SNDTIMEO: connect() then blocks in the kernel, without poll(),
    and returns EINPROGRESS when the time is up (socket(7)).

    Python believes that the socket does not block, though it does. Else connect_ex() would wait again,
    and without end, when a signal interrupts it (internal_connect() in CPython's socketmodule.c). A
    process need not handle signals for that: SIGSTOP, the cgroup freezer and ptrace interrupt it too.
    """
    family, local_ip = config.family, config.local_ip
    bind_ip, timeout = local_ip or any_ip(family), _timeval(config.timeout_ms)
    resets = config.exchange in (Exchange.tcp_rst, Exchange.tcp_held)
    waits_for_server = config.exchange is Exchange.tcp_fin_after_server
    kind, set_blocking = _TCP_SOCKETS.get(config.exchange, socket), os.set_blocking
    type_for_python = SOCK_STREAM | SOCK_NONBLOCK

    def make_socket(port: int) -> socket:
        sock = kind(family, type_for_python)
        set_blocking(sock.fileno(), True)
        sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, timeout)
        if resets:
            sock.setsockopt(SOL_SOCKET, SO_LINGER, RESET_ON_CLOSE)
        if waits_for_server and isinstance(sock, ClosedAfterServer):
            sock.longest_wait_ms = config.timeout_ms
        if port:
            sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            sock.bind((bind_ip, port))
        elif local_ip:
            sock.setsockopt(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((local_ip, 0))
        return sock

    return make_socket


_TCP_SOCKETS = {Exchange.tcp_fin_after_server: ClosedAfterServer, Exchange.tcp_held: HeldOpen}


def _udp_factory(config: DialerConfig) -> SocketFactory:
    family, remote, timeout_ms = config.family, config.remote, config.timeout_ms
    local_ip = config.local_ip or any_ip(family)

    def make_socket(port: int) -> socket:
        sock = UdpRequest(family, SOCK_DGRAM)
        set_up_udp(sock, local_ip, port, remote, timeout_ms)
        return sock

    return make_socket


def _timeval(timeout_ms: int) -> bytes:
    return struct.pack("ll", timeout_ms // 1000, timeout_ms % 1000 * 1000)
