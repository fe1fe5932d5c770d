"""Sets of iptables' match ``set``, as ``ipset save`` prints them: which packets their members are. Pure.

See ipset(8). A set is read as it is now. An empty one says nothing of what it is for, so it counts as not
read; so does one whose members are not understood here, stand for networks (``netmask``), or go by
themselves (``timeout``). So do those that packets change: see :class:`Sets`.

The members of a set are told apart as long as that is cheap. Those of a huge one, or of one that many rules
ask for, are taken together: a rule is for no fewer packets then, and for none that another set is for.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from snat_race.rules.traffic import (
    ANY_PORT,
    ITSELF,
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
_SETS_AT_ONCE = 64  # whose members are kept: rules are read again, and sets seldom change
# How many members rules may ask for, in all, so that they are told apart: some 0.5 s. A member of several
# parts is an alternative of its own, and costs that much more than one more address.
_MOST_ASKED_FOR = 150_000
_COST_OF_ALTERNATIVE = 30
_MOST_VALUES = 10_000  # that are looked at, of a part of members that are taken together
_MOST_RANGES = 1024  # of a field of members that are taken together; beyond, it is open
_PORTS_AT_ONCE = 1 << 12
MATCH_SET = "--match-set"  # the option of iptables' match ``set``
_ASKED = re.compile(rf" {MATCH_SET} (\S+)")
_CHANGED_BY_PACKETS = re.compile(r" --(?:add|del|map)-set (\S+)")  # of target SET
_PROTOCOLS_WITHOUT_PORTS = ("icmp", "icmpv6", "ipv6-icmp")


class IpSet(NamedTuple):
    """One set."""

    kind: str  # hash:ip,port,ip
    members: tuple[str, ...]
    # Whether being a member is all there is to a match: none is marked ``nomatch`` or ``wildcard``, stands
    # for its whole network, or is one for a while only.
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
            if {"nomatch", "wildcard"} & set(words[3:]) or _passes(words[3:]):
                exceptions.add(words[1])
    return {
        name: IpSet(kind, tuple(listed.get(name, ())), name not in exceptions)
        for name, kind in kinds.items()
    }


class Sets:
    """The sets that rules of one tool ask for, as far as they could be read."""

    def __init__(self, sets: Mapping[str, IpSet], rules: str) -> None:
        """``rules``: what iptables-save prints. The sets that they change count as not read."""
        changed = set(_CHANGED_BY_PACKETS.findall(rules))
        self._sets = {name: ipset for name, ipset in sets.items() if name not in changed}
        self._apart = _kept_apart(self._sets, rules)
        self._packets: dict[tuple[str, str], tuple[Traffic, ...] | None] = {}

    def packets(self, name: str, directions: str) -> tuple[Traffic, ...] | None:
        """Return what a match with a set is for, any of these; None if that is not known.

        ``directions``: which end of a packet each part of a member is about, as in ``dst,dst,src``.
        """
        asked = name, directions
        if asked not in self._packets:
            ipset = self._sets.get(name)
            if ipset is None or not ipset.members or not ipset.plain:
                self._packets[asked] = None
            elif name in self._apart:
                self._packets[asked] = _members(ipset, directions)
            else:
                together = _together(ipset, directions)
                condition = frozenset({f"{MATCH_SET} {name} {directions}"})
                self._packets[asked] = together and (together._replace(others=together.others | condition),)
        return self._packets[asked]


def _kept_apart(sets: Mapping[str, IpSet], rules: str) -> set[str]:
    """Return the sets whose members are told apart: the smaller ones first, as long as that is cheap."""
    nat = rules.partition("*nat\n")[2].partition("\nCOMMIT")[0]
    times = Counter(_ASKED.findall(nat))
    costs = {
        name: len(ipset.members) * times[name] * (_COST_OF_ALTERNATIVE if _has_parts(ipset) else 1)
        for name, ipset in sets.items()
    }
    cheapest = sorted(costs, key=lambda name: costs[name])
    sums = accumulate(costs[name] for name in cheapest)
    return {name for name, cost in zip(cheapest, sums, strict=True) if cost <= _MOST_ASKED_FOR}


def _has_parts(ipset: IpSet) -> bool:
    return ipset.kind.partition(":")[2] not in ("ip", "net")


@lru_cache(maxsize=_SETS_AT_ONCE)
def _members(ipset: IpSet, directions: str) -> tuple[Traffic, ...] | None:
    """Return what each member is for; those of one part are one. None if they are not understood."""
    parts = ipset.kind.partition(":")[2].split(",")
    ends = directions.split(",")
    try:
        if not _has_parts(ipset):
            field = "sources" if ends[0] == "src" else "destinations"
            numbers = join(ends for member in ipset.members for ends in addresses(member))
            return (with_part(Traffic(), field, numbers),)
        return tuple(_member(member, parts, ends) for member in ipset.members)
    except (ValueError, IndexError):
        return None


@lru_cache(maxsize=_SETS_AT_ONCE)
def _together(ipset: IpSet, directions: str) -> Traffic | None:
    """Return what all members are for, or more; None if they are not understood."""
    parts = ipset.kind.partition(":")[2].split(",")
    ends = directions.split(",")[: len(parts)]
    fields: dict[str, Any] = {}
    try:
        columns = list(zip(*(member.split(",") for member in ipset.members), strict=True))
        for column, part, end in zip(columns, parts, ends, strict=True):
            for field, numbers in _of_column(set(column), part, from_source=end == "src").items():
                fields[field] = meet(fields[field], numbers) if field in fields else numbers
    except ValueError:
        return None
    if not all(fields.values()):  # two parts about one field, and no member whose parts agree
        return None
    by_end = {end: column for column, part, end in zip(columns, parts, ends, strict=True) if part == "ip"}
    if len(by_end) > 1 and len(set(by_end.values())) == 1:
        fields["others"] = frozenset({ITSELF})
    return Traffic(**fields)


def _of_column(values: Collection[str], part: str, *, from_source: bool) -> dict[str, Intervals]:
    """Return the fields that one part of all members is about; without those that are open."""
    if len(values) > _MOST_VALUES:
        return {}
    ranges: dict[str, list[tuple[int, int]]] = {}
    for value in values:
        for field, asked in _about(value, part, from_source=from_source).items():
            if field not in ("devices", "others"):
                ranges.setdefault(field, []).extend(asked)
    joined = {field: join(ends) for field, ends in ranges.items()}
    return {field: numbers for field, numbers in joined.items() if len(numbers) <= _MOST_RANGES}


def unread(asked: Iterable[Traffic]) -> list[str]:
    """Return the names of the sets whose members are not known, of those that packets have to be in."""
    conditions = (condition.split(" ") for traffic in asked for condition in traffic.others)
    return sorted({words[1] for words in conditions if words[0] == MATCH_SET})


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
