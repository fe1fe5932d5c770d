"""Situations in which SYNs are lost, each for a reason of its own, made of namespaces and sockets."""

import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.nftables.main import NFTables

from snat_race.kernel import counters, host
from snat_race.kernel.netns import Namespace
from snat_race.lab import variants
from snat_race.lab.settings import Backend
from snat_race.lab.topology import IPV4, build
from snat_race.lab.variant_loader import VariantLoader
from tests.conftest import SOON_S, RunningServer, eventually, start_cli

PORT = 8080
REMOTE = (IPV4.destination_ip, PORT)
FIRST = 20000
SECOND_IP, WRONG_IP = "172.17.0.102", "192.0.2.5"
_NF_DROP = 0


class Stage:
    """A client's container -> the source, which translates -> the destination."""

    def __init__(self, variant: str = "masquerade", backlog: int | None = 4096) -> None:
        self.hosts = build(2)
        self.source, self.destination = self.hosts.source, self.hosts.destination
        self.container = self.hosts.containers[0]
        loader = VariantLoader(self.source, IPV4, "tcp", Backend.netlink)
        loader.load(variants.variant_named(variant))
        self.listener = self._listen(backlog) if backlog is not None else None
        self.held: list[socket.socket] = []

    def _listen(self, backlog: int) -> socket.socket:
        """Listen, and never accept: connections stay open."""
        with self.destination.entered():
            listener = socket.socket()
        listener.bind(REMOTE)
        listener.listen(backlog)
        return listener

    def accept_all(self) -> None:
        """Accept what comes, so that the queue never fills: in a server of its own."""
        with self.destination.entered():
            self.server = RunningServer(f"{REMOTE[0]}:{PORT}").process

    def hold(self, ports: Iterable[int], timeout_ms: int = 20_000) -> int:
        """Dial from each port of the container and keep what connects; return how many did not."""
        host.raise_open_file_limit()
        lost, timeval = 0, struct.pack("ll", timeout_ms // 1000, timeout_ms % 1000 * 1000)
        with self.hosts.containers[1].entered():
            for port in ports:
                sock = socket.socket()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
                sock.bind((IPV4.container_ip(1), port))
                if sock.connect_ex(REMOTE):
                    lost += 1
                    sock.close()
                else:
                    self.held.append(sock)
        return lost

    def let_go(self) -> None:
        """Reset what is held, so that the server forgets it too."""
        for each in self.held:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()

    def start(self, *options: str, out: Path) -> subprocess.Popen[str]:
        """Start a client in the container that watches both other hosts."""
        watched = [f"/proc/{os.getpid()}/fd/{each.fd}" for each in (self.source, self.destination)]
        arguments = ["client", "-r", f"{REMOTE[0]}:{PORT}", "-s", "60", "--output", str(out), *options]
        for each in watched:
            arguments += ["--watch-netns", each]
        with self.container.entered():
            return start_cli(*arguments)

    def finish(self, client: subprocess.Popen[str], out: Path) -> dict[str, Any]:
        """Wait for a client; return its result."""
        said, complained = client.communicate(timeout=SOON_S)
        assert client.returncode == 0, said + complained
        result: dict[str, Any] = json.loads(out.read_text())
        return result

    def run(self, *options: str, out: Path) -> dict[str, Any]:
        """Run a client in the container."""
        return self.finish(self.start(*options, out=out), out)

    def run_until(self, holds: Callable[[], Any], *options: str, out: Path) -> dict[str, Any]:
        """Run a client in the container until something holds."""
        client = self.start(*options, out=out)
        try:
            eventually(holds)
        finally:
            client.send_signal(signal.SIGINT)
        return self.finish(client, out)

    def add_address(self, ip: str) -> None:
        with self.container.entered(), IPRoute() as netlink:
            netlink.addr("add", index=netlink.link_lookup(ifname="eth0")[0], address=ip, prefixlen=32)

    def insert_failed(self) -> int:
        return sum(counters.read_conntrack(self.source)["insert_failed"])


def drop_forwarded(namespace: Namespace) -> None:
    """Forward nothing any more."""
    with namespace.entered(), NFTables(nfgen_family=2) as nft:
        nft.begin()
        nft.table("add", name="closed")
        nft.chain(
            "add", table="closed", name="c", hook="forward", type="filter", priority=0, policy=_NF_DROP
        )
        nft.commit()


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def syn(source: str, port: int) -> bytes:
    """An IPv4 packet with a SYN; the kernel fills in the length and checksum of the IP header."""
    ends = socket.inet_aton(source) + socket.inet_aton(REMOTE[0])
    tcp = struct.pack("!HHIIBBHHH", port, PORT, 1, 0, 5 << 4, 2, 65535, 0, 0)
    summed = checksum(ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", summed) + tcp[18:]
    return struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0) + ends + tcp


def flood(stage: Stage, count: int) -> Callable[[], None]:
    """Open half of so many connections, from addresses that nobody has; return what does it again.

    A full queue forgets them within seconds, so a flood has to go on.
    """
    with stage.source.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def send() -> None:
        for index in range(count):
            raw.sendto(syn(f"10.18.10.{200 + index % 50}", 1024 + index), (REMOTE[0], 0))

    send()

    def half_open() -> int:
        with stage.destination.entered():
            table = Path("/proc/thread-self/net/tcp").read_text()
        return sum(line.split()[3] == "03" for line in table.splitlines()[1:])

    eventually(lambda: half_open() == count)
    return send


# linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h
_NEW, _DELETE = 1 << 8, 1 << 8 | 2
_REQUEST_AND_ACK, _REQUEST_CREATE_EXCL = 0x1 | 0x4, 0x1 | 0x400 | 0x200
_SEEN_REPLY, _ASSURED, _CONFIRMED = 1 << 1, 1 << 2, 1 << 3
_BATCH, _MARK = 500, b"\xde\xad\xbe\xef"


def forget_connections(namespace: Namespace) -> None:
    """Empty the conntrack table of a namespace."""
    head = struct.pack("=IHHII", 20, _DELETE, _REQUEST_AND_ACK, 0, 0)
    with namespace.entered(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        netlink.send(head + struct.pack("!BBH", 0, 0, 0))
        (code,) = struct.unpack_from("=i", netlink.recv(4096), 16)
    assert code == 0, os.strerror(-code)


def _attribute(kind: int, data: bytes, *, nested: bool = False) -> bytes:
    head = struct.pack("=HH", len(data) + 4, kind | (0x8000 if nested else 0))
    return head + data.ljust(-len(data) % 4 + len(data), b"\0")


def _flow(kind: int, source: bytes, destination: bytes, ports: tuple[bytes, bytes]) -> bytes:
    ip = _attribute(1, _attribute(1, source) + _attribute(2, destination), nested=True)
    ends = _attribute(2, ports[0]) + _attribute(3, ports[1])
    proto = _attribute(2, _attribute(1, b"\x11") + ends, nested=True)
    return _attribute(kind, ip + proto, nested=True)


def _entry() -> bytes:
    """One UDP entry between two addresses that nobody has; _MARK stands where the address varies."""
    far, ports = socket.inet_aton("203.0.113.1"), (b"\x10\x00", b"\x20\x00")
    status = _attribute(3, struct.pack("!I", _CONFIRMED | _ASSURED | _SEEN_REPLY))
    body = struct.pack("!BBH", socket.AF_INET, 0, 0) + _flow(1, _MARK, far, ports)
    body += _flow(2, far, _MARK, ports[::-1]) + status + _attribute(7, struct.pack("!I", 600))
    return struct.pack("=IHHII", len(body) + 16, _NEW, _REQUEST_CREATE_EXCL, 0, 0) + body


def fill_table(stage: Stage) -> None:
    """Fill the source's conntrack table, of which the most is global but the count its own, with
    entries that may not be evicted.
    """
    parts = _entry().split(_MARK)
    with stage.source.entered():
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    netlink.setblocking(False)
    count, most = counters.read_fill(stage.source)
    for first in range(0, most - count, _BATCH):
        numbers = range(first, min(first + _BATCH, most - count))
        netlink.send(b"".join(struct.pack("!I", 0x64000000 + n).join(parts) for n in numbers))
    netlink.close()
    assert counters.read_fill(stage.source)[0] == most
