"""What a rule of iptables asks of a packet and gives to it: iptables-extensions(8). Pure."""

import re
from collections.abc import Callable, Iterator, Sequence

from snat_race.rules import ipsets
from snat_race.rules.exposure import Translation
from snat_race.rules.ipsets import MATCH_SET, Sets
from snat_race.rules.paths import Came
from snat_race.rules.traffic import (
    ANY_ADDRESS,
    ANY_DEVICE,
    ANY_PORT,
    ANY_PROTOCOL,
    Devices,
    Intervals,
    Traffic,
    addresses,
    both,
    device,
    meet,
    ports,
    protocol,
    without,
)

# Matches by which the same packet is always taken, or never; a rate, a chance or a counter is none.
_LASTING = frozenset(
    {
        *(
            "addrtype",
            "ah",
            "cgroup",
            "comment",
            "connmark",
            "conntrack",
            "dccp",
            "devgroup",
            "dscp",
            "esp",
        ),
        *("ecn", "helper", "hl", "icmp", "icmp6", "iprange", "length", "mac", "mark", "multiport", "owner"),
        *("physdev", "pkttype", "policy", "realm", "sctp", "set", "state", "tcp", "tos", "ttl", "udp"),
        *("udplite", "socket"),
    }
)
_OF_SETS_COUNTERS = ("--packets-", "--bytes-", "--update-")  # of '-m set'
_PORTS = re.compile(r":([0-9]{1,5})(?:-([0-9]{1,5}))?$")
_LAST_PORT = 65535
_MATCH = ("-m", "--match")
_SILENT = ("--comment", *_MATCH)  # a word follows, whatever it is; nothing is asked for
_MOST_ALTERNATIVES = 1 << 17  # of one rule: as many as the members of the largest sets


def traffic_of(words: Sequence[str], family: Traffic, sets: Sets) -> tuple[Traffic, ...]:
    """Return what a rule is for, given its words from the chain on to the jump.

    A set of several parts is one alternative for each member. There is none if nothing can match.
    """
    fields: dict[str, Intervals] = {}
    devices = ANY_DEVICE
    others: set[str] = set()
    lasting = True
    alternatives: list[Traffic] = []
    for option, values, negated in _options(words):
        reader = _READERS.get(option)
        if option in _MATCH:
            lasting = lasting and bool(values) and values[0] in _LASTING
        elif option == "-o":
            devices = Devices(frozenset(device(name, "+") for name in values), excluded=negated)
        elif reader and (wanted := _numbers(reader, values, family, negated=negated)) is not None:
            field = reader[0]
            fields[field] = meet(fields.get(field, getattr(family, field)), wanted)
        elif option == MATCH_SET and not negated and (of_set := _of_set(values, sets)) is not None:
            alternatives = _each_of_both(alternatives or [family], of_set)
            if not alternatives:
                return ()
        else:
            others.add(" ".join(["!"] * negated + [option, *values]))
    if not all(fields.values()):
        return ()
    traffic = family._replace(devices=devices, others=frozenset(others), lasting=lasting, **fields)
    return tuple(_each_of_both([traffic], alternatives)) if alternatives else (traffic,)


def asks_for_tcp(words: list[str]) -> bool:
    """Whether a rule asks for no other protocol; words as for :func:`traffic_of`."""
    at = position_of(words, "-p")
    return not at or (words[at + 1] in ("tcp", "6")) != (words[at - 1] == "!")


def repeatable(words: Sequence[str]) -> bool:
    """Whether a packet may be asked twice what a rule asks: the answer is the same, and nothing counts it;
    words as for :func:`traffic_of`.
    """
    for option, values, _ in _options(words):
        if option in _MATCH and not (values and values[0] in _LASTING):
            return False
        if option.startswith(_OF_SETS_COUNTERS):
            return False
    return True


def given(target: list[str]) -> tuple[str, tuple[int, int] | None]:
    """Return the address, "" for any, and the ports, None for any, that a target gives.

    ``--to-source 10.0.0.1:1024-2000``, ``--to-source [fd00::1]:1024`` or ``--to-ports 1024-2000``.
    """
    to_source = value_of(target, "--to-source")
    if to_ports := value_of(target, "--to-ports"):
        return to_source, _port_range(_PORTS.search(f":{to_ports}"))
    # In an IPv6 address without brackets, the last colon does not begin a port.
    may_have_port = to_source.count(":") == 1 or to_source.startswith("[")
    shape = _PORTS.search(to_source) if may_have_port else None
    return to_source[: shape.start()] if shape else to_source, _port_range(shape)


