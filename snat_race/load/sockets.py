"""The sockets that a worker dials with: a TCP handshake, or a UDP request and its response.

All have a socket's ``connect_ex(remote)`` and ``close()``, so the hot loop knows nothing of the exchange.
A TCP socket may leave open what became of its connection: then :func:`settled` decides.
"""

import contextlib
import os
import select
import struct
import sys
import time
from _socket import (
    AF_INET6,
    IPPROTO_IP,
    IPPROTO_TCP,
    SHUT_RD,
    SO_ERROR,
    SO_LINGER,
    SO_REUSEADDR,
    SO_SNDTIMEO,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_INFO,
    socket,
)
from collections import deque
from collections.abc import Callable
from typing import ClassVar

from snat_race.load.dialer_config import DialerConfig, Exchange
from snat_race.load.endpoint import RESET_ON_CLOSE, SocketAddress
from snat_race.results.sample import TIMED_OUT, UNKNOWN_ERROR

IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: leave the choice of port to connect()
REQUEST = b"snat_race?"
_LONGEST_RESPONSE = 64
_MOST_HELD_OPEN = 150
_TCP_INFO_BYTES, _TOTAL_RETRANS_AT = 104, 100  # struct tcp_info in linux/tcp.h

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


class UdpRequest(socket):
    """A UDP socket, connected to the server before the slot. Its timeout is Python's.

    Python waits in poll(), and only for what is left of the timeout if a signal interrupts it (PEP 475).
    """

    def connect_ex(self, _remote: object, /) -> int:
        """Ask and wait for the answer; return 0 or an errno, EINPROGRESS when the time is up."""
        try:
            self.send(REQUEST)
            self.recv(_LONGEST_RESPONSE)
        except OSError as failed:
            timed_out = isinstance(failed, TimeoutError) and failed.errno is None
            return TIMED_OUT if timed_out else failed.errno or UNKNOWN_ERROR
        return 0


class SharedUdpSocket(UdpRequest):
    """One resolver's socket, on which two workers ask at once, and either may read an answer."""

    def close(self) -> None:
        """Stay open: the other worker may be waiting, and the port comes round again."""

    def forget(self) -> None:
        """Drop the answers that came too late, while nobody waits for one."""
        timeout_s = self.gettimeout()
        self.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.recv(_LONGEST_RESPONSE)
        self.settimeout(timeout_s)


def shared_sockets(
    family: int, local_ip: str, remote: SocketAddress, ports: range, timeout_ms: int
) -> list[SharedUdpSocket]:
    """Make a shared socket for each port. Call it in the network namespace of its workers.

    Raises:
        OSError: a port is in use, or there are too few open files.

    """
    sockets = []
    for port in ports:
        sock = SharedUdpSocket(family, SOCK_DGRAM)
        _set_up_udp(sock, local_ip, port, remote, timeout_ms)
        sockets.append(sock)
    return sockets


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
        _set_up_udp(sock, local_ip, port, remote, timeout_ms)
        return sock

    return make_socket


def _set_up_udp(sock: UdpRequest, local_ip: str, port: int, remote: SocketAddress, timeout_ms: int) -> None:
    sock.settimeout(timeout_ms / 1000)
    sock.bind((local_ip, port))
    sock.connect(remote)


def any_ip(family: int) -> str:
    """Return the address to bind to where the kernel shall choose."""
    return "::" if family == AF_INET6 else "0.0.0.0"


def _timeval(timeout_ms: int) -> bytes:
    return struct.pack("ll", timeout_ms // 1000, timeout_ms % 1000 * 1000)


def retransmits(sock: socket) -> int:
    """Return how often a TCP socket that has just connected sent its SYN again; 0 of any other."""
    if sock.type != SOCK_STREAM:
        return 0
    info = sock.getsockopt(IPPROTO_TCP, TCP_INFO, _TCP_INFO_BYTES)
    return int.from_bytes(info[_TOTAL_RETRANS_AT:], sys.byteorder)


def wait_for_answer(sock: socket, deadline_ns: int) -> None:
    """Wait for the answer to a connect() that was interrupted, until ``deadline_ns`` of CLOCK_MONOTONIC."""
    answer = select.poll()
    answer.register(sock.fileno(), select.POLLOUT)
    answer.poll(max(0, deadline_ns - time.monotonic_ns()) / 1e6)


def settled(sock: socket) -> int:
    """Return what became of a dial whose time is up: 0, if it connected, or its errno.

    A worker that wakes late finds both: its time is up, and the connection is there. connect() looks at
    the time first (inet_wait_for_connect()), so the socket is asked.

    Without an answer the try ends here, for good: no answer can come between the question and close().
    A SYN-ACK from now on finds no socket, so it is reset, and the server never accepts.
    """
    if sock.type != SOCK_STREAM:
        return TIMED_OUT
    if _is_connected(sock):
        return 0
    try:
        sock.shutdown(SHUT_RD)  # it ends a connect(), under the lock of the socket: inet_shutdown()
    except OSError as closed:  # by RST or ICMP
        return sock.getsockopt(SOL_SOCKET, SO_ERROR) or closed.errno or UNKNOWN_ERROR
    return 0 if _is_connected(sock) else TIMED_OUT


def _is_connected(sock: socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
