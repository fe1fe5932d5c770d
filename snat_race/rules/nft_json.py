"""What nft says of its rules in JSON, libnftables-json(5), as checked values. Pure.

Programs and versions of nft say a thing in several ways, and newer ones say things that are not known here.
Whatever decides about a rule is checked here; a statement that is not known makes its rule one that is not
understood. It may translate sources, so such a rule must not pass for one that does not.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from snat_race.errors import EnvironmentLacks
from snat_race.rules.nft_commands import NAME
from snat_race.rules.nft_words import WordedRule, anonymous_chain, worded
from snat_race.rules.ruleset import ChainKey, reached

_HOOKS = ("postrouting", "input")  # where the kernel calls source translation
_TRANSLATIONS = ("masquerade", "snat")
_JUMPS = ("jump", "goto")
_STATEMENTS = frozenset(
    {
        *_TRANSLATIONS,
        *_JUMPS,
        *("accept", "drop", "continue", "return", "match", "counter", "mangle", "quota", "limit", "last"),
        *("fwd", "notrack", "dup", "dnat", "redirect", "reject", "set", "map", "vmap", "log", "meter"),
        *("queue", "tproxy", "synproxy", "reset", "secmark", "flow", "xt"),
        *("ct helper", "ct timeout", "ct expectation", "ct count"),
    }
)
_XT_TARGETS = ("MASQUERADE", "SNAT")
# iptables prints a table only if it knows all expressions in it: nft_is_expr_compatible() in iptables'
# iptables/nft.c. These it knows (seen with 1.8.7 to 1.8.13), with conditions on these apart.
_PRINTED_BY_IPTABLES = frozenset(
    {"xt", "match", "counter", "limit", "continue", "accept", "drop", "return", "vmap", "mangle", *_JUMPS}
)
_NOT_PRINTED_BY_IPTABLES = frozenset(
    {"ct", "fib", "rt", "socket", "osf", "ipsec", "numgen", "jhash", "symhash"}
)
_LAST_PORT = 65535
_NUMBER = re.compile(r"[0-9]{1,18}")
# nft puts a comment, or a prefix for the log, into quotes as it is, and names of sets, chains and meters
# without any.
_ENDS_QUOTE = re.compile(r'["\n]')
# What nft 1.0.2 says of a verdict in a set that a newer one has made: it may be a jump.
_LOST_VERDICT = "[invalid type]"
_STRANGE_SET = re.compile(r"@.*[^\w./\\-]", re.ASCII | re.DOTALL)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """What a rule says of the source's translation."""

    to_address: str = ""  # "" for masquerade; JSON, if it is no single address
    flags: frozenset[str] = frozenset()  # as nft calls them; netmap: each client has its own address
    ports: tuple[int, int] | None = None  # both inclusive; None is any, or what is not known before


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonRule:
    """One rule."""

    chain: ChainKey
    handle: int  # 0 if nft does not say
    comment: str
    translation: Translation | None  # None: it translates no sources
    understood: bool  # whether all its statements are known
    quotable: bool  # whether the text that nft prints of it can be no other rule, and no command
    by_iptables: bool  # whether it translates sources, or may, in iptables' own words
    source_network: str  # that it asks for; "" is any, or several
    statements: tuple[tuple[str, Any], ...]  # each by its name, with what it says; see ``nft_matches``
    targets: frozenset[str]  # the chains that it may jump or go to
    foreign_to_iptables: bool  # whether iptables cannot print it, and then prints nothing of its table
    iptables_target: str = ""  # the target of iptables by which it translates sources; "" if nft names none
    # Of a rule in an anonymous chain: its text. Chain, handle and comment are those of the outer rule.
    inner_text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All rules."""

    rules: tuple[JsonRule, ...]
    reachable: frozenset[ChainKey]  # the chains that a packet can come to where sources are translated
    # Those that the kernel calls, or a map whose keys are not known leads to.
    base_chains: tuple[ChainKey, ...]
    # The elements of sets and maps by table and name, apart from those that packets change.
    elements: Mapping[tuple[str, str], Mapping[str, list[Any]]]


def listing(documents: Iterable[str]) -> Listing:
    """Return what one or more JSON documents of nft say together.

    Raises:
        EnvironmentLacks: one is no JSON, or does not say which chain a rule is in.

    """
    try:
        return _listing(_objects(documents))
    except RecursionError:
        raise _unreadable("it is nested too deeply") from None


def _listing(objects: Iterable[tuple[str, Json]]) -> Listing:
    rules: list[JsonRule] = []
    roots: list[ChainKey] = []
    base_chains: list[ChainKey] = []
    elements: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for kind, thing in objects:
        if kind == "rule":
            rules += _rules(thing)
        elif kind == "chain" and thing.get("type") == "nat" and thing.get("hook") in _HOOKS:
            base_chains.append((*_table(kind, thing), _text(kind, thing, "name")))
        elif kind == "map":  # what a map leads to counts as led to
            table = _table(kind, thing)
            targets = {(*table, name) for name in _Look(thing).targets}
            roots += targets
            pairs = [pair for pair in _elements(thing) if isinstance(pair, list) and len(pair) == 2]
            # Packets may change it, or it is not in the form that is known: then for what it leads is open.
            base_chains += targets - {(*table, name) for pair in pairs for name in _Look(pair[1]).targets}
        if kind in ("set", "map") and (listed := _elements(thing)):
            elements.setdefault(_table(kind, thing), {})[_text(kind, thing, "name")] = listed
    leads: dict[ChainKey, set[ChainKey]] = {}
    for rule in rules:
        leads.setdefault(rule.chain, set()).update((*rule.chain[:2], name) for name in rule.targets)
    reachable = reached([*base_chains, *roots], lambda chain: leads.get(chain, ()))
    return Listing(
        rules=tuple(rules),
        reachable=frozenset(reachable),
        base_chains=tuple(base_chains),
        elements=elements,
    )


def _elements(thing: Json) -> list[Any]:
    """Return the elements of a set or map; none if packets may change them, or if there are none."""
    listed = thing.get("elem")
    flags = _words(thing.get("flags")) or ()
    return listed if isinstance(listed, list) and not {"dynamic", "timeout"} & set(flags) else []


def _objects(documents: Iterable[str]) -> Iterator[tuple[str, Json]]:
    """Yield each object with its kind: rule, chain, map and so on."""
    for document in documents:
        try:
            whole = json.loads(document)
        except ValueError as failed:
            raise _unreadable(str(failed)) from None
        items = whole.get("nftables") if isinstance(whole, dict) else None
        if not isinstance(items, list):
            raise _unreadable("it holds no list 'nftables'")
        for item in items:
            for kind, thing in item.items() if isinstance(item, dict) else [("item", item)]:
                if not isinstance(thing, dict):
                    raise _unreadable(f"{kind!r} is no object")
                yield kind, thing


def _unreadable(why: str) -> EnvironmentLacks:
    return EnvironmentLacks(f"its JSON could not be read: {why}")


def _text(kind: str, thing: Json, key: str) -> str:
    value = thing.get(key)
    if not isinstance(value, str):
        raise _unreadable(f"a {kind} has no {key}")
    return value


def _table(kind: str, thing: Json) -> tuple[str, str]:
    return _text(kind, thing, "family"), _text(kind, thing, "table")


def translation_in_words(text: str) -> Translation | None:
    """Return what the text of a rule says of the source's translation; None if nothing that is known."""
    rule = worded(text)
    return _translation(_statements(list(rule.statements)))[0] if rule and rule.understood else None


