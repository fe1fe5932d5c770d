"""A ruleset and the edits that are to be made to it: the diff, the script, and whether it came out. Pure.

A chain may change between reading and loading, so a rewrite is taken over to the rules that are there
right before it is loaded: see :meth:`Rewrite.onto`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Self

from snat_race.kernel.tools import printable
from snat_race.results.findings import ChainAddress, ToolName
from snat_race.rules.exposure import SnatRule
from snat_race.rules.ruleset import Edit, Ruleset

_CONTEXT = 3  # lines around a change, as diff -u has them


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
        new_lines = {
            self.ruleset.rules_of(edit.chain)[edit.index].number: (edit.old, edit.new)
            for edit in self.edits
        }
        shown = [
            (
                self._shown(line),
                self._shown(line.replace(*new_lines[number])) if number in new_lines else None,
            )
            for number, line in enumerate(self.ruleset.text.split("\n"))
            if not line.startswith("#")
        ]
        title = self.ruleset.title
        return "\n".join([f"--- {title}\tnow", f"+++ {title}\tthen", *_hunks(shown)])

    def _shown(self, line: str) -> str:
        return printable(self.ruleset.without_marks(line))

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

    def onto(self, now: Ruleset) -> Self | None:
        """Return the same rewrite of the rules as they are now; None if those that it replaces are not
        there as they were, or if others read like them that did not.
        """
        indexes = {chain: _indexes_now(self.ruleset, now, chain) for chain in self.chains}
        edits = []
        for edit in self.edits:
            index = indexes[edit.chain].get(edit.index)
            if index is None:
                return None
            old = now.rules_of(edit.chain)[index].text  # with the counts of now
            new = now.with_flags(old, now.flags_of(edit.new))
            edits.append(Edit(chain=edit.chain, index=index, old=old, new=new))
        return replace(self, ruleset=now, edits=tuple(edits))


def cure(ruleset: Ruleset, rules: Iterable[SnatRule]) -> Rewrite:
    """Return the rewrite that makes these rules of a ruleset draw their ports."""
    edits = [
        Edit(chain=rule.chain, index=rule.index, old=rule.text, new=ruleset.cured(rule.text))
        for rule in rules
    ]
    return Rewrite(ruleset, tuple(edits))


def _texts(ruleset: Ruleset, chain: ChainAddress) -> list[str]:
    return [line.uncounted for line in ruleset.rules_of(chain)]


def _indexes_now(before: Ruleset, now: Ruleset, chain: ChainAddress) -> dict[int, int]:
    """Return where the rules of a chain are now, by where they were; without those of which there are more
    or fewer.
    """
    present = _alike(now, chain)
    return {
        index: present[identity][nth]
        for identity, indexes in _alike(before, chain).items()
        if len(indexes) == len(present.get(identity, ()))
        for nth, index in enumerate(indexes)
    }


def _alike(ruleset: Ruleset, chain: ChainAddress) -> dict[tuple[str, int], list[int]]:
    """Return where the rules of a chain are that read alike, without counts; with nft it is one each."""
    indexes: dict[tuple[str, int], list[int]] = {}
    for index, line in enumerate(ruleset.rules_of(chain)):
        indexes.setdefault((line.uncounted, line.handle), []).append(index)
    return indexes


def _hunks(lines: Sequence[tuple[str, str | None]]) -> Iterator[str]:
    """Yield the hunks of a diff: of lines, each with what comes in its place, None if it stays."""
    changed = [number for number, (_, new) in enumerate(lines) if new is not None]
    first = 0
    for position, number in enumerate(changed):
        following = changed[position + 1] if position + 1 < len(changed) else len(lines) + 2 * _CONTEXT
        if following - number <= 2 * _CONTEXT:
            continue
        start, end = max(changed[first] - _CONTEXT, 0), min(number + _CONTEXT + 1, len(lines))
        yield f"@@ -{start + 1},{end - start} +{start + 1},{end - start} @@"
        yield from _hunk(lines[start:end])
        first = position + 1


def _hunk(lines: Sequence[tuple[str, str | None]]) -> Iterator[str]:
    """Yield the lines of a hunk; of those that change one after the other, first the old ones."""
    for changes, group in groupby(lines, key=lambda line: line[1] is not None):
        together = list(group)
        yield from (f"{'-' if changes else ' '}{old}" for old, _ in together)
        yield from (f"+{new}" for _, new in together if changes)
