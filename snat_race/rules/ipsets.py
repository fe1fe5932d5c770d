"""Sets of iptables' match ``set``, as ``ipset save`` prints them: which packets their members are. Pure.

See ipset(8). A set is read as it is now. An empty one says nothing of what it is for, so it counts as not
read; so does one whose members are not understood here, stand for networks (``netmask``), or go by
themselves (``timeout``). So do those that packets change: see :func:`kept`.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from snat_race.rules.traffic import (
    ANY_PORT,
    Devices,
    Intervals,
    Traffic,
    addresses,
    join,
    meet,
    ports,
    protocol,
    with_part,
)

# kube-proxy in IPVS mode puts every endpoint into these, as address, port and its own address again: a pod
# that reaches itself through a service (pkg/proxy/ipvs/ipset.go, kubeLoopBackIPSet).
_LOOP_BACK = ("KUBE-LOOP-BACK", "KUBE-6-LOOP-BACK")
_LOOP_BACK_DIRECTIONS = "dst,dst,src"
_SETS_AT_ONCE = 64  # whose members are kept: many rules may ask for one set
_PORTS_AT_ONCE = 1 << 12
_CHANGED_BY_PACKETS = re.compile(r" --(?:add|del|map)-set (\S+)")  # of target SET
_PROTOCOLS_WITHOUT_PORTS = ("icmp", "icmpv6", "ipv6-icmp")


class IpSet(NamedTuple):
    """One set."""

    kind: str  # hash:ip,port,ip
    members: tuple[str, ...]
    # Whether being a member is all there is to a match: none is marked ``nomatch``, stands for its whole
    # network, or is one for a while only.
    plain: bool


def parsed(text: str) -> dict[str, IpSet]:
    """Return the sets that ``ipset save`` prints, by name."""
    kinds: dict[str, str] = {}
    listed: dict[str, list[str]] = {}
    exceptions = set()
    for line in text.split("\n"):
        words = line.split(" ")
        if words[0] == "create" and len(words) > 2:
            kinds[words[1]] = words[2]
            if {"netmask", "bitmask"} & set(words[3:]) or _passes(words[3:]):
                exceptions.add(words[1])
        elif words[0] == "add" and len(words) > 2:
            listed.setdefault(words[1], []).append(words[2])
            if "nomatch" in words[3:] or _passes(words[3:]):
                exceptions.add(words[1])
    return {
        name: IpSet(kind, tuple(listed.get(name, ())), name not in exceptions)
        for name, kind in kinds.items()
    }


def kept(sets: Mapping[str, IpSet], rules: str) -> dict[str, IpSet]:
    """Return the sets that no rule of what iptables-save prints changes."""
    changed = set(_CHANGED_BY_PACKETS.findall(rules))
    return {name: ipset for name, ipset in sets.items() if name not in changed}


@lru_cache(maxsize=_SETS_AT_ONCE)
def members(ipset: IpSet | None, directions: str) -> tuple[Traffic, ...] | None:
    """Return what a match with a set is for, a member each; None if that is not known.

    ``directions``: which end of a packet each part of a member is about, as in ``dst,dst,src``.
    """
    if ipset is None or not ipset.members or not ipset.plain:
        return None
    parts = ipset.kind.partition(":")[2].split(",")
    ends = directions.split(",")
    try:
        if len(parts) == 1 and parts[0] in ("ip", "net"):
            field = "sources" if ends[0] == "src" else "destinations"
            numbers = join(ends for member in ipset.members for ends in addresses(member))
            return (with_part(Traffic(), field, numbers),)
        return tuple(_member(member, parts, ends) for member in ipset.members)
    except (ValueError, IndexError):
        return None


def loops_back(name: str, directions: str) -> bool:
    """Whether a match is for clients that reach themselves, by the name that kube-proxy gives the set."""
    return name in _LOOP_BACK and directions == _LOOP_BACK_DIRECTIONS


def _passes(options: Sequence[str]) -> bool:
    """Whether a set's members, or one of them, go after a time; 0 is never."""
    return any(word == "timeout" and seconds != "0" for word, seconds in pairwise(options))


def _member(member: str, parts: Sequence[str], ends: Sequence[str]) -> Traffic:
    """Raise ValueError if it is not understood, IndexError if it has other parts than its set."""
    values = member.split(",")
    if len(values) != len(parts) or len(ends) < len(parts):
        raise ValueError(member)
    fields: dict[str, Any] = {}
    for value, part, end in zip(values, parts, ends, strict=False):
        for field, asked in _about(value, part, from_source=end == "src").items():
            if field not in fields:
                fields[field] = asked
            elif field == "others":
                fields[field] |= asked
            elif field == "devices" or not (both_ask := meet(fields[field], asked)):
                raise ValueError(member)
            else:
                fields[field] = both_ask
    return Traffic(**fields)


def _about(value: str, part: str, *, from_source: bool) -> dict[str, Any]:
    """Return the fields of ``Traffic`` that a part of a member is about."""
    if part in ("ip", "net"):
        return {"sources" if from_source else "destinations": addresses(value)}
    if part == "port":
        named, numbers = _port(value)
        return {"protocols": named, "source_ports" if from_source else "destination_ports": numbers}
    if part == "iface" and not from_source and not value.startswith("physdev:"):
        return {"devices": Devices(frozenset({value}), excluded=False)}
    return {"others": frozenset({f"{part} {value} {'src' if from_source else 'dst'}"})}


@lru_cache(maxsize=_PORTS_AT_ONCE)
def _port(value: str) -> tuple[Intervals, Intervals]:
    """Return the protocols and the ports of ``tcp:80``, ``icmp:echo-request`` or ``80``."""
    named, _, number = value.rpartition(":")
    if named in _PROTOCOLS_WITHOUT_PORTS:
        return protocol(named), ANY_PORT
    return protocol(named or "th"), ports(number)