def _rules(thing: Json) -> Iterator[JsonRule]:
    """Yield a rule, then those in its anonymous chain that translate sources."""
    expressions = thing.get("expr")
    statements = []
    inside: list[WordedRule] = []
    clear = True
    for kind, said in _statements(expressions):
        rule = None if kind or not isinstance(said, str) else anonymous_chain(said)
        if rule:
            inside += rule.inside
            clear = clear and rule.understood
        else:
            statements.append((kind, said))
    look = _Look(expressions)
    strings = look.strings + _other_strings(thing)
    comment = thing.get("comment")
    translation, known = _translation(statements)
    targets = look.targets.union(*(_Look(list(rule.statements)).targets for rule in inside))
    outer = JsonRule(
        chain=(*_table("rule", thing), _text("rule", thing, "chain")),
        handle=_number(thing.get("handle")) or 0,
        comment=comment if isinstance(comment, str) else "",
        translation=translation,
        understood=clear
        and known
        and bool(statements or inside)
        and all(map(_known, statements))
        and not any(_LOST_VERDICT in word for word in look.strings),
        quotable=not _ENDS_QUOTE.search("".join(strings))
        and not any(word.startswith("@") and _STRANGE_SET.match(word) for word in look.strings)
        and all(map(NAME.fullmatch, [*targets, *_meters(statements)])),
        by_iptables=any(kind == "xt" and _may_translate(said) for kind, said in statements),
        iptables_target=next(
            (said["name"] for kind, said in statements if kind == "xt" and _is_named(said)), ""
        ),
        foreign_to_iptables=not all(_printed_by_iptables(statement, look.keys) for statement in statements)
        or any(_translation(_statements(list(rule.statements)))[0] for rule in inside),
        source_network=_network(statements, "saddr"),
        statements=(*statements, *(lead for rule in inside for lead in _leads(rule))),
        targets=frozenset(targets),
    )
    yield outer
    for rule in inside:
        # What the outer rule asks for, the inner one asks for too.
        of_both = [*_statements(list(rule.statements)), *statements]
        translation, _ = _translation(of_both)
        if translation:
            yield replace(
                outer,
                comment=rule.comment or outer.comment,
                translation=translation,
                by_iptables=False,
                source_network=_network(of_both, "saddr"),
                statements=tuple(of_both),
                inner_text=rule.text,
            )


