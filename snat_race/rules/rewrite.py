"""A ruleset and the edits that are to be made to it: the diff, the script, and whether it came out. Pure.

A chain may change between reading and loading, so a rewrite is taken over to the rules that are there
right before it is loaded: see :meth:`Rewrite.onto`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Self

from snat_race.kernel.tools import printable
from snat_race.results.findings import ChainAddress, ToolName
from snat_race.rules.exposure import SnatRule
from snat_race.rules.ruleset import Edit, Kind, Ruleset, edits_by_chain

_CONTEXT = 3  # lines around a change, as diff -u has them
_Line = tuple[str | None, str | None]  # as it is now, and then; None: not there


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
        edits = {self.ruleset.rules_of(edit.chain)[edit.index].number: edit for edit in self.edits}
        lines = [
            shown
            for number, line in enumerate(self.ruleset.text.split("\n"))
            if not line.startswith("#")
            for shown in self._lines(line, edits.get(number))
        ]
        title = self.ruleset.title
        return "\n".join([f"--- {title}\tnow", f"+++ {title}\tthen", *_hunks(lines)])

    def _lines(self, line: str, edit: Edit | None) -> Iterator[tuple[str | None, str | None]]:
        """Yield a line as it is now and then; None where it is not there."""
        old = self._shown(line)
        new = self._shown(line.replace(edit.old, edit.new)) if edit else old
        if edit and edit.kind is Kind.add:
            yield None, new
            yield old, old
        elif edit and edit.kind is Kind.remove:
            yield old, None
        else:
            yield old, new

    def _shown(self, line: str) -> str:
        return printable(self.ruleset.without_marks(line))

    def of(self, edits: Iterable[Edit]) -> Self:
        """Return a rewrite of the same rules by these edits only."""
        return replace(self, edits=tuple(edits))

    def expected(self) -> dict[ChainAddress, list[str]]:
        """Return the chains that the edits touch as they shall read then, without counts."""
        then = {
            chain: {index: edit.then for index, edit in edits.items()}
            for chain, edits in edits_by_chain(self.edits).items()
        }
        return {
            chain: [
                self.ruleset.uncounted(new)
                for index, text in enumerate(texts)
                for new in then[chain].get(index, (text,))
            ]
            for chain, texts in self.texts().items()
        }

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
            new = now.with_flags(old, now.flags_of(edit.new)) if edit.kind is Kind.replace else edit.new
            edits.append(replace(edit, index=index, old=old, new=new))
        return replace(self, ruleset=now, edits=tuple(edits))


def cure(ruleset: Ruleset, rules: Iterable[SnatRule], *, tcp_only: bool = False) -> Rewrite:
    """Return the rewrite that makes these rules of a ruleset draw their ports.

    ``tcp_only``: UDP shall keep its ports. So a rule that is for UDP too stays as it is, behind one for TCP
    that draws ports. Of the rules, each has to allow that: see :func:`allows_tcp_only`.
    """
    return Rewrite(ruleset, tuple(_cure(ruleset, rule, tcp_only=tcp_only) for rule in rules))


def _cure(ruleset: Ruleset, rule: SnatRule, *, tcp_only: bool) -> Edit:
    edit = Edit(chain=rule.chain, index=rule.index, old=rule.text, new=ruleset.cured(rule.text))
    if tcp_only and rule.gets_udp and (new := ruleset.for_tcp(rule.text)):
        return replace(edit, new=new, kind=Kind.add)
    return edit


def allows_tcp_only(ruleset: Ruleset, rule: SnatRule) -> bool:
    """Whether a rule's TCP can draw ports while UDP keeps its own."""
    return not rule.gets_udp or (ruleset.repeatable(rule) and ruleset.for_tcp(rule.text) is not None)


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


def _hunks(lines: Sequence[_Line]) -> Iterator[str]:
    """Yield the hunks of a diff."""
    changed = [number for number, (old, new) in enumerate(lines) if old != new]
    # How many lines there are before one: now, and then.
    now = [0, *accumulate(old is not None for old, _ in lines)]
    then = [0, *accumulate(new is not None for _, new in lines)]
    first = 0
    for position, number in enumerate(changed):
        following = changed[position + 1] if position + 1 < len(changed) else len(lines) + 2 * _CONTEXT
        if following - number <= 2 * _CONTEXT:
            continue
        start, end = max(changed[first] - _CONTEXT, 0), min(number + _CONTEXT + 1, len(lines))
        yield f"@@ -{_span(now, start, end)} +{_span(then, start, end)} @@"
        yield from _hunk(lines[start:end])
        first = position + 1


def _span(before: Sequence[int], start: int, end: int) -> str:
    """Return where a hunk begins and how long it is; without lines, which line it is behind."""
    count = before[end] - before[start]
    return f"{before[start] + (count > 0)},{count}"


def _hunk(lines: Sequence[_Line]) -> Iterator[str]:
    """Yield the lines of a hunk; of those that change one after the other, first the old ones."""
    for changes, group in groupby(lines, key=lambda line: line[0] != line[1]):
        together = list(group)
        yield from (f"{'-' if changes else ' '}{old}" for old, _ in together if old is not None)
        yield from (f"+{new}" for _, new in together if changes and new is not None)
