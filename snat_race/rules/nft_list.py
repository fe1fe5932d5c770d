"""What nft prints: its chains, the SNAT rules in them, and how nft rewrites them. Pure.

The text of ``nft -a list ruleset`` says how rules are written, and the number (handle) of each. The
JSON of the same says what they mean; it is only read to find the SNAT rules.

nft addresses a rule by its handle, so no other rule can be hit by mistake. Three faults of nft 1.0.6
decide how a rule is replaced here: ``replace rule`` aborts if the rule holds a set with networks;
``--echo``, which would tell the new handle, may abort too; and the JSON of a table's flags is some
other string of its memory. So a new rule is inserted at the old one's handle, the old one is deleted,
and the new handle is found by reading back: the kernel counts a table's handles upwards, in the order
of the commands (nf_tables_alloc_handle() in net/netfilter/nf_tables_api.c).
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

from snat_race.results.findings import ChainAddress, ToolName, Unchangeable
from snat_race.rules.exposure import RANDOM, SnatRule
from snat_race.rules.ruleset import (
    ChainKey,
    Edit,
    LockNeed,
    RuleLine,
    Ruleset,
    edits_by_chain,
    positions,
    reached,
)

_TABLE = re.compile(r"^table (\S+) (\S+) \{")
_CHAIN = re.compile(r"^\tchain (\S+) \{")
_RULE = re.compile(r"^\t\t(.+) # handle (\d+)$")
# What counts, and its count. What is quoted, a comment say, is left alone.
_COUNTED = re.compile(
    r'"[^"]*"|\b(counter)( packets \d+ bytes \d+)|\b(quota (?:over |until )?\d+ \w+)( used \d+ \w+)?'
    r"|\b(last)( used \S+)"
)
_SET_OF_ONE = re.compile(r'"[^"]*"|\{ ([^\s{}",]+) \}')
_COMMENT = re.compile(r' comment "[^"]*"$')
_HANDLE = re.compile(r" # handle \d+$")
_FLAGS = re.compile(r"^\tflags (\S+)$")
_HOOKS = ("postrouting", "input")  # where the kernel calls source translation
_PROTOCOL = ({"meta": {"key": "l4proto"}}, {"payload": {"protocol": "ip", "field": "protocol"}})
_JUMPS = ("jump", "goto")

Json = dict[str, Any]


class NftList(Ruleset):
    """What ``nft -a list ruleset`` prints, and ``nft -j list ruleset``, if the SNAT rules are wanted."""

    def __init__(self, tool: ToolName, text: str, as_json: str = '{"nftables": []}') -> None:
        super().__init__(tool, text, _parsed(text))
        self._objects: list[Json] = json.loads(as_json)["nftables"]

    @staticmethod
    def print_command(tool: ToolName) -> list[str]:
        """Print handles too: a rule is rewritten by its handle."""
        return [tool, "-a", "list", "ruleset"]

    @staticmethod
    def load_command(tool: ToolName, *, trial: bool, wait_s: int) -> list[str]:  # noqa: ARG004 - no lock
        """Load a script, which nft does in one transaction."""
        check = ["--check"] if trial else []
        return [tool, *check, "-f", "-"]

    @staticmethod
    def lock_need(tool: ToolName) -> LockNeed:  # noqa: ARG004 - of iptables
        """Nft knows no lock."""
        return LockNeed.unknown_to_it

    @property
    def title(self) -> str:
        """The command that people print these rules with."""
        return f"{self.tool} list ruleset"

    @cached_property
    def snat_rules(self) -> tuple[SnatRule, ...]:
        """The rules that translate sources, in order, not judged yet.

        Those that iptables has written are not nft's to read: see :attr:`written_by_iptables`.
        """
        reachable = _reachable(self._objects)
        table_flags = _table_flags(self.text)
        rules = []
        for rule, translation in self._translating:
            chain = ChainAddress(
                tool=self.tool, family=rule["family"], table=rule["table"], chain=rule["chain"]
            )
            index = self._index(chain, rule["handle"])
            if index is None:
                continue
            flags = table_flags.get(chain.key[:2], set())
            reached = chain.key in reachable and "dormant" not in flags
            text = self.rules_of(chain)[index].text
            described = _snat_rule(chain, index, text, rule, translation, reachable=reached)
            owned = Unchangeable.table_has_owner if "owner" in flags else None
            rules.append(replace(described, unchangeable=owned))
        return tuple(rules)

    @property
    def broken(self) -> list[str]:
        """Where SNAT rules are that are not in the text, or not in one line of it."""
        return [
            f"chain {rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}"
            for rule, _ in self._translating
            if rule["handle"] not in self._handles.get(_chain_of(rule), {})
        ]

    @property
    def written_by_iptables(self) -> set[ChainKey]:
        """The chains in which iptables' own targets translate sources, or may: nft before 1.0.6 does
        not name them.
        """
        return {
            _chain_of(rule)
            for rule in _rules(self._objects)
            if rule["table"] == "nat"
            for expression in rule["expr"]
            if "xt" in expression and (expression["xt"] or {}).get("name", "SNAT") in ("MASQUERADE", "SNAT")
        }

    @cached_property
    def _translating(self) -> list[tuple[Json, Json]]:
        """The rules that masquerade or do SNAT, each with what it says of that."""
        return [
            (rule, translation)
            for rule in _rules(self._objects)
            if (translation := _translation(rule)) is not None
        ]

    @cached_property
    def _handles(self) -> dict[ChainKey, dict[int, int]]:
        """The index of each rule, by chain and handle."""
        return {
            key: {line.handle: index for index, line in enumerate(lines)}
            for key, lines in self._chains.items()
        }

    def _index(self, chain: ChainAddress, handle: int) -> int | None:
        return self._handles.get(chain.key, {}).get(handle)

    @staticmethod
    def cured(rule: str) -> str:
        """Return a SNAT rule with ``fully-random``, in the order in which nft lists flags.

        The statement that translates ends a rule; only a comment may follow.
        """
        shape = _COMMENT.search(rule)
        comment = shape[0] if shape else ""
        body = rule.removesuffix(comment)
        head, _, last = body.rpartition(" ")
        flags = set(last.split(","))
        if not flags <= {*RANDOM, "persistent"}:
            return f"{body} fully-random{comment}"
        persistent = ",persistent" if "persistent" in flags else ""
        return f"{head} fully-random{persistent}{comment}"

    @staticmethod
    def without_marks(line: str) -> str:
        """Return a line without the handle behind it."""
        return _HANDLE.sub("", line)

    @staticmethod
    def uncounted(rule: str) -> str:
        """Return a rule without what its counters have counted, as nft prints it when loaded again."""
        bare = _COUNTED.sub(lambda shape: "".join(filter(None, shape.groups()[::2])) or shape[0], rule)
        # A set of one is printed as a set until it is loaded again; then as its only element.
        return _SET_OF_ONE.sub(lambda shape: shape[1] or shape[0], bare)

    @staticmethod
    def with_counts_of(rule: str, present: str) -> str:
        """Return a rule with the counts inside ``present``, if both count the same things."""
        now = _counters(present)
        if [NftList.uncounted(counter) for counter in now] != [
            NftList.uncounted(counter) for counter in _counters(rule)
        ]:
            return rule
        counts = iter(now)
        return _COUNTED.sub(lambda shape: shape[0] if _quoted(shape[0]) else next(counts), rule)

    def script(self, edits: Sequence[Edit]) -> str:
        """Insert each new rule before the old one, then delete that: both by the old one's handle.

        The kernel refuses the whole transaction if one of these rules is not there any more.
        """
        commands = []
        for edit in edits:
            chain = " ".join(edit.chain.key)
            handle = self.rules_of(edit.chain)[edit.index].handle
            commands.append(f"insert rule {chain} position {handle} {edit.new}\n")
            commands.append(f"delete rule {chain} handle {handle}\n")
        return "".join(commands)

    def settled(self, edits: Sequence[Edit], after: Self) -> list[Edit] | None:
        """Return the edits with the rules that are new, known by their handles.

        Not by their text: nft may list a rule in other words than it was told, a set of networks
        merged, say. If there are more new rules than edits, some are of others, and none can be told
        from ours.
        """
        settled = []
        for chain, edits_here in edits_by_chain(edits).items():
            before = [line.handle for line in self.rules_of(chain)]
            lines = after.rules_of(chain)
            now = [line.handle for line in lines]
            new = sorted(set(now) - set(before))
            if len(new) != len(edits_here):
                return None
            new_handles = dict(zip(edits_here, new, strict=True))
            meant = [new_handles.get(index, handle) for index, handle in enumerate(before)]
            indexes = positions(meant, now)
            if indexes is None:
                return None
            for index, edit in edits_here.items():
                line = lines[indexes[index]]
                settled.append(replace(edit, index=indexes[index], new=line.uncounted))
        return settled

    def unmade(self, edits: Sequence[Edit], after: Self) -> str:  # noqa: ARG002 - iptables needs them
        """Return nothing: each rule went where its handle is, so none is in a wrong place."""
        return ""


def _parsed(text: str) -> dict[ChainKey, list[RuleLine]]:
    """Return every rule of ``nft -a list ruleset``, by chain, in order."""
    chains: dict[ChainKey, list[RuleLine]] = {}
    family = table = chain = ""
    for number, line in enumerate(text.split("\n")):
        if shape := _TABLE.match(line):
            family, table = shape[1], shape[2]
        elif shape := _CHAIN.match(line):
            chain = shape[1]
            chains[family, table, chain] = []
        elif line == "\t}":
            chain = ""
        elif chain and (shape := _RULE.match(line)):
            rule = shape[1]
            chains[family, table, chain].append(
                RuleLine(number=number, text=rule, uncounted=NftList.uncounted(rule), handle=int(shape[2]))
            )
    return chains


def _table_flags(text: str) -> dict[tuple[str, str], set[str]]:
    """Return the flags of each table, by family and name: ``dormant``, ``owner``."""
    flags: dict[tuple[str, str], set[str]] = {}
    table = ("", "")
    for line in text.split("\n"):
        if shape := _TABLE.match(line):
            table = shape[1], shape[2]
        elif shape := _FLAGS.match(line):
            flags[table] = set(shape[1].split(","))
    return flags


def _counters(rule: str) -> list[str]:
    """Return what counts in a rule, with its counts."""
    return [shape[0] for shape in _COUNTED.finditer(rule) if not _quoted(shape[0])]


def _quoted(words: str) -> bool:
    return words.startswith('"')


def _rules(objects: list[Json]) -> Iterator[Json]:
    return (item["rule"] for item in objects if "rule" in item)


def _chain_of(rule: Json) -> ChainKey:
    return rule["family"], rule["table"], rule["chain"]


def _translation(rule: Json) -> Json | None:
    """Return what a rule says of the source's translation; None if it translates none."""
    for expression in rule["expr"]:
        for kind in ("masquerade", "snat"):
            if kind in expression:
                return expression[kind] or {}
    return None


