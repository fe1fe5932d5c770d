"""The server: one acceptor per CPU, accept and close at once."""

import errno
import os
import select
import socket
from collections.abc import Sequence
from functools import partial
from mmap import mmap
from typing import Self

from snat_race.errors import EnvironmentLacks, SnatRaceError, UsageError
from snat_race.load.endpoint import Endpoint, resolve
from snat_race.load.worker_processes import WorkerProcesses

BACKLOG = 4096
_SHORT_BACKLOG = 64
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SHORTAGE_PAUSE_MS = 20
_WORDS_EACH = 16  # a cache line and its neighbour for each acceptor's count


class Server:
    """Acceptors on every port of ``endpoint``. A context manager.

    ``batch_ms``: 0 accepts each connection at once; more accepts in batches, so that dialers on
    the same CPUs are left in peace.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cpus: Sequence[int | None],
        *,
        batch_ms: int = 0,
    ) -> None:
        self._endpoint, self._cpus = endpoint, cpus
        self._batch_ms = batch_ms
        self._family, address = resolve(endpoint, "--local-addr")
        self._host = address[0]
        self._words = memoryview(mmap(-1, len(cpus) * _WORDS_EACH * 8)).cast("Q")
        self._processes = WorkerProcesses()
        self._stop_r, self._stop_w = os.pipe()

    def __enter__(self) -> Self:
        self._require_free()
        try:
            for index, cpu in enumerate(self._cpus):
                sockets = self._listen()
                self._processes.fork(f"acceptor {index}", partial(self._accept, index, sockets), cpu=cpu)
                for sock in sockets:
                    sock.close()
            self._processes.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._processes.__exit__()

    def _require_free(self) -> None:
        """SO_REUSEPORT would let a second server of the same user in, to share silently."""
        for port in range(self._endpoint.low, self._endpoint.high + 1):
            try:
                self._bound(port, share=False).close()
            except OSError as failed:
                raise _cannot_listen(Endpoint(self._endpoint.host, port, port), failed) from failed

    @property
    def accepted(self) -> int:
        """Connections accepted so far."""
        return sum(self._words[::_WORDS_EACH])

    def require_alive(self) -> None:
        """Check that every acceptor is running.

        Raises:
            SnatRaceError: one has died.

        """
        self._processes.require_alive()

    def stop(self) -> int:
        """Accept what is queued, stop, and return how many connections were accepted."""
        if self._stop_w >= 0:
            os.write(self._stop_w, b"stop")  # nobody reads it, so every acceptor sees it
            os.close(self._stop_w)
            self._stop_w = -1
        self._processes.stop(grace_s=1.0)
        return self.accepted

    def _listen(self) -> list[socket.socket]:
        """Bind every port, once: the acceptors of one processes share them by SO_REUSEPORT."""
        opened = []
        try:
            for port in range(self._endpoint.low, self._endpoint.high + 1):
                opened.append(self._bound(port))
                opened[-1].listen(BACKLOG)
        except OSError as failed:
            for sock in opened:
                sock.close()
            raise _cannot_listen(Endpoint(self._endpoint.host, port, port), failed) from failed
        return opened

    def _bound(self, port: int, *, share: bool = True) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
        sock.setblocking(False)
        try:
            sock.bind((self._host, port))
        except OSError:
            sock.close()
            raise
        return sock

    def _accept(self, index: int, sockets: list[socket.socket]) -> None:
        """Accept and close until the parent writes into the stop pipe, then once more."""
        count, at = self._words, index * _WORDS_EACH
        stop, wake = select.poll(), select.poll()
        stop.register(self._stop_r, select.POLLIN)
        wake.register(self._stop_r, select.POLLIN)
        if not self._batch_ms:
            for sock in sockets:
                wake.register(sock, select.POLLIN)
        running = True
        while running:
            running = self._stop_r not in dict(wake.poll(self._batch_ms or None))
            if not all(_accept_all(sock, count, at) for sock in sockets):
                running = running and not stop.poll(_SHORTAGE_PAUSE_MS)


class NonAcceptingServer:
    """A server that listens with a short queue and never accepts. A context manager."""

    def __init__(self, endpoint: Endpoint) -> None:
        family, address = resolve(endpoint, "--local-addr")
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.bind(address)
        self._socket.listen(_SHORT_BACKLOG)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    accepted = 0

    def require_alive(self) -> None:
        """Do nothing: it is no process that could die."""


def _accept_all(sock: socket.socket, count: memoryview, at: int) -> bool:
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
        count[at] += 1


def _cannot_listen(endpoint: Endpoint, failed: OSError) -> SnatRaceError:
    if failed.errno == errno.EADDRINUSE:
        return EnvironmentLacks(
            f"--local-addr: {endpoint} is in use; stop its owner ('ss -ltnp') or take another port"
        )
    if failed.errno == errno.EACCES:
        return EnvironmentLacks(f"--local-addr: no privilege for {endpoint}; take a port above 1023")
    if failed.errno == errno.EADDRNOTAVAIL:
        return UsageError(
            f"--local-addr: {endpoint.host} is not an address of this machine; 'ip address' lists them"
        )
    return EnvironmentLacks(f"--local-addr: cannot listen on {endpoint}: {failed.strerror}")
