"""What nft prints: its chains as text, and the SNAT rules in them, found by its JSON. Pure."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from snat_race.rules.exposure import Place, SnatRule
from snat_race.rules.listing import Chain, Chains, Line

_TABLE = re.compile(r"^table (\S+) (\S+) \{")
_CHAIN = re.compile(r"^\tchain (\S+) \{")
_RULE = re.compile(r"^\t\t(.+) # handle (\d+)$")
# What counts, and its count. What is quoted, a comment say, is left alone.
_COUNTED = re.compile(
    r'"[^"]*"|\b(counter)( packets \d+ bytes \d+)|\b(quota (?:over |until )?\d+ \w+)( used \d+ \w+)?'
    r"|\b(last)( used \S+)"
)
_ALONE = re.compile(r'"[^"]*"|\{ ([^\s{}",]+) \}')  # nft prints a set of one so, until it is loaded again
_FLAGS = re.compile(r"^\tflags (\S+)$")
_OWNED = "only the program that owns its table can change it"
_HOOKS = ("postrouting", "input")  # where the kernel calls source translation
_PROTOCOL = ({"meta": {"key": "l4proto"}}, {"payload": {"protocol": "ip", "field": "protocol"}})


def chains(text: str) -> Chains:
    """Return every rule of ``nft -a list ruleset``, by chain, in order."""
    found: Chains = {}
    family = table = chain = ""
    for number, line in enumerate(text.split("\n")):
        if shape := _TABLE.match(line):
            family, table = shape[1], shape[2]
        elif shape := _CHAIN.match(line):
            chain = shape[1]
            found[family, table, chain] = []
        elif line == "\t}":
            chain = ""
        elif chain and (shape := _RULE.match(line)):
            found[family, table, chain].append(
                Line(number, shape[1], uncounted(shape[1]), handle=int(shape[2]))
            )
    return found


def uncounted(rule: str) -> str:
    """Return a rule without what its counters have counted, as nft prints it when loaded again."""
    bare = _COUNTED.sub(lambda found: "".join(filter(None, found.groups()[::2])) or found[0], rule)
    return _ALONE.sub(lambda found: found[1] or found[0], bare)


def with_counters_of(rule: str, present: str) -> str:
    """Return ``rule`` with the counts that ``present``, the same rule but for its flags, has now."""
    now = [found[0] for found in _COUNTED.finditer(present) if not found[0].startswith('"')]
    then = [found[0] for found in _COUNTED.finditer(rule) if not found[0].startswith('"')]
    if list(map(uncounted, now)) != list(map(uncounted, then)):
        return rule
    counts = iter(now)
    return _COUNTED.sub(lambda old: old[0] if old[0].startswith('"') else next(counts), rule)


def flags(text: str) -> dict[tuple[str, str], set[str]]:
    """Return the flags of each table, by family and name: ``dormant``, ``owner``.

    From the text: what nft 1.0.6 prints for them in JSON is some other string of its memory.
    """
    found: dict[tuple[str, str], set[str]] = {}
    table = ("", "")
    for line in text.split("\n"):
        if shape := _TABLE.match(line):
            table = shape[1], shape[2]
        elif shape := _FLAGS.match(line):
            found[table] = set(shape[1].split(","))
    return found


def snat_rules(text: str, ruleset: str) -> tuple[list[SnatRule], list[str]]:
    """Return the rules that translate sources, of ``nft -a list ruleset`` and ``nft -j`` of the same,
    and which of them are not in the text, or not in one line of it.

    Those that iptables has written are not nft's to read: see :func:`written_by_iptables`.
    """
    objects = json.loads(ruleset)["nftables"]
    handles = {
        chain: {line.handle: (index, line.text) for index, line in enumerate(lines)}
        for chain, lines in chains(text).items()
    }
    reachable, flagged = _reachable(objects), flags(text)
    found, lost = [], []
    for rule in _rules(objects):
        chain = (rule["family"], rule["table"], rule["chain"])
        kind, does = _translation(rule)
        at = handles.get(chain, {}).get(rule["handle"])
        if kind and at:
            table = flagged.get(chain[:2], set())
            reached = chain in reachable and "dormant" not in table
            described = _described(Place("nft", *chain), *at, rule, does, reachable=reached)
            found.append(replace(described, fixed=_OWNED if "owner" in table else ""))
        elif kind:
            lost.append(f"chain {' '.join(chain)} handle {rule['handle']}")
    return found, lost


def written_by_iptables(ruleset: str) -> set[Chain]:
    """Return the chains in which iptables' own targets translate sources, or may: nft before 1.0.6
    does not name them.
    """
    return {
        (rule["family"], rule["table"], rule["chain"])
        for rule in _rules(json.loads(ruleset)["nftables"])
        if rule["table"] == "nat"
        for each in rule["expr"]
        if "xt" in each and (each["xt"] or {}).get("name", "SNAT") in ("MASQUERADE", "SNAT")
    }


def _rules(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (each["rule"] for each in objects if "rule" in each)


def _translation(rule: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    for each in rule["expr"]:
        for kind in ("masquerade", "snat"):
            if kind in each:
                return kind, each[kind] or {}
    return "", {}


def _described(
    place: Place, index: int, text: str, rule: dict[str, Any], does: dict[str, Any], *, reachable: bool
) -> SnatRule:
    flags, port, address = does.get("flags", []), does.get("port"), does.get("addr", "")
    if "prefix" in does.get("type_flags", ()):
        flags = "netmap"
    low, high = port["range"] if isinstance(port, dict) and "range" in port else (port, port)
    return SnatRule(
        place=place,
        index=index,
        text=text,
        address=address if isinstance(address, str) else json.dumps(address),
        flags=frozenset([flags] if isinstance(flags, str) else flags),
        ports=(low, high) if isinstance(low, int) and isinstance(high, int) else None,
        protocol=_protocol(rule),
        source=_matched(rule, "saddr"),
        destination=_matched(rule, "daddr"),
        comment=rule.get("comment", ""),
        reachable=reachable,
    )


def _matches(rule: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    for each in rule["expr"]:
        match = each.get("match", {})
        if match.get("op") == "==":
            yield match["left"], match["right"]


def _protocol(rule: dict[str, Any]) -> str:
    return next((str(right) for left, right in _matches(rule) if left in _PROTOCOL), "")


def _matched(rule: dict[str, Any], field: str) -> str:
    """Return the address or network that a rule asks for; "" if it asks for none, or for several."""
    for left, right in _matches(rule):
        if isinstance(left, dict) and left.get("payload", {}).get("field") == field:
            if isinstance(right, str):
                return right
            if isinstance(right, dict) and "prefix" in right:
                return f"{right['prefix']['addr']}/{right['prefix']['len']}"
    return ""


def _reachable(objects: list[dict[str, Any]]) -> set[Chain]:
    """Return the chains that a packet can come to; what a map leads to counts as led to."""
    waiting: list[Chain] = []
    leads: dict[Chain, set[Chain]] = {}
    for each in objects:
        for kind, thing in each.items():
            table = (thing.get("family", ""), thing.get("table", ""))
            if kind == "chain" and thing.get("type") == "nat" and thing.get("hook") in _HOOKS:
                waiting.append((*table, thing["name"]))
            elif kind == "map":
                waiting += [(*table, name) for name in _targets(thing)]
            elif kind == "rule":
                leads.setdefault((*table, thing["chain"]), set()).update(
                    (*table, n) for n in _targets(thing)
                )
    seen: set[Chain] = set()
    while waiting:
        chain = waiting.pop()
        if chain not in seen:
            seen.add(chain)
            waiting += leads.get(chain, ())
    return seen


def _targets(thing: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield the chains that an object jumps or goes to, however deep that is said."""
    if isinstance(thing, dict):
        for key, value in thing.items():
            if key in ("jump", "goto") and isinstance(value, dict) and "target" in value:
                yield value["target"]
            else:
                yield from _targets(value)
    elif isinstance(thing, list):
        for each in thing:
            yield from _targets(each)
