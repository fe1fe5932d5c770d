"""The rules of a host as one tool prints them: parsed once, and rewritten in that tool's own way.

There are two ways: ``iptables_save.IptablesSave`` and ``nft_list.NftList``. What a tool prints, loads,
counts and locks is decided there, and nowhere else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self, TypeVar

from snat_race.kernel.nftables import KernelRule, RuleChange
from snat_race.results.findings import ChainAddress, ToolName
from snat_race.rules.exposure import RANDOM, SnatRule

ChainKey = tuple[str, str, str]
"""Family, table and name of a chain."""
KernelRules = Mapping[ChainKey, Sequence[KernelRule]]
"""The rules of whole tables, as the kernel holds them."""
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLine:
    """One rule of a chain, in the line that its tool prints for it."""

    number: int  # of the line in the whole text, counted from 0
    text: str  # the rule, without its handle and without the counts in front of it
    uncounted: str  # the text without what its counters have counted, so it stays the same
    counts: str = ""  # in front of the rule, with a blank, as iptables-restore takes them; nft has none
    handle: int = 0  # nft's number for the rule; iptables has none


class Kind(Enum):
    """What is to be done about a rule."""

    replace = auto()  # the new rule comes in its place
    add = auto()  # the new rule comes in front of it
    remove = auto()  # nothing comes in its place


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One rule is to be replaced by another, to get one in front of it, or to be removed."""

    chain: ChainAddress
    index: int  # of the rule in its chain, counted from 0
    old: str  # the rule as its tool prints it
    new: str  # the new rule; "" if there is none
    kind: Kind = Kind.replace

    @property
    def then(self) -> tuple[str, ...]:
        """What shall be there in its place."""
        return {Kind.replace: (self.new,), Kind.add: (self.new, self.old), Kind.remove: ()}[self.kind]


class Way(Enum):
    """How the rules of a tool are replaced, so that no rule of another program is hit by mistake."""

    # Legacy iptables-restore replaces rules by their numbers. It writes whole tables back
    # (IPT_SO_SET_REPLACE), under the lock of all xtables: while we hold that, numbers stay true.
    by_number = auto()
    # iptables-nft heeds no lock (xtables-nft(8)), and knows no handles: see ``kernel/nftables.py``.
    by_netlink = auto()
    # The same, unless a rule holds a set of its own, because the kernel lets no second rule have that. Then
    # nft replaces all, by their handles, which no other rule gets.
    by_netlink_or_handle = auto()


