"""A SYN as a packet socket hands it out: which packets the kernel passes on, and what is in a frame.

A frame of the ring (packet_mmap.rst; struct tpacket2_hdr and sockaddr_ll in linux/if_packet.h)::

    0     tpacket2_hdr      status, lengths, time of day
    32    sockaddr_ll       device, direction
    80    IP header         SOCK_DGRAM leaves the link layer out: TPACKET_ALIGN(52) + 16, tpacket_rcv()
    ...   TCP header        behind at most 60 bytes of IPv4, or 40 of IPv6 and its extension headers
    256

The largest headers of IPv4 and TCP, 60 bytes each, fit behind the first 80. In half a frame there would be
48 bytes of packet: too little for TCP's timestamp, which tells a SYN from its retransmit.
"""

from functools import cache
from ipaddress import IPv4Address, IPv6Address
from struct import pack
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sightings = NDArray[Any]
"""An array of :data:`SIGHTING`: one SYN on one device each."""
Frames = NDArray[Any]
"""An array of :data:`FRAME`."""

FRAME_BYTES = 256
_IP_AT = 80
_PACKET_BYTES = FRAME_BYTES - _IP_AT

FRAME = np.dtype(
    {
        "names": ["status", "captured", "seconds", "ns", "device", "direction", "packet"],
        "formats": ["u4", "u4", "u4", "u4", "i4", "u1", f"({_PACKET_BYTES},)u1"],
        "offsets": [0, 8, 16, 20, 36, 42, _IP_AT],
        "itemsize": FRAME_BYTES,
    }
)
"""A frame of the ring, as the kernel fills it."""

ENDPOINT = np.dtype([("high", "u8"), ("low", "u8"), ("port", "u2")])
"""An address and a port. An address has 128 bits; one of IPv4 is mapped, ``::ffff:192.0.2.1``."""

SIGHTING = np.dtype(
    [
        ("time_ns", "i8"),  # CLOCK_REALTIME, when the device had it
        ("identity", "u8"),  # sequence number and TCP timestamp: the same on the whole way, see identity()
        ("source", ENDPOINT),
        ("destination", ENDPOINT),
        ("device", "i4"),  # its ifindex
        ("outgoing", "?"),  # the device sends it, and has not received it
        ("passing", "?"),  # its link layer names another host: a port of a bridge saw it
    ]
)
"""A SYN on a device."""

MAPPED = 0xFFFF << 32
"""What the lower half of an address of IPv4 begins with (RFC 4291, 2.5.5.2)."""

_PACKET_OTHERHOST, _PACKET_OUTGOING = 3, 4  # linux/if_packet.h
_ARPHRD_LOOPBACK = 772  # linux/if_arp.h
_TCP, _FRAGMENT = 6, 44  # protocol numbers, also of IPv6's next headers
_EXTENSIONS = (0, 43, 60)  # hop-by-hop options, routing, destination options (RFC 8200)
_MOST_EXTENSIONS = 2  # that are skipped in front of TCP
_TCP_BYTES = 20  # without options
_IPV6_BYTES = 40
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_END, _NO_OPERATION, _TIMESTAMP = 0, 1, 8  # options of TCP
_TIMESTAMP_BYTES = 10
# Linux's SYN: MSS, "SACK permitted" or two no-operations, timestamp (tcp_options_write()).
_USUAL_OPTIONS = (0x0402080A, 0x0101080A)

# Classic BPF (linux/bpf_common.h, linux/filter.h).
_LD_BYTE, _LD_HALF, _LD_WORD = 0x30, 0x28, 0x20  # A = packet[k]
_LD_BYTE_AT_X, _LD_MEM, _LDX_IMM, _LDX_HEADER = 0x50, 0x60, 0x01, 0xB1
_ST, _TAX = 0x02, 0x07
_RSH, _LSH, _AND, _ADD, _ADD_X = 0x74, 0x64, 0x54, 0x04, 0x0C
_JUMP, _JEQ, _JGT, _JSET, _RET = 0x05, 0x15, 0x25, 0x45, 0x06
_PACKET_TYPE, _HARDWARE_TYPE = 0xFFFFF000 + 4, 0xFFFFF000 + 28  # SKF_AD_OFF + SKF_AD_*
_NEXT_HEADER, _HOPS = 0, 1  # cells of the filter's memory

Label = str | int
"""Where a jump goes: a label of the program, or 0 for the next instruction."""


