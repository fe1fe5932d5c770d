"""What it takes to undo a change of rules, and the rewrite that does so. Pure.

Handles and numbers do not outlive a reboot or a restart of the program that owns the rules. So a
change is kept as text: the rule before and after, and which of the rules that read alike it is.
"""

from collections.abc import Iterable

from snat_race.results.findings import ChainAddress, Change
from snat_race.rules.rewrite import Rewrite
from snat_race.rules.ruleset import Edit, Ruleset


def planned(rewrite: Rewrite) -> list[Change]:
    """Return the changes of a rewrite that is not loaded yet, as they will read if the tool keeps the
    words.
    """
    return _changes(rewrite, rewrite.expected())


def settled(rewrite: Rewrite) -> list[Change]:
    """Return the changes of a rewrite that is loaded, in the tool's words: see ``Loader.load``."""
    return _changes(rewrite, rewrite.texts())


def _changes(rewrite: Rewrite, after: dict[ChainAddress, list[str]]) -> list[Change]:
    changes = []
    for edit in rewrite.edits:
        new = rewrite.ruleset.uncounted(edit.new)
        alike = [index for index, rule in enumerate(after[edit.chain]) if rule == new]
        change = Change(
            tool=edit.chain.tool,
            family=edit.chain.family,
            table=edit.chain.table,
            chain=edit.chain.chain,
            old=edit.old,
            new=new,
            nth=alike.index(edit.index),
            copies=len(alike),
        )
        changes.append(change)
    return changes


def back(ruleset: Ruleset, changes: Iterable[Change]) -> tuple[Rewrite, list[Change]]:
    """Return the rewrite that undoes the changes of one tool, and the changes that fit nothing here.

    What reads as it did before the change needs neither: its owner has written it again.
    """
    all_changes = list(changes)
    edits = []
    lost = []
    for change in all_changes:
        lines = ruleset.rules_of(change.address)
        indexes = [index for index, line in enumerate(lines) if line.uncounted == change.new]
        if len(indexes) == change.copies:
            index = indexes[change.nth]
            present = lines[index].text
            old = ruleset.with_counts_of(change.old, present)
            edits.append(Edit(chain=change.address, index=index, old=present, new=old))
            continue
        made_here = sum(
            other.new == change.new and other.address == change.address for other in all_changes
        )
        none_of_ours_left = len(indexes) == change.copies - made_here
        old_is_back = ruleset.uncounted(change.old) in [line.uncounted for line in lines]
        if not (none_of_ours_left and old_is_back):
            lost.append(change)
    return Rewrite(ruleset, tuple(edits)), lost
