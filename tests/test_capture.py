"""Packets as the kernel hands them out: what passes the filter, what is read, what a full ring loses."""

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2 import IPRoute

from snat_race.errors import EnvironmentLacks
from snat_race.packets import capture
from snat_race.packets.capture import Capture
from snat_race.packets.syn import FRAME, SIGHTING, Sightings, sightings
from tests.conftest import PRIVATE, eventually, in_fork, in_sandbox
from tests.test_matching import endpoint

SOURCE, DESTINATION = "192.0.2.1:4001", "192.0.2.2:80"
SOURCE6, DESTINATION6 = "[2001:db8::1]:4001", "[2001:db8::2]:80"
SYN, FIN, RST, ACK = 2, 1, 4, 16
SEQUENCE, STAMP = 0xFEDCBA98, 0x01020304
TIMESTAMP = b"\x08\x0a" + struct.pack("!II", STAMP, 0)
MSS = b"\x02\x04\x05\xb4"
LINUX = MSS + b"\x04\x02" + TIMESTAMP + b"\x01\x03\x03\x07"
BSD = MSS + b"\x01\x03\x03\x06\x01\x01" + TIMESTAMP + b"\x04\x02\x00\x00"
WINDOWS = MSS + b"\x01\x03\x03\x08\x01\x01\x04\x02"
HOP_BY_HOP, ROUTING, FRAGMENT, OPTIONS = 0, 43, 44, 60
IPV4, IPV6 = 0x0800, 0x86DD


def tcp(flags: int = SYN, options: bytes = LINUX) -> bytes:
    words = 5 + len(options) // 4
    return struct.pack("!HHIIBBHHH", 4001, 80, SEQUENCE, 0, words << 4, flags, 65535, 0, 0) + options


def ipv4(
    payload: bytes, *, options: bytes = b"", ttl: int = 64, protocol: int = 6, fragment: int = 0
) -> bytes:
    head = 0x40 | (5 + len(options) // 4)
    length = 20 + len(options) + len(payload)
    ends = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2")
    return (
        struct.pack("!BBHHHBBH", head, 0, length, 1, fragment, ttl, protocol, 0) + ends + options + payload
    )


def ipv6(payload: bytes, *, extensions: Sequence[tuple[int, int]] = (), hops: int = 64) -> bytes:
    """``extensions``: kind, and length in units of 8 bytes."""
    kinds = [kind for kind, _ in extensions] + [6]
    headers = b"".join(
        bytes([following, units - 1]) + bytes(8 * units - 2)
        for (_, units), following in zip(extensions, kinds[1:], strict=True)
    )
    ends = b"".join(socket.inet_pton(socket.AF_INET6, f"2001:db8::{n}") for n in (1, 2))
    return (
        struct.pack("!IHBB", 6 << 28, len(headers) + len(payload), kinds[0], hops)
        + ends
        + headers
        + payload
    )


class Wire:
    """Two devices of one host that are joined: what one sends, the other receives."""

    def __init__(self) -> None:
        with IPRoute() as netlink:
            netlink.link("add", ifname="near", kind="veth", peer={"ifname": "far"})
            for name in ("near", "far", "lo"):
                netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")
            self.near, self.far = (netlink.link_lookup(ifname=name)[0] for name in ("near", "far"))
        self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)

    def send(self, packet: bytes, *, kind: int = 0, tag: int | None = None, device: str = "near") -> None:
        """Send a packet to nobody that the other end knows, as a bridge's port sees it."""
        kind = kind or (IPV6 if packet[0] >> 4 == 6 else IPV4)
        tagged = struct.pack("!HH", 0x8100, tag) if tag is not None else b""
        ends = b"\x02\x00\x00\x00\x00\x09" + b"\x02\x00\x00\x00\x00\x08"
        self._raw.sendto(ends + tagged + struct.pack("!H", kind) + packet, (device, 0))

    def end(self) -> None:
        """Send a SYN that is known to pass, and that no other is like: what comes later was sent later."""
        self.send(ipv4(tcp(options=b"").replace(struct.pack("!I", SEQUENCE), bytes(4))))


def drained(reader: Capture) -> Sightings:
    parts = [sightings(frames) for frames in reader.drain()]
    return np.concatenate([np.zeros(0, SIGHTING), *parts])