def syn_filter() -> tuple[int, bytes]:
    """Return the program that lets a frame pass if it holds a SYN without ACK: (instructions, code).

    Left out are later fragments, which have no TCP header; the loopback device, where nothing is forwarded;
    and what comes in with a TTL, or hop limit, of 1, because this host will not forward it. A tag of a VLAN
    does not matter: the network header is where the packet begins.

    There is no filter by address: a DNAT changes the destination on the way, so the SYN that came in for
    one address would seem to be lost because it left for another.
    """
    program: list[tuple[str, int, int, Label, Label]] = []

    def add(code: int, k: int = 0, *, yes: Label = 0, no: Label = 0, label: str = "") -> None:
        program.append((label, code, k, yes, no))

    add(_LD_WORD, _HARDWARE_TYPE)
    add(_JEQ, _ARPHRD_LOOPBACK, yes="drop")
    add(_LD_BYTE, 0)
    add(_RSH, 4)
    add(_JEQ, 6, yes="IPv6")
    add(_JEQ, 4, no="drop")

    add(_LD_BYTE, 9)
    add(_JEQ, _TCP, no="drop")
    add(_LD_HALF, 6)
    add(_JSET, 0x1FFF, yes="drop")  # the fragment's offset
    add(_LD_BYTE, 8)
    add(_ST, _HOPS)
    add(_LDX_HEADER, 0)
    add(_JUMP, yes="TCP")

    add(_LD_BYTE, 7, label="IPv6")
    add(_ST, _HOPS)
    add(_LDX_IMM, _IPV6_BYTES)
    add(_LD_BYTE, 6)
    for number in range(_MOST_EXTENSIONS):
        skip = f"extension {number}"
        add(_JEQ, _TCP, yes="TCP")
        for kind in _EXTENSIONS:
            add(_JEQ, kind, yes=skip)
        add(_JUMP, yes="drop")
        add(_LD_BYTE_AT_X, 0, label=skip)
        add(_ST, _NEXT_HEADER)
        add(_LD_BYTE_AT_X, 1)  # its length, in units of 8 bytes, without the first
        add(_ADD, 1)
        add(_LSH, 3)
        add(_ADD_X)
        add(_TAX)
        add(_LD_MEM, _NEXT_HEADER)
    add(_JEQ, _TCP, no="drop")

    add(_LD_BYTE_AT_X, 13, label="TCP")
    add(_AND, _SYN | _RST | _ACK)
    add(_JEQ, _SYN, no="drop")
    add(_LD_MEM, _HOPS)
    add(_JGT, 1, yes="pass")
    add(_LD_WORD, _PACKET_TYPE)
    add(_JEQ, _PACKET_OUTGOING, no="drop")
    add(_RET, _PACKET_BYTES, label="pass")
    add(_RET, 0, label="drop")
    return len(program), _assembled(program)


def _assembled(program: list[tuple[str, int, int, Label, Label]]) -> bytes:
    """Return the code of a program, with the distance to each label in its place."""
    at = {label: index for index, (label, *_) in enumerate(program) if label}
    code = b""
    for index, (_, opcode, k, yes, no) in enumerate(program):
        over_yes = at[yes] - index - 1 if isinstance(yes, str) else yes
        over_no = at[no] - index - 1 if isinstance(no, str) else no
        jump = opcode == _JUMP
        code += pack("=HBBI", opcode, 0 if jump else over_yes, over_no, over_yes if jump else k)
    return code


def identity(sequence: NDArray[Any], timestamp: NDArray[Any]) -> NDArray[np.uint64]:
    """Return what a SYN keeps on its way, as one number.

    A NAT changes addresses and ports. It leaves the sequence number alone, which is drawn at random (RFC
    6528), and the timestamp, in which a retransmit differs. Without the option the timestamp is 0.
    """
    return sequence.astype(np.uint64) << np.uint64(32) | timestamp.astype(np.uint64)


def sightings(frames: Frames) -> Sightings:
    """Read frames that passed the filter; leave out those whose headers are cut off."""
    first = frames["packet"][:, 0]
    is_ipv4 = first >> 4 == 4
    tcp_at = np.where(is_ipv4, (first & 0xF).astype(np.int64) * 4, _IPV6_BYTES)
    others = np.flatnonzero(~is_ipv4)
    tcp_at[others] = _behind_extensions(frames["packet"][others])
    end = np.minimum(frames["captured"], _PACKET_BYTES)
    whole = (tcp_at >= _TCP_BYTES) & (tcp_at + _TCP_BYTES <= end)
    if not whole.all():
        frames, is_ipv4, tcp_at = frames[whole], is_ipv4[whole], tcp_at[whole]
    seen = np.zeros(len(frames), SIGHTING)
    seen["time_ns"] = frames["seconds"].astype(np.int64) * 1_000_000_000 + frames["ns"]
    seen["device"] = frames["device"]
    seen["outgoing"] = frames["direction"] == _PACKET_OUTGOING
    seen["passing"] = frames["direction"] == _PACKET_OTHERHOST
    _read_addresses(seen, frames, is_ipv4)
    for at in np.flatnonzero(np.bincount(tcp_at)).tolist():
        rows = np.flatnonzero(tcp_at == at)
        tcp = frames[rows].view(_tcp_layout(at))
        seen["source"]["port"][rows] = tcp["source_port"]
        seen["destination"]["port"][rows] = tcp["destination_port"]
        seen["identity"][rows] = identity(tcp["sequence"], _timestamps(tcp))
    return seen


