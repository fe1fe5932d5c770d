"""What one dial exchanges with the server: a TCP handshake, or a UDP request and its response.

All have a socket's ``connect_ex(remote)`` and ``close()``, so the hot loop knows nothing of it.
"""

import _socket
import contextlib
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from errno import EAGAIN, EINPROGRESS
from typing import ClassVar

from snat_race.load.endpoint import SocketAddress
from snat_race.load.pacers import UNPREPARED, Preparation
from snat_race.load.schedule import Schedule

IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: leave the choice of port to connect()
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s, so close() sends RST
REQUEST = b"snat_race?"
_LONGEST_RESPONSE = 64
_MOST_HELD = 150
_TCP_INFO_BYTES, _TOTAL_RETRANS_AT = 104, 100  # struct tcp_info in linux/tcp.h


class Exchange(StrEnum):
    """What is exchanged, and who ends it."""

    tcp_rst = "TCP, reset by the client"
    tcp_fin = "TCP, closed by the client"
    tcp_fin_after_server = "TCP, closed by the server, then by the client"
    tcp_held = "TCP, held open while the client opens more"
    udp = "UDP"


@dataclass(frozen=True, slots=True)
class DialerConfig:
    """What one worker dials, and how.

    ``schedule`` given: rendezvous mode. Otherwise a tick each ``interval_us``, 0 for flat out.
    ``rehearsal_ports``: source ports, this worker's alone, for rehearsals that pass the NAT.
    ``shared``: UDP sockets to ask on, one a source port, which another worker uses as well.
    """

    family: int
    remote: SocketAddress
    local_ip: str | None
    timeout_ms: int
    exchange: Exchange
    interval_us: int
    schedule: Schedule | None = None
    readiness: Preparation = UNPREPARED
    shared: "Sequence[Shared]" = ()
    rehearsal_ports: Sequence[int] = ()


class Polite(_socket.socket):
    """A TCP connection whose server closes first, and so keeps the TIME_WAIT."""

    def close(self) -> None:
        """Wait for the server's FIN, if we are connected, and close."""
        with contextlib.suppress(OSError):
            self.recv(1)
        super().close()


class Held(_socket.socket):
    """A TCP connection that stays open until this worker has dialled ``_MOST_HELD`` more."""

    _held: ClassVar[deque["Held"]] = deque()

    def close(self) -> None:
        """Close the oldest one in place of this one, if there are enough."""
        self._held.append(self)
        if len(self._held) > _MOST_HELD:
            _socket.socket.close(self._held.popleft())


class Asking(_socket.socket):
    """A UDP socket, connected to the server before the slot."""

    def connect_ex(self, _remote: object, /) -> int:
        """Ask and wait for the answer; return 0 or an errno, EINPROGRESS when the time is up."""
        try:
            self.send(REQUEST)
            self.recv(_LONGEST_RESPONSE)
        except OSError as failed:
            return EINPROGRESS if failed.errno == EAGAIN else failed.errno or EAGAIN
        return 0


class Shared(Asking):
    """One resolver's socket, on which two workers ask at once, and either may read an answer."""

    def close(self) -> None:
        """Stay open: the other worker may be waiting, and the port comes round again."""

    def forget(self) -> None:
        """Drop the answers that came too late, while nobody waits for one."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.recv(_LONGEST_RESPONSE, _socket.MSG_DONTWAIT)


def share(family: int, local_ip: str, remote: SocketAddress, ports: range, timeout_ms: int) -> list[Shared]:
    """Make a shared socket for each port. Call it where their worker will live."""
    made = []
    for port in ports:
        made.append(Shared(family, _socket.SOCK_DGRAM))
        _set_up_asking(made[-1], local_ip, port, remote, _timeval(timeout_ms))
    return made


def maker(config: DialerConfig) -> Callable[[int], _socket.socket]:
    """Return ``make(port)``: a blocking socket, bound to ``port`` unless that is 0."""
    if config.shared:
        return _shared_maker(config)
    return _udp_maker(config) if config.exchange is Exchange.udp else _tcp_maker(config)


def _tcp_maker(config: DialerConfig) -> Callable[[int], _socket.socket]:
    """Make TCP sockets.

    The raw socket class and SO_SNDTIMEO: connect() then blocks in the kernel, without poll(),
    and returns EINPROGRESS when the time is up (socket(7)).
    """
    family, local_ip, reset = (
        config.family,
        config.local_ip,
        config.exchange in (Exchange.tcp_rst, Exchange.tcp_held),
    )
    polite = config.exchange is Exchange.tcp_fin_after_server
    anywhere, timeout = any_ip(family), _timeval(config.timeout_ms)
    new = _TCP_SOCKETS.get(config.exchange, _socket.socket)

    def make(port: int) -> _socket.socket:
        sock = new(family, _socket.SOCK_STREAM)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, timeout)
        if reset:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET_ON_CLOSE)
        if polite:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, timeout)
        if port:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            sock.bind((local_ip or anywhere, port))
        elif local_ip:
            sock.setsockopt(_socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((local_ip, 0))
        return sock

    return make


_TCP_SOCKETS = {Exchange.tcp_fin_after_server: Polite, Exchange.tcp_held: Held}


def _udp_maker(config: DialerConfig) -> Callable[[int], _socket.socket]:
    family, remote, timeout = config.family, config.remote, _timeval(config.timeout_ms)
    local_ip = config.local_ip or any_ip(family)

    def make(port: int) -> _socket.socket:
        sock = Asking(family, _socket.SOCK_DGRAM)
        _set_up_asking(sock, local_ip, port, remote, timeout)
        return sock

    return make


def _shared_maker(config: DialerConfig) -> Callable[[int], _socket.socket]:
    return {sock.getsockname()[1]: sock for sock in config.shared}.__getitem__


def _set_up_asking(sock: Asking, local_ip: str, port: int, remote: SocketAddress, timeout: bytes) -> None:
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, timeout)
    sock.bind((local_ip, port))
    sock.connect(remote)


def any_ip(family: int) -> str:
    """Return the address to bind to where the kernel shall choose."""
    return "::" if family == _socket.AF_INET6 else "0.0.0.0"


def _timeval(timeout_ms: int) -> bytes:
    return struct.pack("ll", timeout_ms // 1000, timeout_ms % 1000 * 1000)


def times_resent(sock: _socket.socket) -> int:
    """Return how often a TCP socket that has just connected sent its SYN again; 0 of any other."""
    if sock.type != _socket.SOCK_STREAM:
        return 0
    info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _TCP_INFO_BYTES)
    return int.from_bytes(info[_TOTAL_RETRANS_AT:], sys.byteorder)