def _snat_rule(
    chain: ChainAddress, index: int, text: str, rule: Json, translation: Json, *, reachable: bool
) -> SnatRule:
    flags = translation.get("flags", [])
    if "prefix" in translation.get("type_flags", ()):
        flags = "netmap"
    port = translation.get("port")
    low, high = port["range"] if isinstance(port, dict) and "range" in port else (port, port)
    address = translation.get("addr", "")
    return SnatRule(
        chain=chain,
        index=index,
        text=text,
        to_address=address if isinstance(address, str) else json.dumps(address),
        flags=frozenset([flags] if isinstance(flags, str) else flags),
        ports=(low, high) if isinstance(low, int) and isinstance(high, int) else None,
        protocol=_protocol(rule),
        source_network=_network(rule, "saddr"),
        destination_network=_network(rule, "daddr"),
        comment=rule.get("comment", ""),
        reachable=reachable,
    )


def _matches(rule: Json) -> Iterator[tuple[Any, Any]]:
    """Yield the left and the right side of what a rule asks to be equal."""
    for expression in rule["expr"]:
        match = expression.get("match", {})
        if match.get("op") == "==":
            yield match["left"], match["right"]


def _protocol(rule: Json) -> str:
    return next((str(right) for left, right in _matches(rule) if left in _PROTOCOL), "")


