"""Replaces rules of a chain by others: as a script for the tool, and as it will print them. Pure.

A chain may change between the reading and the loading: iptables-nft and nft know no lock. So what is
read back is compared with what was meant: see :func:`settled`.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from snat_race.kernel.tools import printable
from snat_race.rules import iptables_save, nft_list
from snat_race.rules.exposure import Place, SnatRule, cured_nft, cured_xtables
from snat_race.rules.listing import Chains

_HANDLE = re.compile(r" # handle \d+$")


@dataclass(frozen=True, slots=True)
class Edit:
    """The ``index``-th rule of a chain, ``old``, becomes ``new``."""

    place: Place
    index: int
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What would change: ``text``, a tool's rules as they are, and its edits."""

    tool: str
    text: str
    edits: tuple[Edit, ...]

    @property
    def diff(self) -> str:
        """The change as a unified diff of what the tool prints."""
        before, after = printed(self.text, self.edits)
        name = "nft list ruleset" if self.tool == "nft" else f"{self.tool}-save"
        return "\n".join(difflib.unified_diff(before, after, name, name, "now", "then", lineterm=""))


def cure(rule: SnatRule) -> Edit:
    """Return the edit that makes a rule draw its ports."""
    cured = cured_nft if rule.place.tool == "nft" else cured_xtables
    return Edit(rule.place, rule.index, rule.text, cured(rule.text))


def chains(tool: str, text: str) -> Chains:
    """Return every rule that a tool has printed, by chain."""
    return nft_list.chains(text) if tool == "nft" else iptables_save.chains(tool, text)


def expected(text: str, edits: Sequence[Edit]) -> dict[Place, list[str]]:
    """Return the chains that edits touch as they shall read then, without counts."""
    tool = edits[0].place.tool
    now = chains(tool, text)
    found = {edit.place: [line.same for line in now[edit.place.key]] for edit in edits}
    for edit in edits:
        found[edit.place][edit.index] = same(tool, edit.new)
    return found


def settled(text: str, edits: Sequence[Edit], then: str) -> list[Edit] | None:
    """Return the edits as ``then``, what the tool prints after them, has them: in its words, at the
    places where they are; None if others changed these chains meanwhile, so that ours may be in the
    wrong place.

    nft may list a rule in other words than it was told: a set of networks, merged. So its new rules
    are known by their handles, which count upwards; not by ``nft --echo``, at which 1.0.6 may abort.
    """
    tool = edits[0].place.tool
    before, after = chains(tool, text), chains(tool, then)
    found = []
    for place in dict.fromkeys(edit.place for edit in edits):
        own = {edit.index: edit for edit in edits if edit.place == place}
        new = after.get(place.key, [])
        if tool == "nft":
            added = sorted({line.handle for line in new} - {line.handle for line in before[place.key]})
            given = dict(zip([edit.index for edit in edits if edit.place == place], added, strict=False))
            meant = [
                given.get(n, 0) if n in own else line.handle for n, line in enumerate(before[place.key])
            ]
            at = _subsequence(meant, [line.handle for line in new]) if len(added) == len(own) else None
        else:
            texts = [own[n].new if n in own else line.same for n, line in enumerate(before[place.key])]
            at = list(range(len(new))) if texts == [line.same for line in new] else None
        if at is None:
            return None
        found += [replace(edit, index=at[n], new=new[at[n]].same) for n, edit in own.items()]
    return found


def _subsequence(wanted: Sequence[object], present: Sequence[object]) -> list[int] | None:
    """Return where each of ``wanted`` is in ``present``, in order; others may be in between."""
    numbered = iter(enumerate(present))
    at = [next((index for index, each in numbered if each == one), -1) for one in wanted]
    return None if -1 in at else at


def unmade(text: str, edits: Sequence[Edit], then: str) -> str:
    """Return what xtables' restore is to load to have each old rule in the place of the new one again:
    right behind the rule that was before it, wherever that is now.
    """
    tool = edits[0].place.tool
    before, after = chains(tool, text), chains(tool, then)
    by_table: dict[str, list[str]] = {}
    for place in dict.fromkeys(edit.place for edit in edits):
        old, append = [line.text for line in before[place.key]], f"-A {place.chain}"
        now = [line.text for line in after.get(place.key, [])]
        lines = by_table.setdefault(place.table, [])
        for edit in (each for each in edits if each.place == place and each.new in now):
            now.remove(edit.new)
            lines.append(f"-D {place.chain}{edit.new.removeprefix(append)}\n")
        for edit in sorted((each for each in edits if each.place == place), key=lambda each: each.index):
            earlier = [n for n, rule in enumerate(now) if rule in old[: edit.index]]
            at = max(earlier, default=-1) + 1
            now.insert(at, edit.old)
            counts = before[place.key][edit.index].counts
            lines.append(f"{counts}-I {place.chain} {at + 1}{edit.old.removeprefix(append)}\n")
    return _tables(by_table)


def kept(text: str, edits: Sequence[Edit], then: str) -> bool:
    """Whether all rules of the chains that edits touch are there, in order, as before the edits."""
    tool = edits[0].place.tool
    before, after = chains(tool, text), chains(tool, then)
    return all(
        _subsequence([line.same for line in before[key]], [line.same for line in after.get(key, [])])
        is not None
        for key in {edit.place.key for edit in edits}
    )


def same(tool: str, rule: str) -> str:
    """Return a rule without what its counters have counted."""
    return nft_list.uncounted(rule) if tool == "nft" else rule


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
    return _tables(by_table)


def _tables(by_table: dict[str, list[str]]) -> str:
    return "".join(f"*{table}\n{''.join(lines)}COMMIT\n" for table, lines in by_table.items())


def _nft_lines(now: Chains, edits: Iterable[Edit]) -> Iterator[str]:
    """Insert and delete by handle: refused as a whole if a rule is not there any more.

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
    return [printable(_HANDLE.sub("", iptables_save.uncounted(line))) for line in uncommented]
