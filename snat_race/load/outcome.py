"""What became of a dial that connect() leaves open: asked of the socket, off the hot path."""

import select
import sys
import time
from _socket import IPPROTO_TCP, SHUT_RD, SO_ERROR, SOCK_STREAM, SOL_SOCKET, TCP_INFO, socket

from snat_race.results.sample import TIMED_OUT, UNKNOWN_ERROR

_TCP_INFO_BYTES, _TOTAL_RETRANS_AT = 104, 100  # struct tcp_info in linux/tcp.h


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
