"""Which packets a rule is for, as intervals of numbers: addresses, protocols, ports, devices. Pure.

What a rule asks for and this module has no field for (a mark, a time of day) is kept as words: it may
only make the rule match fewer packets, so two rules are never said to be apart because of it.
"""

import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

Intervals = tuple[tuple[int, int], ...]
"""Numbers, as sorted ranges that do not touch; both ends are inclusive."""

_V6_FROM = 1 << 128  # an IPv6 address is its number above this, so that both versions are on one line
V4: Intervals = ((0, (1 << 32) - 1),)
V6: Intervals = ((_V6_FROM, 2 * _V6_FROM - 1),)
ANY_ADDRESS = V4 + V6
ANY_PORT: Intervals = ((0, 65535),)
ANY_PROTOCOL: Intervals = ((0, 255),)
# TCP, UDP, DCCP, SCTP, UDP-Lite: nf_nat_l4proto_unique_tuple() in net/netfilter/nf_nat_core.c looks for a
# free port of these. GRE's key is changed for PPTP's own connections only; ICMP has an identifier, no port.
WITH_PORTS: Intervals = ((6, 6), (17, 17), (33, 33), (132, 132), (136, 136))
TCP: Intervals = ((6, 6),)
UDP: Intervals = ((17, 17),)
_NO_PORTS = 255  # any protocol that is none of these, and not known by its name here
_NUMBERS = {
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "sctp": 132,
    "udplite": 136,
    "icmp": 1,
    "icmpv6": 58,
    "ipv6-icmp": 58,
    "gre": 47,
    "esp": 50,
    "ah": 51,
}
_FAMILIES = {"ip": V4, "ip6": V6}


ITSELF = "the client's own address"
"""A condition that stands among others: the destination is the source, which is one of several."""


ANY_END = "/"  # behind the beginning of names; dev_valid_name() in net/core/dev.c lets no name have one


class Devices(NamedTuple):
    """Names of devices; ``eth/`` is every name that begins with ``eth``: see :func:`device`."""

    names: frozenset[str] = frozenset()
    excluded: bool = True  # whether it is every device but these


ANY_DEVICE = Devices()


class Traffic(NamedTuple):
    """The first packets of connections that meet some conditions."""

    sources: Intervals = ANY_ADDRESS
    destinations: Intervals = ANY_ADDRESS
    protocols: Intervals = ANY_PROTOCOL
    source_ports: Intervals = ANY_PORT
    destination_ports: Intervals = ANY_PORT
    devices: Devices = ANY_DEVICE  # that they leave by
    others: frozenset[str] = frozenset()  # conditions that are not understood here, in the tool's words
    lasting: bool = True  # whether the same packet always meets these; not with a limit of rates, say

    @property
    def one_client(self) -> bool:
        """Whether they all come from one address."""
        return len(self.sources) == 1 and self.sources[0][0] == self.sources[0][1]

    @property
    def to_itself(self) -> bool:
        """Whether their client reaches itself."""
        return ITSELF in self.others or (self.one_client and self.sources == self.destinations)


_ANY = Traffic()
_FIELDS = {name: at for at, name in enumerate(Traffic._fields)}


def with_part(traffic: Traffic, part: str, value: Intervals | Devices) -> Traffic:
    """Return the same traffic with one field in place of its own."""
    at = _FIELDS[part]
    parts: Any = (*traffic[:at], value, *traffic[at + 1 :])
    return Traffic(*parts)


def of_family(family: str) -> Traffic:
    """Return all traffic that a table of family ``ip``, ``ip6`` or another sees."""
    addresses = _FAMILIES.get(family, ANY_ADDRESS)
    return Traffic(sources=addresses, destinations=addresses)


def meet(one: Intervals, other: Intervals) -> Intervals:
    """Return the numbers that are in both."""
    if one is other or one == other:
        return one
    if len(one) == 1 and len(other) == 1:
        (low, high), (start, end) = one[0], other[0]
        if start <= low and high <= end:
            return one
        if low <= start and end <= high:
            return other
        low, high = max(low, start), min(high, end)
        return ((low, high),) if low <= high else ()
    common = []
    left, right = 0, 0
    while left < len(one) and right < len(other):
        low = max(one[left][0], other[right][0])
        high = min(one[left][1], other[right][1])
        if low <= high:
            common.append((low, high))
        if one[left][1] < other[right][1]:
            left += 1
        else:
            right += 1
    return tuple(common)