def _other_strings(thing: Json) -> list[str]:
    """Return the strings of a rule that are not in its expressions: its chain and comment, say."""
    others = [value for key, value in thing.items() if key != "expr"]
    return [value for value in others if isinstance(value, str)] + [
        word for value in others if isinstance(value, list | dict) for word in _Look(value).strings
    ]


def _leads(rule: WordedRule) -> Iterator[tuple[str, Any]]:
    """Yield to where a rule in an anonymous chain leads; from there, packets may come back."""
    for kind, said in _statements(list(rule.statements)):
        if kind in _JUMPS:
            yield "jump", said
        elif kind == "vmap":
            yield kind, said


def _statements(expressions: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - JSON
    """Yield each statement's name and what it says; the name is "" if it has none.

    What nft cannot say in JSON it says in words, as a string.
    """
    for expression in expressions if isinstance(expressions, list) else [expressions]:
        if isinstance(expression, dict) and expression:
            yield from expression.items()
        else:
            yield "", expression


def _known(statement: tuple[str, Any]) -> bool:
    kind, said = statement
    if kind in _JUMPS:
        return isinstance(said, dict) and isinstance(said.get("target"), str)
    return kind in _STATEMENTS


def _printed_by_iptables(statement: tuple[str, Any], keys: set[str]) -> bool:
    """Whether iptables can print a statement of a rule, in all of whose statements are these keys."""
    kind, said = statement
    if kind == "log":
        return isinstance(said, dict) and "group" in said
    return kind in _PRINTED_BY_IPTABLES and (
        _NOT_PRINTED_BY_IPTABLES.isdisjoint(keys) or _NOT_PRINTED_BY_IPTABLES.isdisjoint(_Look(said).keys)
    )


def _is_named(target: Any) -> bool:  # noqa: ANN401
    return isinstance(target, dict) and target.get("name") in _XT_TARGETS


def _may_translate(target: Any) -> bool:  # noqa: ANN401
    """Whether it is a target of iptables that translates sources; nft before 1.0.6 does not name it."""
    name = target.get("name", "SNAT") if isinstance(target, dict) else "SNAT"
    return name in _XT_TARGETS


def _translation(statements: Iterable[tuple[str, Any]]) -> tuple[Translation | None, bool]:
    """Return what a rule says of the source's translation, and whether that is clear."""
    for kind, said in statements:
        if kind in _TRANSLATIONS:
            words = {} if said is None else said
            if not isinstance(words, dict):
                return Translation(), False
            flags, type_flags = _words(words.get("flags")), _words(words.get("type_flags"))
            address = words.get("addr", "")
            translation = Translation(
                to_address=address if isinstance(address, str) else json.dumps(address),
                flags=frozenset({"netmap"} if "prefix" in (type_flags or ()) else flags or ()),
                ports=_ports(words.get("port")),
            )
            return translation, None not in (flags, type_flags)
    return None, True


def _meters(statements: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield the names of meters, which old versions of nft print so."""
    for kind, said in statements:
        if kind == "meter" and isinstance(said, dict) and "name" in said:
            yield str(said["name"])


def _words(said: Any) -> list[str] | None:  # noqa: ANN401
    """Return flags: nft says a single one as a string, several as a list. None if it is neither."""
    words = [said] if isinstance(said, str) else said or []
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _ports(said: Any) -> tuple[int, int] | None:  # noqa: ANN401
    """Return the lowest and the highest port; None if that is not said, or depends on the packet."""
    ends = said.get("range") if isinstance(said, dict) else [said, said]
    if not isinstance(ends, list) or len(ends) != 2:
        return None
    low, high = map(_number, ends)
    return (low, high) if low is not None and high is not None and low <= high <= _LAST_PORT else None


def _number(said: Any) -> int | None:  # noqa: ANN401
    """Return a number, which some write as a string; None if it is none."""
    if isinstance(said, str) and _NUMBER.fullmatch(said):
        return int(said)
    return said if isinstance(said, int) and not isinstance(said, bool) and said >= 0 else None


def _matches(statements: Iterable[tuple[str, Any]]) -> Iterator[tuple[Any, Any]]:
    """Yield the left and the right side of what a rule asks to be equal."""
    for kind, said in statements:
        if kind == "match" and isinstance(said, dict) and said.get("op") == "==":
            yield said.get("left"), said.get("right")


def _network(statements: Iterable[tuple[str, Any]], field: str) -> str:
    """Return the address or network that a rule asks for; "" if it asks for none, or for several."""
    for left, right in _matches(statements):
        payload = left.get("payload") if isinstance(left, dict) else None
        if isinstance(payload, dict) and payload.get("field") == field:
            if isinstance(right, str):
                return right
            prefix = right.get("prefix") if isinstance(right, dict) else None
            if isinstance(prefix, dict) and isinstance(prefix.get("addr"), str):
                return f"{prefix['addr']}/{prefix.get('len')}"
    return ""


class _Look:
    """What an object holds, however deep: strings, keys, and the chains that it jumps or goes to."""

    def __init__(self, thing: Any) -> None:  # noqa: ANN401
        self.strings: list[str] = []
        self.keys: set[str] = set()
        self.targets: set[str] = set()
        waiting = [thing]
        while waiting:
            part = waiting.pop()
            if isinstance(part, str):
                self.strings.append(part)
            elif isinstance(part, list):
                waiting += part
            elif isinstance(part, dict):
                self.keys.update(part)
                for kind in _JUMPS:
                    if kind in part:
                        self.targets.add(_target(part[kind]))
                waiting += part.values()
        self.targets.discard("")


def _target(said: Any) -> str:  # noqa: ANN401
    """Return the chain that a jump names; "" if it names none."""
    target = said.get("target") if isinstance(said, dict) else None
    return target if isinstance(target, str) else ""
