"""What nft prints: its chains, the SNAT rules in them, and how nft rewrites them. Pure.

The text of ``nft -a list ruleset`` says how rules are written, and the number (handle) of each: see
``nft_text``. The JSON of the same says what they mean; it is only read to find the SNAT rules: see
``nft_json``.

nft addresses a rule by its handle, so no other rule can be hit by mistake. Three faults of nft 1.0.6
decide what is done here. ``replace rule`` aborts if the rule holds a set with networks, and ``--echo``,
which would tell the new handle, may abort too. So a new rule is inserted at the old one's handle, the old
one is deleted, and the new handle is found by reading back: the kernel counts a table's handles upwards,
in the order of the commands (nf_tables_alloc_handle() in net/netfilter/nf_tables_api.c). And flags in JSON
are not to be believed: see ``nft_commands``.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Self

from snat_race.errors import EnvironmentLacks
from snat_race.kernel.nftables import AdditionForTcp, Removal, Replacement, RuleChange
from snat_race.results.findings import ChainAddress, ToolName, Unchangeable
from snat_race.rules import nft_commands, nft_text
from snat_race.rules.exposure import SnatRule
from snat_race.rules.exposure import Translation as Given
from snat_race.rules.iptables_matches import translations
from snat_race.rules.merged_sets import merged
from snat_race.rules.nft_handles import new_rules
from snat_race.rules.nft_json import JsonRule, Translation, listing, translation_in_words
from snat_race.rules.nft_matches import given_by
from snat_race.rules.nft_repeatable import repeatable
from snat_race.rules.ruleset import (
    ChainKey,
    Edit,
    KernelRules,
    Kind,
    Ruleset,
    Way,
    edits_by_chain,
)

_ANY_SET = re.compile(r'"[^"]*"|\{ ([^{}"]+) \}')
_COMMENT = re.compile(r' comment "[^"]*"$')
_FLAG_WORDS = ("random", "fully-random", "persistent")
_ABOUT_SNAT = re.compile(r"\b(masquerade|snat)\b")


class NftList(Ruleset):
    """What ``nft -a list ruleset`` prints, and ``nft -j list ruleset``, if the SNAT rules are wanted."""

    def __init__(
        self, tool: ToolName, text: str, *documents: str, only: Collection[ChainKey] | None = None
    ) -> None:
        """Parse the text, and the JSON, in one document or in several.

        ``only``: the chains that were asked for; None is all.

        Raises:
            EnvironmentLacks: the JSON is not nft's.

        """
        chains = nft_text.chains(text)
        if only is not None:
            chains = {key: lines for key, lines in chains.items() if key in only}
        super().__init__(tool, text, chains)
        self._only = only
        self._has_json = bool(documents)
        self._listing = listing(documents)

    @property
    def is_part(self) -> bool:
        """Whether only some chains were asked for."""
        return self._only is not None

    @property
    def commands(self) -> list[list[str]]:
        """What prints these rules."""
        return nft_commands.of_text(self.tool, self._only)

    def printed_again(self, text: str) -> Self:
        """Return what the same tool has printed later, of the same chains: without JSON."""
        return type(self)(self.tool, text, only=self._only)

    @staticmethod
    def load_command(tool: ToolName, *, trial: bool, wait_s: int) -> list[str]:  # noqa: ARG004 - no lock
        """Load a script, which nft does in one transaction."""
        check = ["--check"] if trial else []
        return [tool, *check, "-f", "-"]

    @property
    def way(self) -> Way:
        """By netlink, where the kernel lets a rule be replaced so."""
        return Way.by_netlink_or_handle

    @property
    def title(self) -> str:
        """The command that people print these rules with."""
        return "; ".join(" ".join([tool, *what]) for tool, _, *what in self.commands)

    @cached_property
    def snat_rules(self) -> tuple[SnatRule, ...]:
        """The rules that translate sources, in order, not judged yet.

        Those that iptables has written are among them where nft says in words what they do; only iptables
        can print them whole: see :attr:`written_by_iptables`.
        """
        table_flags = nft_text.table_flags(self.text)
        chains = {
            key: ChainAddress(tool=self.tool, family=key[0], table=key[1], chain=key[2])
            for key in self._chains
        }
        rules = []
        for rule, (given, asks_for_tcp) in zip(self._listing.rules, given_by(self._listing), strict=True):
            translation = self._translation_of(rule)
            index = self._handles.get(rule.chain, {}).get(rule.handle)
            if index is None or translation is None:
                continue
            chain = chains[rule.chain]
            flags = table_flags.get(rule.chain[:2], set())
            snat_rule = SnatRule(
                chain=chain,
                index=index,
                text=rule.inner_text or self._chains[rule.chain][index].text,
                to_address=translation.to_address,
                flags=translation.flags,
                ports=translation.ports,
                source_network=rule.source_network,
                translations=given if rule.translation else _in_words(translation, given),
                asks_for_tcp=asks_for_tcp,
                comment=rule.comment,
                reachable=rule.chain in self._listing.reachable and "dormant" not in flags,
                unchangeable=_unchangeable(rule, flags),
            )
            rules.append(snat_rule)
        return tuple(rules)

    @property
    def broken(self) -> list[str]:
        """What text and JSON, if that was given, do not say alike, and what is not in one line of the text:
        where it is.
        """
        of_json: dict[ChainKey, list[int]] = {}
        for rule in self._listing.rules:
            if not rule.inner_text:
                of_json.setdefault(rule.chain, []).append(rule.handle)
        of_text = {key: [line.handle for line in lines] for key, lines in self._chains.items()}
        about_snat = {rule.chain for rule in self._listing.rules if rule.translation} | {
            key for key, lines in self._chains.items() for line in lines if _ABOUT_SNAT.search(line.text)
        }
        unlike = [
            f"chain {' '.join(key)}"
            for key in sorted(about_snat)
            if self._has_json and of_text.get(key, []) != of_json.get(key, [])
        ]
        # No rule, but the first part of one.
        torn = [
            line.strip()
            for line in self.text.split("\n")
            if line.count('"') % 2 and nft_text.without_handle(line) == line
        ]
        return unlike + torn

    @property
    def not_understood(self) -> list[str]:
        """The rules where sources are translated that say what is not known here."""
        return [
            f"chain {' '.join(rule.chain)} handle {rule.handle}"
            for rule in self._listing.rules
            if not rule.understood and rule.chain in self._listing.reachable
        ]

    @property
    def written_by_iptables(self) -> set[ChainKey]:
        """The chains in which iptables' own targets translate sources, or may."""
        return {rule.chain for rule in self._listing.rules if rule.by_iptables and rule.chain[1] == "nat"}

    def foreign_to_iptables(self, family: str, table: str) -> list[str]:
        """Return the rules for which iptables does not print a table that it has written to."""
        return [
            f"chain {' '.join(rule.chain)} handle {rule.handle} '{text}'"
            for rule in self._listing.rules
            if rule.chain[:2] == (family, table) and rule.foreign_to_iptables and not rule.inner_text
            if (text := self._text_of(rule))
        ]

    def _translation_of(self, rule: JsonRule) -> Translation | None:
        """Return what a rule says of the translation, in JSON or else in words; None if nothing."""
        if rule.translation or not rule.iptables_target:
            return rule.translation
        return translation_in_words(self._text_of(rule))

    def _text_of(self, rule: JsonRule) -> str:
        """Return a rule as the text has it; "" if it has not."""
        index = self._handles.get(rule.chain, {}).get(rule.handle)
        return "" if index is None else self._chains[rule.chain][index].text

    @cached_property
    def _handles(self) -> dict[ChainKey, dict[int, int]]:
        """The index of each rule, by chain and handle."""
        return {
            key: {line.handle: index for index, line in enumerate(lines)}
            for key, lines in self._chains.items()
        }

    @staticmethod
    def flags_of(rule: str) -> frozenset[str]:
        """Return the flags that a SNAT rule ends with."""
        return frozenset(_parted(rule)[1])

    @staticmethod
    def with_flags(rule: str, flags: frozenset[str]) -> str:
        """Return a SNAT rule that ends with these flags, in the order in which nft lists them."""
        body, _, comment = _parted(rule)
        words = ",".join(flag for flag in _FLAG_WORDS if flag in flags)
        return f"{body} {words}{comment}" if words else f"{body}{comment}"

    @classmethod
    def for_tcp(cls, rule: str) -> str:
        """Return the rule, asking for TCP first; its counters begin at 0."""
        return f"meta l4proto tcp {cls.cured(cls.uncounted(rule))}"

    def repeatable(self, rule: SnatRule) -> bool:
        """Whether the same rule in front of it would take the same packets, and change nothing else."""
        key = rule.chain.key
        said = self._said.get((key, self._chains[key][rule.index].handle))
        elements = self._listing.elements.get(key[:2], {})
        return said is not None and not said.inner_text and repeatable(said.statements, elements)

    def strays(self, edits: Sequence[Edit], after: Self) -> list[Edit]:
        """Return what removes the rules that were added, whatever their words: they are new, and stand in
        front of the rules that they were made for.
        """
        strays = []
        for chain, edits_here in edits_by_chain(edits).items():
            before, lines = self.rules_of(chain), after.rules_of(chain)
            known = {line.handle for line in before}
            at = {line.handle: index for index, line in enumerate(lines)}
            for index, edit in edits_here.items():
                behind = at.get(before[index].handle, 0)
                if edit.kind is Kind.add and behind and lines[behind - 1].handle not in known:
                    strays.append(
                        Edit(
                            chain=chain,
                            index=behind - 1,
                            old=lines[behind - 1].text,
                            new="",
                            kind=Kind.remove,
                        )
                    )
        return strays

    @cached_property
    def _said(self) -> dict[tuple[ChainKey, int], JsonRule]:
        """What the JSON says of each rule, by its chain and handle."""
        return {(rule.chain, rule.handle): rule for rule in self._listing.rules}

    @staticmethod
    def without_marks(line: str) -> str:
        """Return a line without the handle behind it."""
        return nft_text.without_handle(line)

    @staticmethod
    def uncounted(rule: str) -> str:
        """Return a rule without what its counters have counted, as nft prints it when loaded again."""
        return nft_text.uncounted(rule)

    @classmethod
    def comparable(cls, rule: str) -> str:
        """Return a rule without counts, and with sets of addresses or ports as the kernel merges them."""
        return _ANY_SET.sub(lambda shape: merged(shape[1]) if shape[1] else shape[0], cls.uncounted(rule))

    def script(self, edits: Sequence[Edit]) -> str:
        """Insert each new rule before the old one, then delete that: both by the old one's handle.

        The kernel refuses the whole transaction if one of these rules is not there any more.
        """
        commands = []
        for edit in edits:
            chain = " ".join(edit.chain.key)
            handle = self.rules_of(edit.chain)[edit.index].handle
            if edit.kind is not Kind.remove:
                commands.append(f"insert rule {chain} position {handle} {edit.new}\n")
            if edit.kind is not Kind.add:
                commands.append(f"delete rule {chain} handle {handle}\n")
        return "".join(commands)

    def rule_changes(self, edits: Sequence[Edit], present: KernelRules) -> list[RuleChange]:
        """Return the edits as netlink wants them: the rules are known by their handles."""
        by_handle = {
            (chain, rule.handle): rule
            for chain in {edit.chain.key for edit in edits}
            for rule in present.get(chain, ())
        }
        changes: list[RuleChange] = []
        for edit in edits:
            handle = self.rules_of(edit.chain)[edit.index].handle
            rule = by_handle.get((edit.chain.key, handle))
            if rule is None:
                raise EnvironmentLacks(f"{edit.chain}: the kernel has no rule with handle {handle}")
            if edit.kind is Kind.remove:
                changes.append(Removal(rule=rule))
            else:
                make = AdditionForTcp if edit.kind is Kind.add else Replacement
                changes.append(make(rule=rule, flags=self.flags_of(edit.new)))
        return changes

    def settled(self, edits: Sequence[Edit], after: Self) -> list[Edit] | None:
        """Return the edits with the rules that are new between those where the old ones were.

        nft may list a rule in other words than it was given, a set of networks merged, say. Then the old
        rule is put in such words too, so that both differ in their flags only.
        """
        settled = []
        for chain, edits_here in edits_by_chain(edits).items():
            lines = after.rules_of(chain)
            pairs = new_rules(self.rules_of(chain), edits_here, lines, self.comparable)
            if pairs is None:
                return None
            for edit, index in pairs:
                new = lines[index].uncounted
                if self.comparable(edit.new) != self.comparable(new):
                    return None
                same_words = new == self.uncounted(edit.new) or edit.kind is Kind.add
                old = edit.old if same_words else self.with_flags(new, self.flags_of(edit.old))
                settled.append(replace(edit, index=index, old=old, new=new))
        return settled