def join(parts: Iterable[tuple[int, int]]) -> Intervals:
    """Return the numbers that are in any of these ranges."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(parts):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return tuple(joined)


def without(all_numbers: Intervals, excluded: Intervals) -> Intervals:
    """Return the numbers of the first that are not in the second."""
    left = []
    for first, last in all_numbers:
        low = first
        for start, end in excluded:
            if end < low or start > last:
                continue
            if start > low:
                left.append((low, start - 1))
            low = end + 1
        if low <= last:
            left.append((low, last))
    return tuple(left)


def both(one: Traffic, other: Traffic) -> Traffic | None:
    """Return the traffic that meets the conditions of both; None if none can."""
    if other in (one, _ANY):
        return one
    if one == _ANY:
        return other
    sources = meet(one.sources, other.sources)
    destinations = meet(one.destinations, other.destinations)
    protocols = meet(one.protocols, other.protocols)
    source_ports = meet(one.source_ports, other.source_ports)
    destination_ports = meet(one.destination_ports, other.destination_ports)
    devices = _devices_of_both(one.devices, other.devices)
    if not (sources and destinations and protocols and source_ports and destination_ports and devices):
        return None
    return Traffic(
        sources,
        destinations,
        protocols,
        source_ports,
        destination_ports,
        devices,
        one.others | other.others,
        one.lasting and other.lasting,
    )


def _devices_of_both(one: Devices, other: Devices) -> Devices | None:
    if other in (one, ANY_DEVICE):
        return one
    if one == ANY_DEVICE:
        return other
    if one.excluded and other.excluded:
        return Devices(one.names | other.names)
    if one.excluded:
        one, other = other, one
    names = frozenset(name for name in one.names if name.endswith(ANY_END) or _is_one_of(name, other))
    return Devices(names, excluded=False) if names else None


def _is_one_of(name: str, devices: Devices) -> bool:
    """Whether a device may be among others; it is no pattern."""
    matches = any(
        name.startswith(pattern[:-1]) if pattern.endswith(ANY_END) else name == pattern
        for pattern in devices.names
    )
    return matches != devices.excluded


def covers(wider: Traffic, traffic: Traffic) -> bool:
    """Whether all packets of ``traffic`` are sure to meet the conditions of ``wider``."""
    return (
        wider.lasting
        and wider.others <= traffic.others
        and (wider.devices in (ANY_DEVICE, traffic.devices) or _all_among(traffic.devices, wider.devices))
        and all(
            wide is narrow or meet(wide, narrow) == narrow
            for wide, narrow in zip(wider[:5], traffic[:5], strict=True)
        )
    )


def _all_among(devices: Devices, wider: Devices) -> bool:
    return not devices.excluded and not any(
        name.endswith(ANY_END) or not _is_one_of(name, wider) for name in devices.names
    )


def device(name: str, wildcard: str) -> str:
    """Return a device's name as it is kept here, given what stands for any end in the words of its tool:
    iptables' ``+`` is a letter for nft, and nft's ``*`` one for iptables. nft quotes ``*`` by a backslash.
    """
    if not name.endswith(wildcard):
        return name
    beginning = name.removesuffix(wildcard)
    return f"{beginning[:-1]}*" if wildcard == "*" and beginning.endswith("\\") else f"{beginning}{ANY_END}"


def protocol(name: str) -> Intervals:
    """Return a protocol by its name or its number; all that have ports for ``th``.

    Raises:
        ValueError: there is no name.

    """
    if not name:
        raise ValueError(name)
    if name in ("th", "all", "0"):
        return WITH_PORTS if name == "th" else ANY_PROTOCOL
    number = int(name) if name.isdecimal() else _NUMBERS.get(name.lower(), _NO_PORTS)
    return ((min(number, _NO_PORTS),) * 2,)


@lru_cache(maxsize=1 << 15)
def addresses(text: str) -> Intervals:
    """Return the addresses of ``10.0.0.1``, ``10.0.0.0/8`` or ``10.0.0.1-10.0.0.9``, of either version.

    Raises:
        ValueError: it is none of these.

    """
    first, _, last = text.partition("-")
    address, _, length = first.partition("/")
    low, bits = _number(address)
    if last:
        high, _ = _number(last)
    else:
        size = 1 << bits - _length(length, bits)
        low = low // size * size
        high = low + size - 1
    if low > high:
        raise ValueError(text)
    return ((low, high),)


def _number(address: str) -> tuple[int, int]:
    """Return an address as a number, and its bits."""
    try:
        if ":" in address:
            packed = socket.inet_pton(socket.AF_INET6, address)
            return _V6_FROM + int.from_bytes(packed, "big"), 128
        return int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big"), 32
    except OSError:
        raise ValueError(address) from None


def _length(text: str, bits: int) -> int:
    """Return the length of a network; of one that iptables prints as a mask, too."""
    if not text:
        return bits
    if text.isdecimal():
        length = int(text)
    else:
        mask = _number(text)[0] & ((1 << bits) - 1)
        length = mask.bit_count()
        if mask != (1 << bits) - (1 << bits - length):
            raise ValueError(text)
    if length > bits:
        raise ValueError(text)
    return length


def ports(text: str) -> Intervals:
    """Return the ports of ``80``, ``80:90``, ``80-90`` or several of these, parted by commas.

    Raises:
        ValueError: they are none.

    """
    ranges = []
    for part in text.split(","):
        low, colon, high = part.replace("-", ":").partition(":")
        ends = int(low), int(high if colon else low)
        if not 0 <= ends[0] <= ends[1] <= 65535:
            raise ValueError(text)
        ranges.append(ends)
    return join(ranges)


def versions_of(sources: Intervals) -> Intervals:
    """Return all addresses of the IP versions that these are of."""
    return tuple(whole for whole in ANY_ADDRESS if meet((whole,), sources))
