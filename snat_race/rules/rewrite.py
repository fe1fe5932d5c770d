"""A ruleset and the edits that are to be made to it: the diff, the script, and whether it came out. Pure.

A chain may change between reading and loading, because iptables-nft and nft know no lock. So what was
read first is compared with what is there right before and right after: see ``loader.Loader.load``.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from snat_race.kernel.tools import printable
from snat_race.results.findings import ChainAddress, ToolName
from snat_race.rules.exposure import SnatRule
from snat_race.rules.ruleset import Edit, Ruleset, positions


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A tool's rules as they are, and the edits to make to them."""

    ruleset: Ruleset
    edits: tuple[Edit, ...]

    @property
    def tool(self) -> ToolName:
        """The tool that printed the rules, and is to load them."""
        return self.ruleset.tool

    @property
    def chains(self) -> list[ChainAddress]:
        """The chains that the edits touch."""
        return list(dict.fromkeys(edit.chain for edit in self.edits))

    @property
    def script(self) -> str:
        """What the tool is to load: all edits, or none."""
        return self.ruleset.script(self.edits)

    @property
    def diff(self) -> str:
        """The change as a unified diff of what the tool prints."""
        before = self.ruleset.text.split("\n")
        after = list(before)
        for edit in self.edits:
            number = self.ruleset.rules_of(edit.chain)[edit.index].number
            after[number] = before[number].replace(edit.old, edit.new)
        title = self.ruleset.title
        lines = difflib.unified_diff(
            self._shown(before), self._shown(after), title, title, "now", "then", lineterm=""
        )
        return "\n".join(lines)

    def _shown(self, lines: Iterable[str]) -> list[str]:
        return [printable(self.ruleset.without_marks(line)) for line in lines if not line.startswith("#")]

    def of(self, edits: Iterable[Edit]) -> Self:
        """Return a rewrite of the same rules by these edits only."""
        return replace(self, edits=tuple(edits))

    def expected(self) -> dict[ChainAddress, list[str]]:
        """Return the chains that the edits touch as they shall read then, without counts."""
        chains = self.texts()
        for edit in self.edits:
            chains[edit.chain][edit.index] = self.ruleset.uncounted(edit.new)
        return chains

    def texts(self) -> dict[ChainAddress, list[str]]:
        """Return the rules of the chains that the edits touch, without counts."""
        return {chain: _texts(self.ruleset, chain) for chain in self.chains}

    def still_fits(self, now: Ruleset) -> bool:
        """Whether the chains that the edits touch are as they were when these were made."""
        return all(_identities(self.ruleset, chain) == _identities(now, chain) for chain in self.chains)

    def undone(self, after: Ruleset) -> bool:
        """Whether all rules of these chains are there, in order, as before the edits; others may be
        in between.
        """
        return all(
            positions(_texts(self.ruleset, chain), _texts(after, chain)) is not None
            for chain in self.chains
        )


def cure(ruleset: Ruleset, rules: Iterable[SnatRule]) -> Rewrite:
    """Return the rewrite that makes these rules of a ruleset draw their ports."""
    edits = [
        Edit(chain=rule.chain, index=rule.index, old=rule.text, new=ruleset.cured(rule.text))
        for rule in rules
    ]
    return Rewrite(ruleset, tuple(edits))


def _texts(ruleset: Ruleset, chain: ChainAddress) -> list[str]:
    return [line.uncounted for line in ruleset.rules_of(chain)]


def _identities(ruleset: Ruleset, chain: ChainAddress) -> list[tuple[str, int]]:
    return [(line.uncounted, line.handle) for line in ruleset.rules_of(chain)]