def seen_of(send: Callable[[Wire], None]) -> list[dict[str, Any]]:
    """What is seen of what is sent, in the order of the ring, without the end."""

    def work() -> list[dict[str, Any]]:
        wire = Wire()
        names = {wire.near: "near", wire.far: "far"}
        with Capture(1) as reader:
            before_ns = time.time_ns()
            send(wire)
            wire.end()
            seen = drained(reader)
            eventually(lambda: len(seen) >= 2 and not seen["identity"][-1])
            after_ns = time.time_ns()
        assert all(before_ns <= when <= after_ns for when in seen["time_ns"].tolist())
        return [
            {
                name: row[name].item()
                for name in ("identity", "source", "destination", "outgoing", "passing")
            }
            | {"device": names[row["device"].item()]}
            for row in seen[:-2]
        ]

    result: list[dict[str, Any]] = in_sandbox(work)
    return result


def expected(
    source: str = SOURCE, destination: str = DESTINATION, stamp: int = STAMP
) -> list[dict[str, Any]]:
    common = {
        "identity": SEQUENCE << 32 | stamp,
        "source": endpoint(source),
        "destination": endpoint(destination),
    }
    return [
        common | {"outgoing": True, "passing": False, "device": "near"},
        common | {"outgoing": False, "passing": True, "device": "far"},
    ]


@PRIVATE
@pytest.mark.parametrize(
    ("packet", "stamp"),
    [
        pytest.param(ipv4(tcp()), STAMP, id="IPv4"),
        pytest.param(ipv4(tcp(options=b"")), 0, id="no options"),
        pytest.param(ipv4(tcp(options=BSD)), STAMP, id="options in another order"),
        pytest.param(ipv4(tcp(options=WINDOWS)), 0, id="no timestamp"),
        pytest.param(ipv4(tcp(options=b"\x01\x01" + TIMESTAMP)), STAMP, id="a timestamp alone"),
        pytest.param(ipv4(tcp(options=MSS + b"\x1e\x00\x08\x0a\0\0\0\0")), 0, id="an option of no length"),
        pytest.param(ipv4(tcp(options=MSS + b"\x00\x08\x0a\xff" * 2)), 0, id="options that end"),
        pytest.param(ipv4(tcp(options=bytes([1] * 30) + TIMESTAMP)), STAMP, id="forty bytes of options"),
        pytest.param(ipv4(tcp(), options=bytes([1] * 40)), STAMP, id="the longest header of IPv4"),
        pytest.param(ipv4(tcp(), fragment=0x4000), STAMP, id="not to be fragmented"),
        pytest.param(ipv4(tcp(), fragment=0x2000), STAMP, id="the first fragment"),
        pytest.param(ipv4(tcp(SYN | 0xC0)), STAMP, id="with ECN"),
        pytest.param(ipv4(tcp() + b"data"), STAMP, id="with data, TCP Fast Open"),
    ],
)
def test_a_syn_is_seen_wherever_it_passes(packet: bytes, stamp: int) -> None:
    assert seen_of(lambda wire: wire.send(packet)) == expected(stamp=stamp)


@PRIVATE
@pytest.mark.parametrize(
    ("extensions", "stamp"),
    [
        pytest.param((), STAMP, id="none"),
        pytest.param([(HOP_BY_HOP, 1)], STAMP, id="hop by hop"),
        pytest.param([(HOP_BY_HOP, 1), (OPTIONS, 3)], STAMP, id="two"),
        pytest.param([(ROUTING, 9)], STAMP, id="a long one"),
        pytest.param([(OPTIONS, 14)], 0, id="so long that the timestamp is cut off"),
    ],
)
def test_a_syn_of_ipv6_is_seen_behind_extension_headers(
    extensions: Sequence[tuple[int, int]], stamp: int
) -> None:
    packet = ipv6(tcp(), extensions=extensions)
    assert seen_of(lambda wire: wire.send(packet)) == expected(SOURCE6, DESTINATION6, stamp)


@PRIVATE
def test_a_tag_of_a_vlan_does_not_matter() -> None:
    assert seen_of(lambda wire: wire.send(ipv4(tcp()), tag=42)) == expected()
    assert seen_of(lambda wire: wire.send(ipv6(tcp()), tag=42)) == expected(SOURCE6, DESTINATION6)


@PRIVATE
def test_nothing_else_passes() -> None:
    def send(wire: Wire) -> None:
        for flags in (ACK, SYN | ACK, FIN | ACK, RST, SYN | RST, 0):
            wire.send(ipv4(tcp(flags)))
            wire.send(ipv6(tcp(flags)))
        wire.send(ipv4(tcp(), protocol=17))
        wire.send(ipv4(tcp(), fragment=1))  # a later fragment: what it holds is no header
        wire.send(ipv6(tcp(), extensions=[(FRAGMENT, 1)]))
        wire.send(ipv6(tcp(), extensions=[(OPTIONS, 1)] * 3))
        wire.send(ipv4(tcp())[:33])
        wire.send(ipv6(tcp(), extensions=[(OPTIONS, 30)]))
        wire.send(tcp(), kind=0x0806)
        wire.send(ipv4(tcp()), device="lo")

    assert seen_of(send) == []


