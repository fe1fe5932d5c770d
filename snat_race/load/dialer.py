"""THE HOT PATH: one worker's loop. Clock, connect, clock, store, close.

Errors are data here: whatever connect() or bind() returns goes into the ring as an errno.
Nothing in this module, or below it, may import numpy or start a thread.
"""

import _socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from snat_race.load.endpoint import SocketAddress
from snat_race.load.pace import AS_IT_IS, FlatOut, Pace, Readiness, Rendezvous, Ticker
from snat_race.load.ring import ATTEMPTED, QUOTA, Ring
from snat_race.load.rounds import Rounds
from snat_race.load.sample import LATENCY_SHIFT, PORT_SHIFT, pack
from snat_race.load.schedule import Schedule

_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: leave the choice of port to connect()
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s, so close() sends RST


@dataclass(frozen=True, slots=True)
class DialPlan:
    """What one worker dials, and how.

    ``schedule`` given: rendezvous mode. Otherwise a tick each ``interval_us``, 0 for flat out.
    """

    family: int
    remote: SocketAddress
    local_ip: str | None
    timeout_ms: int
    reset: bool
    interval_us: int
    schedule: Schedule | None = None
    readiness: Readiness = AS_IT_IS


def dial(plan: DialPlan, rounds: Rounds, ring: Ring) -> None:
    """Dial round after round until the parent stops us."""
    pace = _pace(plan, rounds, ring)
    words, make, wait, store = ring.words, _maker(plan), pace.wait, ring.writer()
    clock, remote = time.monotonic_ns, plan.remote
    for begin_ns in rounds.attend(ring):
        for port in islice(pace.slots(begin_ns), words[QUOTA]):
            words[ATTEMPTED] += 1
            try:
                sock = make(port)
            except OSError as refused:
                store(clock(), pack(refused.errno or 0, port, 0))
                continue
            wait()
            start_ns = clock()
            error = sock.connect_ex(remote)
            latency_ns = clock() - start_ns
            if error and not port:
                port = sock.getsockname()[1]  # noqa: PLW2901
            store(start_ns, latency_ns << LATENCY_SHIFT | port << PORT_SHIFT | error)
            sock.close()


def _maker(plan: DialPlan) -> Callable[[int], _socket.socket]:
    """Return ``make(port)``: a blocking socket, bound to ``port`` unless that is 0.

    The raw socket class and SO_SNDTIMEO: connect() then blocks in the kernel, without poll(),
    and returns EINPROGRESS when the time is up (socket(7)).
    """
    family, local_ip, reset = plan.family, plan.local_ip, plan.reset
    any_ip = "::" if family == _socket.AF_INET6 else "0.0.0.0"
    timeout = struct.pack("ll", plan.timeout_ms // 1000, plan.timeout_ms % 1000 * 1000)

    def make(port: int) -> _socket.socket:
        sock = _socket.socket(family, _socket.SOCK_STREAM)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, timeout)
        if reset:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET_ON_CLOSE)
        if port:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            sock.bind((local_ip or any_ip, port))
        elif local_ip:
            sock.setsockopt(_socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((local_ip, 0))
        return sock

    return make


def _rehearser(plan: DialPlan) -> Callable[[], int]:
    """Return ``rehearse()``: send a SYN with a TTL of 1; return how long that took, in ns.

    It dies at the first router, before any translation, so nobody beyond sees it. On a host
    with veth the whole way there runs inside the system call.
    """
    family, remote, local_ip, clock = plan.family, plan.remote, plan.local_ip, time.monotonic_ns
    kind = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK

    def rehearse() -> int:
        sock = _socket.socket(family, kind)
        sock.setsockopt(_socket.IPPROTO_IP, _socket.IP_TTL, 1)
        if local_ip:
            sock.setsockopt(_socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((local_ip, 0))
        start_ns = clock()
        sock.connect_ex(remote)
        spent_ns = clock() - start_ns
        sock.close()
        return spent_ns

    return rehearse


def _pace(plan: DialPlan, rounds: Rounds, ring: Ring) -> Pace:
    if plan.schedule:
        return Rendezvous(rounds, ring, plan.schedule, plan.readiness, _rehearser(plan))
    if plan.interval_us:
        return Ticker(rounds, ring, plan.interval_us * 1000)
    return FlatOut(rounds)
