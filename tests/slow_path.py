"""Two hosts whose packets take their time: a process carries them from one TUN device to another.

Over veth an answer comes within the system call that asks, so no dial waits for it. Here it does.
"""

import fcntl
import heapq
import os
import select
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from pyroute2 import IPRoute

from snat_race.kernel.netns import Namespace, new_namespace
from snat_race.load.endpoint import Endpoint
from snat_race.load.servers import TcpServer

CLIENT_IP, SERVER_IP, PORT = "10.99.0.1", "10.99.0.2", 8080
REMOTE = (SERVER_IP, PORT)
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
_LONGEST_PACKET = 2048


class SlowPath:
    """A client's and a server's namespace, and a way that takes ``delay_s`` in each direction.

    Attributes:
        client: where to dial :data:`REMOTE` from.
        server: accepts there.

    """

    def __init__(self, client: Namespace, server: TcpServer) -> None:
        self.client = client
        self.server = server


@contextmanager
def slow_path(delay_s: float) -> Iterator[SlowPath]:
    """Set it up, within a sandbox; skip where there are no TUN devices."""
    client, beyond = new_namespace("client"), new_namespace("server")
    try:
        ends = [_tun(client, CLIENT_IP), _tun(beyond, SERVER_IP)]
    except OSError as failed:
        pytest.skip(f"no TUN devices: {failed}")
    with _carried(ends, delay_s):
        with beyond.entered():
            server = TcpServer(Endpoint(*REMOTE, PORT), [None])
            server.__enter__()
        try:
            yield SlowPath(client, server)
        finally:
            server.__exit__()


def _tun(namespace: Namespace, ip: str) -> int:
    with namespace.entered():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"slow", _IFF_TUN | _IFF_NO_PI))
        with IPRoute() as netlink:
            (index,) = netlink.link_lookup(ifname="slow")
            netlink.addr("add", index=index, address=ip, prefixlen=24)
            netlink.link("set", index=index, state="up", txqlen=1000)
    return fd


@contextmanager
def _carried(ends: list[int], delay_s: float) -> Iterator[None]:
    carrier = os.fork()
    if not carrier:
        with suppress(OSError):
            os.nice(-10)  # what is measured is the dialer's delay, not the carrier's
        _carry(ends, delay_s)
    for end in ends:
        os.close(end)
    try:
        yield
    finally:
        os.kill(carrier, signal.SIGKILL)
        os.waitpid(carrier, 0)


def _carry(ends: list[int], delay_s: float) -> None:
    """Carry packets until killed; those of one direction stay in their order."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    ready = select.poll()
    for end in ends:
        ready.register(end, select.POLLIN)
    on_the_way: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        wait_ms = None if not on_the_way else max(0, on_the_way[0][0] - time.monotonic()) * 1000
        for end, _ in ready.poll(wait_ms):
            with suppress(BlockingIOError):
                while True:
                    packet = os.read(end, _LONGEST_PACKET)
                    number += 1
                    arrival = (time.monotonic() + delay_s, number, other[end], packet)
                    heapq.heappush(on_the_way, arrival)
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(on_the_way)
            with suppress(OSError):
                os.write(end, packet)


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep the CPUs busy with this many processes."""
    loops = []
    for _ in range(count):
        loop = os.fork()
        if not loop:
            while True:
                pass
        loops.append(loop)
    try:
        yield
    finally:
        for loop in loops:
            os.kill(loop, signal.SIGKILL)
            os.waitpid(loop, 0)