@PRIVATE
def test_what_will_not_be_forwarded_is_seen_only_where_it_is_sent() -> None:
    """A warm-up probe has a TTL of 1 when it comes in. What is forwarded with 2 goes out with 1."""
    assert seen_of(lambda wire: wire.send(ipv4(tcp(), ttl=1))) == expected()[:1]
    assert seen_of(lambda wire: wire.send(ipv6(tcp(), hops=1))) == expected(SOURCE6, DESTINATION6)[:1]
    assert seen_of(lambda wire: wire.send(ipv4(tcp(), ttl=2))) == expected()


@given(st.lists(st.binary(max_size=176), max_size=20), st.integers(0, 300))
def test_any_bytes_are_read_without_a_fault(packets: list[bytes], captured: int) -> None:
    frames = np.zeros(len(packets), FRAME)
    for frame, packet in zip(frames, packets, strict=True):
        frame["packet"][: len(packet)] = np.frombuffer(packet, np.uint8)
    frames["captured"] = captured
    assert len(sightings(frames)) <= len(packets)


@PRIVATE
def test_the_ring_goes_round_and_counts_what_it_loses() -> None:
    def work() -> None:
        wire = Wire()
        with Capture(1) as reader:
            whole = reader.frames
            for _ in range(whole // 4):
                wire.end()
            assert len(drained(reader)) == whole // 2
            for _ in range(whole):  # two sightings each: half of them do not fit
                wire.end()
            statistics = reader.statistics()
            assert (statistics.seen, statistics.dropped) == (whole // 2 + 2 * whole, whole)
            assert len(drained(reader)) == whole
            assert len(drained(reader)) == 0
            wire.end()
            assert len(drained(reader)) == 2
            statistics = reader.statistics()
            assert (statistics.seen, statistics.dropped) == (2, 0)

    in_sandbox(work)


@PRIVATE
def test_a_device_that_comes_later_is_seen_too() -> None:
    def work() -> None:
        with Capture(1) as reader:
            wire = Wire()
            wire.end()
            assert sorted(drained(reader)["device"].tolist()) == sorted([wire.near, wire.far])

    in_sandbox(work)


@PRIVATE
def test_a_forked_process_does_not_keep_the_ring() -> None:
    def work() -> None:
        reader = Capture(1)
        inode = os.fstat(reader._socket.fileno()).st_ino

        def inherited() -> tuple[list[str], str]:
            links = []
            for entry in Path("/proc/self/fd").iterdir():
                try:
                    links.append(str(entry.readlink()))
                except FileNotFoundError:
                    continue
            return links, Path("/proc/self/maps").read_text()

        links, maps = in_fork(inherited)
        assert f"socket:[{inode}]" not in links
        assert f"socket:[{inode}]" not in maps
        assert f"socket:[{inode}]" in Path("/proc/self/maps").read_text()
        reader.close()
        assert f"socket:[{inode}]" not in Path("/proc/self/maps").read_text()

    in_sandbox(work)


@contextmanager
def refusing(monkeypatch: pytest.MonkeyPatch, number: int, name: str) -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(capture.socket if name == "socket" else capture.mmap, name, refuse)
        yield


def test_without_the_privilege_it_says_which_one_and_how_to_get_it() -> None:
    def work() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)
        Capture(1)

    with pytest.raises(EnvironmentLacks, match=r"CAP_NET_RAW.*--cap-add NET_RAW.*kubectl debug"):
        in_fork(work)


@PRIVATE
def test_a_ring_takes_no_more_than_half_of_the_memory_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> str:
        left = SimpleNamespace(available=7 << 20)
        monkeypatch.setattr(capture.psutil, "virtual_memory", lambda: left)
        with Capture(3):
            pass
        with pytest.raises(EnvironmentLacks) as refused:
            Capture(4)
        return str(refused.value)

    assert "a ring of 4 MiB is more than half of the 7 MiB" in in_sandbox(work)


@PRIVATE
@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("socket", errno.EAFNOSUPPORT, "modprobe af_packet"),
        ("mmap", errno.ENOMEM, "no memory for a ring of 1 MiB"),
        ("mmap", errno.EINVAL, "TPACKET_V2"),
    ],
)
def test_what_the_kernel_lacks_is_said(
    name: str, number: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> str:
        with refusing(monkeypatch, number, name), pytest.raises(EnvironmentLacks) as refused:
            Capture(1)
        return str(refused.value)

    assert said in in_sandbox(work)
