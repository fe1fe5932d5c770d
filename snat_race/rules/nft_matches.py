"""What the statements of nft's JSON, libnftables-json(5), ask of a packet and give to it. Pure.

Whatever is not understood here is a condition that is not known, or leaves open what is given: a rule is
then for more packets, or gives more addresses and ports, than in truth.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from snat_race.rules.exposure import ONE_PORT, RANDOM, Translation
from snat_race.rules.nft_elements import Elements, affordable
from snat_race.rules.nft_json import JsonRule, Listing
from snat_race.rules.nft_values import READERS, VERSIONS, addresses_of, ends
from snat_race.rules.paths import Step, arriving
from snat_race.rules.ruleset import ChainKey
from snat_race.rules.traffic import (
    ANY_ADDRESS,
    ANY_PROTOCOL,
    TCP,
    Devices,
    Traffic,
    both,
    join,
    meet,
    of_family,
    ports,
    protocol,
    with_part,
    without,
)

Json = dict[str, Any]
Statement = tuple[str, Any]
_TRANSLATIONS = ("masquerade", "snat")
_VERDICTS = ("accept", "drop", "return", "goto", "reject", "queue")
_ALTERS = ("mangle", "set", "map")  # what later rules may ask for
# The same packet may pass, or not.
_CHANCE = ("limit", "quota", "ct count", "meter", "set", "map", "xt", "")
_DRAWN = ('"numgen"', '"random"', '"prandom"')  # of each packet anew, whenever it is asked for
_WITH_HEADER = ("tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "esp", "ah", "comp", "igmp")
_PORTS_OF = ("tcp", "udp", "udplite", "sctp", "dccp", "th")
_MOST_ALTERNATIVES = 1 << 17  # of one rule


def given_by(listing: Listing) -> list[tuple[tuple[Translation, ...], bool]]:
    """Return what each rule gives to which packets; nothing if it gives none, or if none come to it. Return
    also whether it asks for TCP, whether any comes to it or not.
    """
    chains: dict[ChainKey, list[Step[ChainKey]]] = {}
    looked_at = []
    elements_of = affordable(listing)
    for rule in listing.rules:
        steps = chains.setdefault(rule.chain, [])
        given: list[Translation] = []
        step: Step[ChainKey] = Step(())
        if rule.chain in listing.reachable:
            elements = elements_of.get(rule.chain[:2], {})
            given = _given(rule, elements)
            step = _step(rule, given, elements)
        looked_at.append(((rule.chain, len(steps)), given))
        steps.append(step)
    led_to = {target for steps in chains.values() for step in steps for _, target in step.jumps}
    # What only a map leads to that no rule is seen to use, packets may come to from anywhere.
    roots = [*listing.base_chains, *(chain for chain in listing.reachable if chain not in led_to)]
    came = arriving(chains, {chain: of_family(chain[0]) for chain in roots})
    return [
        (
            tuple(given[number]._replace(traffic=traffic) for traffic, number in came.get(key, ())),
            any(meet(one.traffic.protocols, TCP) for one in given),
        )
        for key, given in looked_at
    ]


def _given(rule: JsonRule, elements: Elements) -> list[Translation]:
    """Return what a rule gives to which packets that match."""
    if not (rule.translation or rule.iptables_target):
        return []
    traffic = traffic_of(rule.statements, of_family(rule.chain[0]), elements)
    return [
        one._replace(traffic=common)
        for matching in traffic
        for one in translations_of(rule.statements, elements)
        if (common := both(matching, one.traffic))
    ]


def _step(rule: JsonRule, given: Sequence[Translation], elements: Elements) -> Step[ChainKey]:
    translates = bool(rule.translation or rule.iptables_target)
    if translates:
        traffic = tuple(one.traffic for one in given)
    else:
        traffic = traffic_of(rule.statements, of_family(rule.chain[0]), elements)
    jumps = [
        (tuple(_each_of_both(traffic, part)), target)
        for part, target in jumps_of(rule.statements, elements)
    ]
    # Where it leads in a way that is not known here, all its packets may go.
    jumps += [(traffic, target) for target in rule.targets.difference(target for _, target in jumps)]
    whole = not (rule.inner_text or rule.iptables_target)  # of others, not all conditions are known
    return Step(
        traffic,
        ends=whole and (translates or settled(rule.statements)),
        settled=whole and settled(rule.statements),
        jumps=tuple((part, (*rule.chain[:2], target)) for part, target in jumps),
        wanted=translates,
        alters=any(kind in _ALTERS for kind, _ in rule.statements),
    )


def traffic_of(statements: Iterable[Statement], family: Traffic, elements: Elements) -> tuple[Traffic, ...]:
    """Return what a rule is for; a set of several fields is one alternative for each element."""
    alternatives = [family]
    for kind, said in statements:
        if kind == "match" and isinstance(said, dict):
            asked = _asked(said, elements)
        elif kind in _CHANCE:
            asked = [Traffic(lasting=False)]
        else:
            continue
        alternatives = _each_of_both(alternatives, asked)
    return tuple(alternatives)


def settled(statements: Iterable[Statement]) -> bool:
    """Whether a packet that matches meets a verdict, or is given a port that is drawn."""
    for kind, said in statements:
        if kind in _VERDICTS:
            return True
        if kind in _TRANSLATIONS:
            flags = said.get("flags") if isinstance(said, dict) else None
            return any(
                flag in RANDOM
                for flag in (flags if isinstance(flags, list) else [flags])
                if isinstance(flag, str)
            )
    return False


def jumps_of(
    statements: Iterable[Statement], elements: Elements
) -> Iterator[tuple[tuple[Traffic, ...], str]]:
    """Yield the chains that a rule leads to, each with what leads there."""
    for kind, said in statements:
        if kind in ("jump", "goto"):
            yield from _jump({kind: said}, Traffic())
        elif kind == "vmap" and isinstance(said, dict):
            fields = _fields(said.get("key"))
            for key, verdict in _pairs(said.get("data"), elements):
                yield from _jump(verdict, _element(fields, key) or Traffic())


def _jump(verdict: Any, traffic: Traffic) -> Iterator[tuple[tuple[Traffic, ...], str]]:  # noqa: ANN401
    for kind in ("jump", "goto"):
        said = verdict.get(kind) if isinstance(verdict, dict) else None
        target = said.get("target") if isinstance(said, dict) else None
        if isinstance(target, str):
            yield (traffic,), target


def translations_of(statements: Iterable[Statement], elements: Elements) -> list[Translation]:
    """Return what a rule gives to which packets; of a map, one for each element."""
    said = next((said for kind, said in statements if kind in _TRANSLATIONS), None)
    words = said if isinstance(said, dict) else {}
    given = [Translation(Traffic())]
    for part, read in (("addr", _given_address), ("port", _given_port)):
        if part in words:
            given = _combined(given, [*_given_by(words[part], read, elements)])
    return given


def _combined(some: Sequence[Translation], more: Sequence[Translation]) -> list[Translation]:
    if len(some) * len(more) > _MOST_ALTERNATIVES:
        return [*some]
    return [
        Translation(common, other.to or one.to, other.ports or one.ports)
        for one in some
        for other in more
        if (common := both(one.traffic, other.traffic))
    ]


def _given_by(said: Any, read: Any, elements: Elements) -> Iterator[Translation]:  # noqa: ANN401
    """Yield what an address or a port is, or each element of a map of them."""
    words = said.get("map") if isinstance(said, dict) else None
    pairs = [*_pairs(words.get("data"), elements)] if isinstance(words, dict) else []
    if not isinstance(words, dict):
        yield read(said)
    elif not pairs:
        yield Translation(Traffic(lasting=False), ANY_ADDRESS)
    else:
        fields = _fields(words.get("key"))
        # What is in no element, the rule leaves to later ones; a number that is drawn is in one.
        unknown = Traffic(lasting=_is_drawn(words.get("key")))
        for key, value in pairs:
            yield read(value)._replace(traffic=_element(fields, key) or unknown)


def _is_drawn(key: Any) -> bool:  # noqa: ANN401
    return isinstance(key, dict) and not {"numgen", "jhash", "symhash"}.isdisjoint(key)


def _given_address(said: Any) -> Translation:  # noqa: ANN401
    """Return what an address is, or one with a port."""
    parts = said.get("concat") if isinstance(said, dict) else None
    if isinstance(parts, list) and len(parts) == 2:
        return Translation(Traffic(), _given_address(parts[0]).to, _given_port(parts[1]).ports)
    try:
        return Translation(Traffic(), addresses_of(said))
    except (ValueError, TypeError, KeyError):
        return Translation(Traffic(), ANY_ADDRESS)


def _given_port(said: Any) -> Translation:  # noqa: ANN401
    """Return what a port is: what is no range is computed, and a single one (nft_nat_eval() in nft_nat.c
    has one register for both ends). Of a range in a map, nft 1.0.6 loads one port, and prints 1024-0.
    """
    try:
        low, high = ends(said)
        return Translation(Traffic(), None, ports(f"{low}-{high or low}"))
    except (ValueError, TypeError, KeyError):
        ranged = isinstance(said, dict) and "range" in said
        return Translation(Traffic(), None, None if ranged else ONE_PORT)


def _pairs(data: Any, elements: Elements) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
    """Yield the keys and values of a map."""
    for element in _listed(data, elements) or ():
        if isinstance(element, list) and len(element) == 2:
            yield _bare(element[0]), element[1]


def _listed(data: Any, elements: Elements) -> Sequence[Any] | None:  # noqa: ANN401
    """Return the elements of a set or map, given by itself or by its name; None if it is none."""
    if isinstance(data, str) and data.startswith("@"):
        return elements.get(data[1:])
    listed = data.get("set") if isinstance(data, dict) else None
    return listed if isinstance(listed, list) else None


def _bare(element: Any) -> Any:  # noqa: ANN401
    """Return an element without its timeout, its comment and what it counts."""
    inner = element.get("elem") if isinstance(element, dict) else None
    return inner.get("val") if isinstance(inner, dict) else element


def _asked(said: Json, elements: Elements) -> list[Traffic]:
    """Return what one match asks for: any of these."""
    fields = _fields(said.get("left"))
    right = said.get("right")
    negated = said.get("op") == "!="
    if said.get("op") not in ("==", "!=") or not fields:
        return [_unknown(said)]
    listed = _listed(right, elements)
    if listed is None and isinstance(right, str) and right.startswith("@"):
        # Packets may change it, or nobody has told what it holds.
        return [_unknown(said)._replace(lasting=False)]
    values = [right] if listed is None else [_bare(value) for value in listed]
    read = [_element(fields, value) for value in values]
    known = [traffic for traffic in read if traffic]
    if not known or len(known) < len(read) or (negated and len(fields) > 1):
        return [_unknown(said)]
    return known if len(fields) > 1 else [_any_of(known, fields[0], negated=negated)]


def _unknown(said: Json) -> Traffic:
    """Return what is known of a match that is not understood: two that say the same ask for the same."""
    condition = json.dumps(said, sort_keys=True)
    left = said.get("left")
    payload = left.get("payload") if isinstance(left, dict) else None
    named = str(payload.get("protocol")) if isinstance(payload, dict) else ""
    protocols = protocol(named) if named in _WITH_HEADER else ANY_PROTOCOL
    return Traffic(others=frozenset({condition}), lasting=_certain(said), protocols=protocols)


def _certain(said: Json) -> bool:
    """Whether a match takes the same packet again, and its words say all of it: nft 1.0.6 prints names of
    devices that end with ``*``, in sets, as nothing.
    """
    left = json.dumps(said.get("left"))
    return '""' not in json.dumps(said.get("right")) and not any(word in left for word in _DRAWN)


def _any_of(alternatives: Sequence[Traffic], field: "_Field", *, negated: bool) -> Traffic:
    """Return the values of one field together, or all others."""
    if len(alternatives) == 1 and not negated:
        return alternatives[0]
    name, limits = field
    if name == "devices":
        names = frozenset(device for one in alternatives for device in one.devices.names)
        return Traffic(devices=Devices(names, excluded=negated))
    numbers = join(ends for one in alternatives for ends in getattr(one, name))
    if negated:
        numbers = without(getattr(limits, name), numbers)
    return with_part(limits, name, numbers)


_Field = tuple[str, Traffic]
"""The field of ``Traffic`` that a match is about, and what every packet that has it is."""


def _fields(left: Any) -> list[_Field]:  # noqa: ANN401
    """Return what the left side of a match is about, in order; nothing if one part is not known."""
    parts = left.get("concat") if isinstance(left, dict) else None
    fields = [_field(part) for part in (parts if isinstance(parts, list) else [left])]
    return [field for field in fields if field] if all(fields) else []


def _field(left: Any) -> _Field | None:  # noqa: ANN401
    payload = left.get("payload") if isinstance(left, dict) else None
    meta = left.get("meta") if isinstance(left, dict) else None
    if isinstance(payload, dict):
        named, field = (str(payload.get(key)) for key in ("protocol", "field"))
        if named in ("ip", "ip6"):
            family = Traffic(sources=VERSIONS[named], destinations=VERSIONS[named])
            fields = {"saddr": "sources", "daddr": "destinations"}
            fields |= {"protocol": "protocols", "nexthdr": "protocols"}
            return (fields[field], family) if field in fields else None
        if named in _PORTS_OF and field in ("sport", "dport"):
            end = "source_ports" if field == "sport" else "destination_ports"
            return end, Traffic(protocols=protocol(named))
    if isinstance(meta, dict):
        if meta.get("key") == "l4proto":
            return "protocols", Traffic()
        if meta.get("key") in ("oifname", "oif"):
            return "devices", Traffic()
        if meta.get("key") in ("nfproto", "protocol"):
            return "sources", Traffic()
    return None


def _element(fields: Sequence[_Field], value: Any) -> Traffic | None:  # noqa: ANN401
    """Return the packets whose fields are such a value; None if it is not understood."""
    parts = value.get("concat") if len(fields) > 1 and isinstance(value, dict) else [value]
    if not isinstance(parts, list) or len(parts) != len(fields) or not fields:
        return None
    traffic: Traffic | None = None
    for (name, limits), part in zip(fields, parts, strict=True):
        try:
            of_part = with_part(limits, name, READERS[name](part))
        except (ValueError, TypeError, KeyError):
            return None
        traffic = both(traffic, of_part) if traffic else of_part
        if traffic is None:
            return None
    return traffic


def _each_of_both(some: Sequence[Traffic], others: Sequence[Traffic]) -> list[Traffic]:
    if len(some) * len(others) > _MOST_ALTERNATIVES:
        return [*some]
    return [common for one in some for other in others if (common := both(one, other))]