class Ruleset(ABC):
    """What one tool has printed, with its chains; never changed, so that it can be compared with a
    later one.
    """

    def __init__(self, tool: ToolName, text: str, chains: dict[ChainKey, list[RuleLine]]) -> None:
        self.tool = tool
        self.text = text  # with counters; for nft, with handles
        self._chains = chains

    def rules_of(self, chain: ChainAddress) -> list[RuleLine]:
        """Return the rules of a chain, in order; none if there is no such chain."""
        return self._chains.get(chain.key, [])

    @property
    def texts(self) -> dict[ChainKey, list[str]]:
        """All rules by chain, without counts and handles."""
        return {key: [line.uncounted for line in lines] for key, lines in self._chains.items()}

    @property
    def chains(self) -> Mapping[ChainKey, Sequence[RuleLine]]:
        """All chains, also those without rules, each with its rules in order."""
        return self._chains

    @property
    @abstractmethod
    def commands(self) -> list[list[str]]:
        """What prints these rules, with all that it takes to rewrite them, one after the other."""

    @abstractmethod
    def printed_again(self, text: str) -> Self:
        """Return what the same tool has printed later, of the same chains."""

    @staticmethod
    @abstractmethod
    def load_command(tool: ToolName, *, trial: bool, wait_s: int) -> list[str]:
        """Return what loads a script from its standard input in one transaction, or only tries to.

        ``wait_s``: how long it is to wait for the lock of xtables, if it takes that.
        """

    @property
    @abstractmethod
    def way(self) -> Way:
        """How these rules are replaced."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The command that people print these rules with."""

    @property
    @abstractmethod
    def snat_rules(self) -> tuple[SnatRule, ...]:
        """The rules that translate sources, in order, not judged yet."""

    @property
    @abstractmethod
    def broken(self) -> list[str]:
        """What is not one rule in one line; if there is any, no line is certain, and none is rewritten."""

    @staticmethod
    @abstractmethod
    def flags_of(rule: str) -> frozenset[str]:
        """Return the flags of a SNAT rule's translation: random, fully-random, persistent."""

    @staticmethod
    @abstractmethod
    def with_flags(rule: str, flags: frozenset[str]) -> str:
        """Return a SNAT rule with these flags in place of its own, where the tool prints them."""

    @classmethod
    def cured(cls, rule: str) -> str:
        """Return a SNAT rule with the flag that makes it draw ports."""
        return cls.with_flags(rule, cls.flags_of(rule) - RANDOM | {"fully-random"})

    @classmethod
    @abstractmethod
    def for_tcp(cls, rule: str) -> str | None:
        """Return a SNAT rule that draws ports, for TCP only; None if its form does not allow that."""

    @abstractmethod
    def repeatable(self, rule: SnatRule) -> bool:
        """Whether the same rule in front of one of these would take the same packets, and change nothing
        else; what is not known to be so is not.
        """

    @staticmethod
    @abstractmethod
    def without_marks(line: str) -> str:
        """Return a line as people see it, who list rules without handles and without counts in front."""

    @staticmethod
    @abstractmethod
    def uncounted(rule: str) -> str:
        """Return a rule without what its counters have counted."""

    @classmethod
    def comparable(cls, rule: str) -> str:
        """Return a rule in the words that all its wordings have in common, to compare it with another."""
        return cls.uncounted(rule)

    @abstractmethod
    def script(self, edits: Sequence[Edit]) -> str:
        """Return what the tool is to load to make all edits, or none: in one transaction."""

    def trial(self, edits: Sequence[Edit]) -> str:
        """Return what the tool is to try before that; it refuses it if there are fewer rules than lines."""
        return self.script(edits)

    @abstractmethod
    def rule_changes(self, edits: Sequence[Edit], present: KernelRules) -> list[RuleChange]:
        """Return the edits as netlink wants them; ``present`` has the rules that the kernel holds.

        Raises:
            EnvironmentLacks: it holds others than the tool has printed.

        """

    @abstractmethod
    def strays(self, edits: Sequence[Edit], after: Self) -> list[Edit]:
        """Return what removes the rules that these edits have added, though they read in other words in
        ``after``; none where that is not certain.
        """

    @abstractmethod
    def settled(self, edits: Sequence[Edit], after: Self) -> list[Edit] | None:
        """Return the edits as ``after``, read when they were made, has them: in the tool's words, at
        the indexes where they are now. None if a new rule is not where the old one was.
        """


def shifted(edits: Iterable[Edit]) -> list[int]:
    """Return where the new rule of each edit is in its chain when all are made, if it has one."""
    listed = list(edits)
    added: dict[ChainAddress, list[Edit]] = {}
    for edit in sorted(listed, key=lambda edit: edit.index):
        added.setdefault(edit.chain, []).append(edit)
    indexes = {}
    for chain, edits_here in added.items():
        moved = 0
        for edit in edits_here:
            indexes[chain, edit.index] = edit.index + moved
            moved += len(edit.then) - 1
    return [indexes[edit.chain, edit.index] for edit in listed]


def edits_by_chain(edits: Iterable[Edit]) -> dict[ChainAddress, dict[int, Edit]]:
    """Return edits by chain, and in a chain by index, both in the order in which they come."""
    by_chain: dict[ChainAddress, dict[int, Edit]] = {}
    for edit in edits:
        by_chain.setdefault(edit.chain, {})[edit.index] = edit
    return by_chain


def reached(roots: Iterable[Name], leads: Callable[[Name], Iterable[Name]]) -> set[Name]:
    """Return the chains that a packet can come to from ``roots``; ``leads`` says where a chain leads."""
    seen: set[Name] = set()
    waiting = list(roots)
    while waiting:
        chain = waiting.pop()
        if chain not in seen:
            seen.add(chain)
            waiting += leads(chain)
    return seen


def positions(wanted: Sequence[object], present: Sequence[object]) -> list[int] | None:
    """Return where each of ``wanted`` is in ``present``, in order; others may be in between.

    None if one is missing, or not in order.
    """
    indexes = []
    start = 0
    for item in wanted:
        try:
            index = present.index(item, start)
        except ValueError:
            return None
        indexes.append(index)
        start = index + 1
    return indexes