def _network(rule: Json, field: str) -> str:
    """Return the address or network that a rule asks for; "" if it asks for none, or for several."""
    for left, right in _matches(rule):
        if isinstance(left, dict) and left.get("payload", {}).get("field") == field:
            if isinstance(right, str):
                return right
            if isinstance(right, dict) and "prefix" in right:
                return f"{right['prefix']['addr']}/{right['prefix']['len']}"
    return ""


def _reachable(objects: list[Json]) -> set[ChainKey]:
    """Return the chains that a packet can come to; what a map leads to counts as led to."""
    roots: list[ChainKey] = []
    leads: dict[ChainKey, set[ChainKey]] = {}
    for item in objects:
        for kind, thing in item.items():
            table = (thing.get("family", ""), thing.get("table", ""))
            if kind == "chain" and thing.get("type") == "nat" and thing.get("hook") in _HOOKS:
                roots.append((*table, thing["name"]))
            elif kind == "map":
                roots += [(*table, name) for name in _targets(thing)]
            elif kind == "rule":
                targets = {(*table, name) for name in _targets(thing)}
                leads.setdefault((*table, thing["chain"]), set()).update(targets)
    return reached(roots, lambda chain: leads.get(chain, ()))


def _targets(thing: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield the chains that an object jumps or goes to, however deep that is said."""
    if isinstance(thing, dict):
        for key, value in thing.items():
            if key in _JUMPS and isinstance(value, dict) and "target" in value:
                yield value["target"]
            else:
                yield from _targets(value)
    elif isinstance(thing, list):
        for item in thing:
            yield from _targets(item)
