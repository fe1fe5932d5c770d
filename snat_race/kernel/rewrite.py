"""Replaces rules of a chain by others: as a script for the tool, and as it will print them. Pure.

Never by number alone: if another program changes the chain in between, the script is refused as a
whole, or does what it should.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from snat_race.kernel import nftables, xtables
from snat_race.kernel.listing import Chains
from snat_race.kernel.snat_rules import Place, SnatRule, cured_nft, cured_xtables

_HANDLE = re.compile(r" # handle \d+$")


@dataclass(frozen=True, slots=True)
class Edit:
    """The ``index``-th rule of a chain, ``old``, becomes ``new``."""

    place: Place
    index: int
    old: str
    new: str


def cure(rule: SnatRule) -> Edit:
    """Return the edit that makes a rule draw its ports."""
    cured = cured_nft if rule.place.tool == "nft" else cured_xtables
    return Edit(rule.place, rule.index, rule.text, cured(rule.text))


def chains(tool: str, text: str) -> Chains:
    """Return every rule that a tool has printed, by chain."""
    return nftables.chains(text) if tool == "nft" else xtables.chains(tool, text)


def expected(text: str, edits: Sequence[Edit]) -> dict[Place, list[str]]:
    """Return the chains that edits touch as they shall read then, without counts."""
    tool = edits[0].place.tool
    now = chains(tool, text)
    found = {edit.place: [line.same for line in now[edit.place.key]] for edit in edits}
    for edit in edits:
        found[edit.place][edit.index] = same(tool, edit.new)
    return found


def same(tool: str, rule: str) -> str:
    """Return a rule without what its counters have counted."""
    return nftables.uncounted(rule) if tool == "nft" else rule


def script(text: str, edits: Sequence[Edit]) -> str:
    """Return what one tool, which printed ``text``, is to load: all edits, or none."""
    tool = edits[0].place.tool
    now = chains(tool, text)
    if tool == "nft":
        return "".join(_nft_lines(now, edits))
    by_table: dict[str, list[str]] = {}
    for place in dict.fromkeys(edit.place for edit in edits):
        own = {edit.index: edit for edit in edits if edit.place == place}
        by_table.setdefault(place.table, []).extend(_xtables_lines(place, now, own))
    return "".join(f"*{table}\n{''.join(lines)}COMMIT\n" for table, lines in by_table.items())


def _nft_lines(now: Chains, edits: Iterable[Edit]) -> Iterator[str]:
    """Insert and delete by handle, which is never given to another rule.

    Not ``replace``: nft 1.0.6 aborts on that if the rule holds a set with networks.
    """
    for edit in edits:
        chain, handle = " ".join(edit.place.key), now[edit.place.key][edit.index].handle
        yield f"insert rule {chain} position {handle} {edit.new}\n"
        yield f"delete rule {chain} handle {handle}\n"


def _xtables_lines(place: Place, now: Chains, edits: dict[int, Edit]) -> Iterator[str]:
    """Delete by content, then insert at the final places, lowest first, with counters.

    The first rule of a content is what gets deleted, so all of that content go, and come back.
    """
    contents = {edit.old for edit in edits.values()}
    moved = {n: line for n, line in enumerate(now[place.key]) if line.text in contents}
    append = f"-A {place.chain}"
    for line in moved.values():
        yield f"-D {place.chain}{line.text.removeprefix(append)}\n"
    for index, line in moved.items():
        new = edits[index].new if index in edits else line.text
        yield f"{line.counts}-I {place.chain} {index + 1}{new.removeprefix(append)}\n"


def printed(text: str, edits: Sequence[Edit]) -> tuple[list[str], list[str]]:
    """Return the lines that people know their rules by, before and after the edits."""
    now = chains(edits[0].place.tool, text)
    before = text.split("\n")
    after = list(before)
    for edit in edits:
        line = now[edit.place.key][edit.index]
        after[line.number] = before[line.number].replace(edit.old, edit.new)
    return _clean(before), _clean(after)


def _clean(lines: list[str]) -> list[str]:
    uncommented = (line for line in lines if not line.startswith("#"))
    return [_HANDLE.sub("", xtables.uncounted(line)) for line in uncommented]