def _port_range(shape: re.Match[str] | None) -> tuple[int, int] | None:
    """Return the ports that a text names; None, which is any, if there can be none such."""
    low, high = (int(shape[1]), int(shape[2] or shape[1])) if shape else (1, 0)
    return (low, high) if low <= high <= _LAST_PORT else None


def value_of(words: list[str], option: str) -> str:
    """Return what follows an option, unless it is negated; "" if it is not there."""
    at = position_of(words, option)
    return words[at + 1] if at and words[at - 1] != "!" else ""


def position_of(words: list[str], option: str) -> int:
    """Return where an option is that a value follows; 0, where none can be, if it is nowhere.

    A comment may read like an option, so what follows ``--comment`` is passed over.
    """
    at = 0
    while at < len(words) - 1:
        if words[at] == option:
            return at
        at += 2 if words[at] == "--comment" else 1
    return 0


def translations(
    to_address: str, given_ports: tuple[int, int] | None, came: Came
) -> tuple[Translation, ...]:
    """Return what a rule gives to the packets that come to it; "" is masquerade, no ports are any."""
    to: Intervals | None = None
    if to_address:
        try:
            to = addresses(to_address.strip("[]"))
        except ValueError:
            to = ANY_ADDRESS
    return tuple(Translation(traffic, to, (given_ports,) if given_ports else None) for traffic, _ in came)


def loops_back(words: Sequence[str], sets: Sets) -> bool:
    """Whether a rule is kube-proxy's for clients that reach themselves, though its set says nothing."""
    return any(
        option == MATCH_SET
        and not negated
        and ipsets.loops_back(values[0], values[-1])
        and _of_set(values, sets) is None
        for option, values, negated in _options(words)
    )


def _of_set(values: Sequence[str], sets: Sets) -> Sequence[Traffic] | None:
    return sets.packets(values[0], values[-1])


def _each_of_both(some: Sequence[Traffic], others: Sequence[Traffic]) -> list[Traffic]:
    """Return what meets one of each; more than can be are met by what meets one of ``some``."""
    if len(some) * len(others) > _MOST_ALTERNATIVES:
        return list(some)
    return [common for one in some for other in others if (common := both(one, other))]


def _options(words: Sequence[str]) -> Iterator[tuple[str, Sequence[str], bool]]:
    """Yield each option with what follows it, and whether a ``!`` stands before it."""
    start = 0
    while start < len(words):
        if not words[start].startswith("-"):
            start += 1
            continue
        # A comment may read like an option. What others look for may too; that makes conditions that are
        # not understood of it, or too few packets of them, and never too many.
        end = start + 2 if words[start] in _SILENT else start + 1
        while words[start] not in _SILENT and end < len(words) and not words[end].startswith("-"):
            end += 1
        values = words[start + 1 : end]
        if words[start] != "--comment":
            yield (
                words[start],
                values[:-1] if values and values[-1] == "!" else values or ("",),
                start > 0 and words[start - 1] == "!",
            )
        start = end


def _numbers(
    reader: "_Reader", values: Sequence[str], family: Traffic, *, negated: bool
) -> Intervals | None:
    """Return what one option asks for; None if that is not understood."""
    field, read, every = reader
    try:
        wanted = read(" ".join(values))
    except ValueError:
        return None
    if negated:
        return without(getattr(family, field) if every is None else every, wanted)
    return wanted


# How the value of an option is read: the field that it is for, the function, and, if it is not that of
# the table's family, what there is besides it.
_Reader = tuple[str, Callable[[str], Intervals], Intervals | None]
_READERS: dict[str, _Reader] = {
    "-s": ("sources", addresses, None),
    "-d": ("destinations", addresses, None),
    "--src-range": ("sources", addresses, None),
    "--dst-range": ("destinations", addresses, None),
    "-p": ("protocols", protocol, ANY_PROTOCOL),
    "--sport": ("source_ports", ports, ANY_PORT),
    "--sports": ("source_ports", ports, ANY_PORT),
    "--dport": ("destination_ports", ports, ANY_PORT),
    "--dports": ("destination_ports", ports, ANY_PORT),
}