def _behind_extensions(packets: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return where TCP begins in packets of IPv6; too far for any frame, if that is not in it."""
    at = np.full(len(packets), _IPV6_BYTES, np.int64)
    kind = packets[:, 6]
    for _ in range(_MOST_EXTENSIONS):
        rows = np.flatnonzero((kind != _TCP) & (at + 1 < _PACKET_BYTES))
        if not len(rows):
            break
        start = at[rows]
        kind = kind.copy()
        kind[rows] = packets[rows, start]
        at[rows] = start + (packets[rows, start + 1].astype(np.int64) + 1) * 8
    at[kind != _TCP] = _PACKET_BYTES
    return at


@cache
def _ip_layout(version: int) -> np.dtype[Any]:
    """Return a frame's layout with the addresses of its IP header."""
    if version == 4:
        names, formats, offsets = ["source", "destination"], [">u4", ">u4"], [12, 16]
    else:
        names = ["source_high", "source_low", "destination_high", "destination_low"]
        formats, offsets = [">u8"] * 4, [8, 16, 24, 32]
    shifted = [_IP_AT + offset for offset in offsets]
    return np.dtype({"names": names, "formats": formats, "offsets": shifted, "itemsize": FRAME_BYTES})


def _read_addresses(seen: Sightings, frames: Frames, is_ipv4: NDArray[np.bool_]) -> None:
    ipv4 = frames.view(_ip_layout(4))
    ipv6 = frames.view(_ip_layout(6)) if not is_ipv4.all() else None
    for end in ("source", "destination"):
        low = ipv4[end].astype(np.uint64) | np.uint64(MAPPED)
        if ipv6 is not None:
            low = np.where(is_ipv4, low, ipv6[f"{end}_low"])
            seen[end]["high"] = np.where(is_ipv4, 0, ipv6[f"{end}_high"])
        seen[end]["low"] = low


@cache
def _tcp_layout(at: int) -> np.dtype[Any]:
    """Return a frame's layout with the TCP header that begins ``at`` bytes into the packet."""
    names = ["source_port", "destination_port", "sequence", "words", "usual_options", "usual_timestamp"]
    formats = [">u2", ">u2", ">u4", "u1", ">u4", ">u4"]
    offsets = [0, 2, 4, 12, 24, 28]
    options_bytes = min(40, _PACKET_BYTES - at - _TCP_BYTES)
    fields = zip(names, formats, offsets, strict=True)
    fitting = [field for field in fields if at + field[2] + 4 <= _PACKET_BYTES]
    return np.dtype(
        {
            "names": [name for name, *_ in fitting] + ["options"],
            "formats": [kind for _, kind, _ in fitting] + [f"({options_bytes},)u1"],
            "offsets": [_IP_AT + at + offset for *_, offset in fitting] + [_IP_AT + at + _TCP_BYTES],
            "itemsize": FRAME_BYTES,
        }
    )


def _timestamps(tcp: NDArray[Any]) -> NDArray[np.uint32]:
    """Return the timestamp of each TCP header; 0 if it has none."""
    has_options = (tcp["words"] >> 4) > _TCP_BYTES // 4
    if "usual_timestamp" not in (tcp.dtype.names or ()):
        return _searched_timestamps(tcp)
    options, others_options = _USUAL_OPTIONS
    usual = (tcp["usual_options"] == options) | (tcp["usual_options"] == others_options)
    usual &= (tcp["words"] >> 4) >= 8
    timestamps = np.where(usual, tcp["usual_timestamp"], 0).astype(np.uint32)
    others = np.flatnonzero(has_options & ~usual)
    if len(others):
        timestamps[others] = _searched_timestamps(tcp[others])
    return timestamps


def _searched_timestamps(tcp: NDArray[Any]) -> NDArray[np.uint32]:
    """Walk through the options of each header to its timestamp, all headers at once."""
    options = tcp["options"]
    end = np.minimum((tcp["words"] >> 4).astype(np.int64) * 4 - _TCP_BYTES, options.shape[1])
    timestamps = np.zeros(len(tcp), np.uint32)
    at = np.zeros(len(tcp), np.int64)
    rows = np.flatnonzero(end > 0)
    while len(rows):
        start = at[rows]
        kind = options[rows, start]
        has_length = (kind > _NO_OPERATION) & (start + 1 < end[rows])
        length = np.where(has_length, options[rows, np.minimum(start + 1, options.shape[1] - 1)], 1)
        here = (kind == _TIMESTAMP) & (length == _TIMESTAMP_BYTES) & (start + length <= end[rows])
        for byte in range(4):
            value = options[rows[here], start[here] + 2 + byte].astype(np.uint32)
            timestamps[rows[here]] = timestamps[rows[here]] << np.uint32(8) | value
        broken = (kind > _NO_OPERATION) & (length < 2)  # a length that leads nowhere
        at[rows] = start + length
        rows = rows[(at[rows] < end[rows]) & (kind != _END) & ~here & ~broken]
    return timestamps


def address(endpoint: Any) -> str:  # noqa: ANN401 - one of ENDPOINT
    """Return the address of an endpoint as people write it."""
    high, low = int(endpoint["high"]), int(endpoint["low"])
    if high == 0 and low & ~0xFFFFFFFF == MAPPED:
        return str(IPv4Address(low & 0xFFFFFFFF))
    return str(IPv6Address(high << 64 | low))
