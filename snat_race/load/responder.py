"""A UDP server: answers each datagram with itself, from the address that was asked."""

import os
import select
import socket
from collections.abc import Sequence
from mmap import mmap
from typing import Self

from snat_race.load.worker_processes import WorkerProcesses

_LONGEST_REQUEST = 2048


class UdpServer:
    """One process that answers on ``port`` of every address. A context manager."""

    def __init__(self, family: int, addresses: Sequence[str], port: int) -> None:
        self._count = memoryview(mmap(-1, 8)).cast("Q")
        self._processes = WorkerProcesses()
        self._stop_r, self._stop_w = os.pipe()
        self._sockets = []
        for ip in addresses:
            self._sockets.append(socket.socket(family, socket.SOCK_DGRAM))
            self._sockets[-1].setblocking(False)
            self._sockets[-1].bind((ip, port))

    def __enter__(self) -> Self:
        try:
            self._processes.fork("responder", self._respond)
            self._processes.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._stop_w, b"stop")
        self._processes.stop(grace_s=1.0)
        self._processes.__exit__()
        for end in (self._stop_r, self._stop_w):
            os.close(end)
        for sock in self._sockets:
            sock.close()

    @property
    def accepted(self) -> int:
        """Requests answered so far."""
        return self._count[0]

    def require_alive(self) -> None:
        """Check that the responder is running.

        Raises:
            SnatRaceError: it has died.

        """
        self._processes.require_alive()

    def _respond(self) -> None:
        """Answer until the parent writes into the stop pipe."""
        wake = select.poll()
        wake.register(self._stop_r, select.POLLIN)
        by_fd = {sock.fileno(): sock for sock in self._sockets}
        for fd in by_fd:
            wake.register(fd, select.POLLIN)
        while True:
            for fd, _ in wake.poll():
                if fd == self._stop_r:
                    return
                self._answer_all(by_fd[fd])

    def _answer_all(self, sock: socket.socket) -> None:
        while True:
            try:
                request, asker = sock.recvfrom(_LONGEST_REQUEST)
                self._count[0] += 1
                sock.sendto(request, asker)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier answer concerns one asker only: udp(7)
