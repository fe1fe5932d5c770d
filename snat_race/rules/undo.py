"""What it takes to undo a change of rules, and the plan that does so. Pure."""

from collections.abc import Iterable
from typing import cast

from snat_race.results.findings import Change, Tools
from snat_race.rules import nft_list, rewrite
from snat_race.rules.exposure import Place
from snat_race.rules.listing import Chain, Line
from snat_race.rules.rewrite import Edit, Plan


def planned(plan: Plan) -> list[Change]:
    """Return the changes of a plan, as they will read if the tool keeps the words."""
    return _changes(plan, rewrite.expected(plan.text, plan.edits))


def settled(plan: Plan) -> list[Change]:
    """Return the changes of a plan that is loaded, in the words of the tool: see ``Loader.loaded``."""
    now = rewrite.chains(plan.tool, plan.text)
    return _changes(plan, {edit.place: [line.same for line in now[edit.place.key]] for edit in plan.edits})


def _changes(plan: Plan, then: dict[Place, list[str]]) -> list[Change]:
    found = []
    for edit in plan.edits:
        place, new = edit.place, rewrite.same(plan.tool, edit.new)
        alike = [index for index, rule in enumerate(then[place]) if rule == new]
        found.append(
            Change(
                tool=cast("Tools", plan.tool),
                family=place.family,
                table=place.table,
                chain=place.chain,
                old=edit.old,
                new=new,
                nth=alike.index(edit.index),
                copies=len(alike),
            )
        )
    return found


def back(tool: str, text: str, changes: Iterable[Change]) -> tuple[Plan, list[Change]]:
    """Return the plan that undoes changes, and those that fit nothing here; what reads as it did
    before the change needs neither.
    """
    now, every = rewrite.chains(tool, text), list(changes)
    edits, lost = [], []
    for change in every:
        lines = now.get(_chain(change), [])
        here = [index for index, line in enumerate(lines) if line.same == change.new]
        made = sum(other.new == change.new and _chain(other) == _chain(change) for other in every)
        if len(here) == change.copies:
            present = lines[here[change.nth]].text
            old = nft_list.with_counters_of(change.old, present) if tool == "nft" else change.old
            place = Place(tool, change.family, change.table, change.chain)
            edits.append(Edit(place, here[change.nth], present, old))
        elif len(here) != change.copies - made or not _present(rewrite.same(tool, change.old), lines):
            lost.append(change)
    return Plan(tool, text, tuple(edits)), lost


def _chain(change: Change) -> Chain:
    return change.family, change.table, change.chain


def _present(rule: str, lines: Iterable[Line]) -> bool:
    return any(line.same == rule for line in lines)
