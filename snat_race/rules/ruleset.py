"""The rules of a host as one tool prints them: parsed once, and rewritten in that tool's own way.

There are two ways: ``iptables_save.IptablesSave`` and ``nft_list.NftList``. What a tool prints, loads,
counts and locks is decided there, and nowhere else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self, TypeVar

from snat_race.results.findings import ChainAddress, ToolName
from snat_race.rules.exposure import SnatRule

ChainKey = tuple[str, str, str]
"""Family, table and name of a chain."""
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLine:
    """One rule of a chain, in the line that its tool prints for it."""

    number: int  # of the line in the whole text, counted from 0
    text: str  # the rule, without its handle and without the counts in front of it
    uncounted: str  # the text without what its counters have counted, so it stays the same
    counts: str = ""  # in front of the rule, with a blank, as iptables-restore takes them; nft has none
    handle: int = 0  # nft's number for the rule; iptables has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One rule is to be replaced by another."""

    chain: ChainAddress
    index: int  # of the rule in its chain, counted from 0
    old: str  # the rule as its tool prints it
    new: str  # what shall be there in its place


class LockNeed(Enum):
    """What the lock of all xtables, /run/xtables.lock, is to a tool."""

    unknown_to_it = auto()  # nft takes no lock, and heeds none
    helpful = auto()  # iptables-nft takes none either (xtables-nft(8)), but two of us do
    # Legacy iptables reads a whole table and writes it back (IPT_SO_SET_REPLACE). Without the lock, what
    # others change in between is lost.
    required = auto()


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

    @staticmethod
    @abstractmethod
    def print_command(tool: ToolName) -> list[str]:
        """Return what prints the rules, with all that it takes to rewrite them."""

    @staticmethod
    @abstractmethod
    def load_command(tool: ToolName, *, trial: bool, wait_s: int) -> list[str]:
        """Return what loads a script from its standard input in one transaction, or only tries to.

        ``wait_s``: how long it is to wait for the lock of xtables, if it takes that.
        """

    @staticmethod
    @abstractmethod
    def lock_need(tool: ToolName) -> LockNeed:
        """Return what the lock of xtables is to a tool."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The command that people print these rules with."""

    @property
    @abstractmethod
    def snat_rules(self) -> tuple[SnatRule, ...]:
        """The rules that translate sources, in order, not judged yet."""

    @staticmethod
    @abstractmethod
    def cured(rule: str) -> str:
        """Return a SNAT rule with the flag that makes it draw ports, where the tool prints that."""

    @staticmethod
    @abstractmethod
    def without_marks(line: str) -> str:
        """Return a line as people see it, who list rules without handles and without counts in front."""

    @staticmethod
    @abstractmethod
    def uncounted(rule: str) -> str:
        """Return a rule without what its counters have counted."""

    @staticmethod
    @abstractmethod
    def with_counts_of(rule: str, present: str) -> str:
        """Return a rule with the counts inside ``present``, which is the same rule but for its flags."""

    @abstractmethod
    def script(self, edits: Sequence[Edit]) -> str:
        """Return what the tool is to load to make all edits, or none: in one transaction."""

    @abstractmethod
    def settled(self, edits: Sequence[Edit], after: Self) -> list[Edit] | None:
        """Return the edits as ``after``, read when they were made, has them: in the tool's words, at
        the indexes where they are now. None if others changed these chains in between, so that our
        rules may be in the wrong place.
        """

    @abstractmethod
    def unmade(self, edits: Sequence[Edit], after: Self) -> str:
        """Return what the tool is to load at once if edits are not settled; "" if nothing.

        It puts each old rule in the place of the new one, right behind the rule that was before it.
        """


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
