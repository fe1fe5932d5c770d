"""Which rules of nft can have the same rule, for TCP alone, in front of them: no packet tells. Pure.

A packet of TCP is then asked the same questions twice if it does not match. So a question must have the
same answer each time, and asking must change nothing: no rate, no chance, no seed that the kernel draws for
each rule (jhash), no mark that is set, no counter that rules share. What is not listed here may be so.
"""

from collections.abc import Iterable
from typing import Any

from snat_race.rules.nft_elements import Elements

_OF_PACKET = ("ip", "ip6", "ether", "vlan")  # payloads that a packet of TCP has, too
_META = frozenset(
    {
        *(
            "oifname",
            "iifname",
            "oif",
            "iif",
            "oifgroup",
            "iifgroup",
            "oiftype",
            "iiftype",
            "ibrname",
            "obrname",
        ),
        *("mark", "nfproto", "protocol", "l4proto", "skuid", "skgid", "cgroup", "rtclassid", "priority"),
        *("pkttype", "length", "time", "day", "hour"),
    }
)
_NO_CT = frozenset({"count", "packets", "bytes", "avgpkt"})  # differ from one packet to the next
_LOOKUPS = ("fib", "rt", "socket")
_OPERATORS = ("&", "|", "^", "<<", ">>", "concat")
_OF_ELEMENT = frozenset({"val", "comment", "timeout", "expires"})  # what an element may say


def repeatable(statements: Iterable[tuple[str, Any]], elements: Elements) -> bool:
    """Return whether all that a rule asks and does may happen twice."""
    return all(_is_repeatable(kind, said, elements) for kind, said in statements)


def _is_repeatable(kind: str, said: Any, elements: Elements) -> bool:  # noqa: ANN401 - of JSON
    if kind == "counter":  # its own; one that has a name, others count with too
        return not isinstance(said, str)
    if kind == "match" and isinstance(said, dict):
        return _asks_the_same(said.get("left")) and _is_fixed(said.get("right"), elements)
    if kind in ("masquerade", "snat"):
        parts = said if isinstance(said, dict) else {}
        return all(_gives_the_same(parts[part], elements) for part in ("addr", "port") if part in parts)
    return False


def _asks_the_same(left: Any) -> bool:  # noqa: ANN401
    """Return whether a packet of TCP has this field, and always the same value there."""
    if not isinstance(left, dict) or len(left) != 1:
        return isinstance(left, (int, str))
    ((kind, said),) = left.items()
    if kind in _OPERATORS:
        return isinstance(said, list) and all(map(_asks_the_same, said))
    words = said if isinstance(said, dict) else {}
    return (
        (kind == "payload" and words.get("protocol") in _OF_PACKET)
        or (kind == "meta" and words.get("key") in _META)
        or (kind == "ct" and "key" in words and words["key"] not in _NO_CT)
        or kind in _LOOKUPS
    )


def _is_fixed(right: Any, elements: Elements) -> bool:  # noqa: ANN401
    """Return whether a value, or a set, says the same each time: no element counts, or has a rate."""
    if isinstance(right, str) and right.startswith("@"):
        return right[1:] in elements and _is_fixed(elements[right[1:]], elements)
    if isinstance(right, list):
        return all(_is_fixed(value, elements) for value in right)
    if isinstance(right, dict):
        element = right.get("elem")
        if isinstance(element, dict) and not set(element) <= _OF_ELEMENT:
            return False
        return all(_is_fixed(value, elements) for value in right.values())
    return True


def _gives_the_same(given: Any, elements: Elements) -> bool:  # noqa: ANN401
    """Return whether a client gets the same of two such rules."""
    words = given.get("map") if isinstance(given, dict) else None
    if isinstance(words, dict):
        return _asks_the_same(words.get("key")) and _is_fixed(words.get("data"), elements)
    return isinstance(given, (int, str)) or (
        isinstance(given, dict)
        and set(given) <= {"range", "prefix", "concat"}
        and _is_fixed(given, elements)
    )
