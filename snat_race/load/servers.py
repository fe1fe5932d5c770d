"""The servers that dialers dial: TCP that accepts and closes at once, TCP that never accepts, UDP that
answers.

Those that do something are forked processes; they serve until their parent writes into a pipe.
"""

import errno
import os
import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from mmap import mmap
from typing import Self

from snat_race.errors import EnvironmentLacks, SnatRaceError, UsageError
from snat_race.load.endpoint import Endpoint, address_to_listen_on
from snat_race.load.worker_processes import WorkerProcesses
from snat_race.load.worker_state import LINE_WORDS

BACKLOG = 4096
_SHORT_BACKLOG = 64
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SHORTAGE_PAUSE_MS = 20
_LONGEST_REQUEST = 2048
_STOP_GRACE_S = 5.0  # to serve what is queued, on a busy machine too


class Server(ABC):
    """Something that listens. A context manager."""

    @property
    @abstractmethod
    def accepted(self) -> int:
        """Connections accepted, or requests answered, so far."""

    @abstractmethod
    def require_alive(self) -> None:
        """Check that it still serves.

        Raises:
            SnatRaceError: a process of it has died.

        """

    @abstractmethod
    def stop(self) -> int:
        """Serve what has come in, stop, and return :attr:`accepted`. May be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _ForkedServer(Server):
    """A server of ``size`` processes: a count for each in shared memory, and one pipe that stops all."""

    def __init__(self, size: int) -> None:
        self._counts = memoryview(mmap(-1, size * LINE_WORDS * 8)).cast("Q")
        self._processes = WorkerProcesses()
        self._stop_r, self._stop_w = os.pipe()

    @abstractmethod
    def _fork_all(self, processes: WorkerProcesses) -> None:
        """Fork all processes."""

    def __enter__(self) -> Self:
        try:
            self._fork_all(self._processes)
            self._processes.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._processes.__exit__()
        os.close(self._stop_r)

    @property
    def accepted(self) -> int:
        """See :class:`Server`."""
        return sum(self._counts[::LINE_WORDS])

    def require_alive(self) -> None:
        """See :class:`Server`."""
        self._processes.require_alive()

    def stop(self) -> int:
        """See :class:`Server`."""
        if self._stop_w >= 0:
            os.write(self._stop_w, b"stop")  # nobody reads it, so every process sees it
            os.close(self._stop_w)
            self._stop_w = -1
        self._processes.stop(_STOP_GRACE_S)
        return self.accepted

    def _serve(
        self,
        index: int,
        sockets: Sequence[socket.socket],
        serve_all: Callable[[socket.socket, memoryview, int], bool],
        batch_ms: int = 0,
    ) -> None:
        """Serve what is queued whenever there is something, until the stop, and then once more.

        ``batch_ms``: not at once, but every so many ms.
        ``serve_all``: counts in a word of a memoryview; returns False if files or memory ran short.
        """
        count_at = index * LINE_WORDS
        stop, wake = select.poll(), select.poll()
        stop.register(self._stop_r, select.POLLIN)
        wake.register(self._stop_r, select.POLLIN)
        if not batch_ms:
            for sock in sockets:
                wake.register(sock, select.POLLIN)
        running = True
        while running:
            ready = dict(wake.poll(batch_ms or None))
            running = self._stop_r not in ready
            # In batches poll() does not look at the sockets; at the end one may have become ready since.
            wanted = sockets if batch_ms or not running else [s for s in sockets if s.fileno() in ready]
            if not all(serve_all(sock, self._counts, count_at) for sock in wanted):
                running = running and not stop.poll(_SHORTAGE_PAUSE_MS)


class TcpServer(_ForkedServer):
    """Accepts on every port of ``endpoint`` and closes at once, with an acceptor for each of ``cpus``.

    ``cpus``: the CPU to pin an acceptor to, None for any.
    ``batch_ms``: 0 accepts each connection at once; more accepts in batches, so that dialers on
    the same CPUs are left in peace.

    Raises:
        UsageError: the address is unknown, or not of this machine.
        EnvironmentLacks: the address is in use, or privileged.

    """

    def __init__(self, endpoint: Endpoint, cpus: Sequence[int | None], *, batch_ms: int = 0) -> None:
        self.endpoint = endpoint
        self._cpus = cpus
        self._batch_ms = batch_ms
        self._family, address = address_to_listen_on(endpoint)
        self._host = address[0]
        self._require_free()
        super().__init__(len(cpus))

    def _fork_all(self, processes: WorkerProcesses) -> None:
        for index, cpu in enumerate(self._cpus):
            sockets = self._listen()
            accept = partial(self._serve, index, sockets, _accept_all, self._batch_ms)
            processes.fork(f"acceptor {index}", accept, cpu=cpu)
            for sock in sockets:
                sock.close()

    def _require_free(self) -> None:
        """SO_REUSEPORT would let a second server of the same user in, to take part silently."""
        for port in range(self.endpoint.low, self.endpoint.high + 1):
            try:
                self._bound(port, reuse_port=False).close()
            except OSError as failed:
                raise _cannot_listen(Endpoint(self.endpoint.host, port, port), failed) from failed

    def _listen(self) -> list[socket.socket]:
        """Bind every port, once: the acceptors divide the connections between them by SO_REUSEPORT."""
        opened = []
        try:
            for port in range(self.endpoint.low, self.endpoint.high + 1):
                opened.append(self._bound(port, reuse_port=True))
                opened[-1].listen(BACKLOG)
        except OSError as failed:
            for sock in opened:
                sock.close()
            raise _cannot_listen(Endpoint(self.endpoint.host, port, port), failed) from failed
        return opened

    def _bound(self, port: int, *, reuse_port: bool) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
        sock.setblocking(False)
        try:
            sock.bind((self._host, port))
        except OSError:
            sock.close()
            raise
        return sock


class UdpServer(_ForkedServer):
    """One process that answers each datagram with itself, from the address that was asked, on ``port``
    of every address.
    """

    def __init__(self, family: int, addresses: Sequence[str], port: int) -> None:
        super().__init__(1)
        self._sockets = []
        for ip in addresses:
            self._sockets.append(socket.socket(family, socket.SOCK_DGRAM))
            self._sockets[-1].setblocking(False)
            self._sockets[-1].bind((ip, port))

    def _fork_all(self, processes: WorkerProcesses) -> None:
        processes.fork("responder", partial(self._serve, 0, self._sockets, _answer_all))
        for sock in self._sockets:
            sock.close()


class NonAcceptingServer(Server):
    """A server that listens with a short queue and never accepts."""

    def __init__(self, endpoint: Endpoint) -> None:
        family, address = address_to_listen_on(endpoint)
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.bind(address)
        self._socket.listen(_SHORT_BACKLOG)

    @property
    def accepted(self) -> int:
        """None, ever."""
        return 0

    def require_alive(self) -> None:
        """Do nothing: it is no process that could die."""

    def stop(self) -> int:
        """See :class:`Server`."""
        self._socket.close()
        return 0


def _accept_all(sock: socket.socket, counts: memoryview, count_at: int) -> bool:
    """Accept and close all that is queued; False if files or memory ran short."""
    accept, close = sock._accept, os.close  # type: ignore[attr-defined]  # noqa: SLF001
    while True:
        try:
            close(accept()[0])
        except BlockingIOError:
            return True
        except OSError as failed:
            if failed.errno in _SHORTAGES:
                return False
            # ECONNABORTED and pending network errors concern one connection only: accept(2)
            continue
        counts[count_at] += 1


def _answer_all(sock: socket.socket, counts: memoryview, count_at: int) -> bool:
    """Answer all datagrams that are queued."""
    while True:
        try:
            request, asker = sock.recvfrom(_LONGEST_REQUEST)
            counts[count_at] += 1
            sock.sendto(request, asker)
        except BlockingIOError:
            return True
        except OSError:
            continue  # an ICMP error of an earlier answer concerns one asker only: udp(7)


def _cannot_listen(endpoint: Endpoint, failed: OSError) -> SnatRaceError:
    if failed.errno == errno.EADDRINUSE:
        return EnvironmentLacks(f"{endpoint} is in use; stop its owner ('ss -ltnp') or take another port")
    if failed.errno == errno.EACCES:
        return EnvironmentLacks(f"no privilege for {endpoint}; take a port above 1023")
    if failed.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"{endpoint.host} is not an address of this machine; 'ip address' lists them")
    return EnvironmentLacks(f"cannot listen on {endpoint}: {failed.strerror}")
