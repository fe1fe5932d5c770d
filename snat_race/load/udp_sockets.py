"""The sockets of UDP dials: a request and its response take the place of a handshake."""

import contextlib
from _socket import SOCK_DGRAM, socket

from snat_race.load.endpoint import SocketAddress
from snat_race.results.sample import TIMED_OUT, UNKNOWN_ERROR

REQUEST = b"snat_race?"
_LONGEST_RESPONSE = 64


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
        set_up_udp(sock, local_ip, port, remote, timeout_ms)
        sockets.append(sock)
    return sockets


def set_up_udp(sock: UdpRequest, local_ip: str, port: int, remote: SocketAddress, timeout_ms: int) -> None:
    """Give a socket its timeout and its addresses; raise OSError, as bind(2) and connect(2) do."""
    sock.settimeout(timeout_ms / 1000)
    sock.bind((local_ip, port))
    sock.connect(remote)