def _in_words(said: Translation, given: Iterable[Given]) -> tuple[Given, ...]:
    """Return what a rule gives to its packets that says so in words only, as those of iptables."""
    return translations(said.to_address, said.ports, tuple((one.traffic, 0) for one in given))


def _unchangeable(rule: JsonRule, table_flags: set[str]) -> Unchangeable | None:
    """Return why a rule cannot be changed. Its text may be loaded, so it must be one rule to nft too: a
    comment with a quote may go on with commands.
    """
    if rule.inner_text:
        return Unchangeable.in_anonymous_chain
    if rule.by_iptables:
        return Unchangeable.iptables_does_not_print
    if "owner" in table_flags:
        return Unchangeable.table_has_owner
    if not rule.quotable or not all(map(nft_commands.NAME.fullmatch, rule.chain)):
        return Unchangeable.text_is_ambiguous
    return None


def _parted(rule: str) -> tuple[str, list[str], str]:
    """Return a SNAT rule without its flags, these, and its comment.

    The statement that translates ends a rule; only a comment may follow.
    """
    shape = _COMMENT.search(rule)
    comment = shape[0] if shape else ""
    body = rule.removesuffix(comment)
    head, _, last = body.rpartition(" ")
    flags = last.split(",")
    return (head, flags, comment) if set(flags) <= set(_FLAG_WORDS) else (body, [], comment)
