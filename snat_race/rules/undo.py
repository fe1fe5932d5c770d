"""What it takes to undo a change of rules, and the rewrite that does so. Pure.

Handles and numbers do not outlive a reboot or a restart of the program that owns the rules. So a
change is kept as text: the rule before and after, and which of the rules that read alike it is.

What is kept is in a file, and a file may say anything. So nothing of its text is ever loaded: it says
which of the rules that are here is meant, and which flags that had, or that it was not there.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from snat_race.errors import UsageError
from snat_race.results.findings import ChainAddress, Change
from snat_race.rules.rewrite import Rewrite
from snat_race.rules.ruleset import Edit, Kind, Ruleset, shifted


def planned(rewrite: Rewrite) -> list[Change]:
    """Return the changes of a rewrite that is not loaded yet, as they will read if the tool keeps the
    words.
    """
    return _changes(rewrite, rewrite.expected(), shifted(rewrite.edits))


def settled(rewrite: Rewrite) -> list[Change]:
    """Return the changes of a rewrite that is loaded, in the tool's words: see ``Ruleset.settled``."""
    return _changes(rewrite, rewrite.texts(), [edit.index for edit in rewrite.edits])


def marks(rewrite: Rewrite) -> list[tuple[ChainAddress, str, int, int]]:
    """Return what its undo finds the rules of a rewrite by: see ``Change``."""
    return _marks(rewrite, rewrite.expected(), shifted(rewrite.edits))


def _changes(
    rewrite: Rewrite, after: dict[ChainAddress, list[str]], indexes: Sequence[int]
) -> list[Change]:
    """Return the changes of a rewrite; the new rules are at ``indexes`` of their chains."""
    made = [edit for edit in rewrite.edits if edit.kind is not Kind.remove]
    return [
        Change(
            tool=chain.tool,
            family=chain.family,
            table=chain.table,
            chain=chain.chain,
            old=edit.old,
            new=new,
            nth=nth,
            copies=copies,
            added=edit.kind is Kind.add,
        )
        for edit, (chain, new, nth, copies) in zip(made, _marks(rewrite, after, indexes), strict=True)
    ]


def _marks(
    rewrite: Rewrite, after: dict[ChainAddress, list[str]], indexes: Sequence[int]
) -> list[tuple[ChainAddress, str, int, int]]:
    alike = {chain: _indexes(texts) for chain, texts in after.items()}
    nth = {
        chain: {index: at for indexes in by_text.values() for at, index in enumerate(indexes)}
        for chain, by_text in alike.items()
    }
    marks = []
    for edit, index in zip(rewrite.edits, indexes, strict=True):
        if edit.kind is not Kind.remove:
            new = rewrite.ruleset.uncounted(edit.new)
            marks.append((edit.chain, new, nth[edit.chain][index], len(alike[edit.chain][new])))
    return marks


def back(ruleset: Ruleset, changes: Sequence[Change]) -> tuple[Rewrite, list[Change]]:
    """Return the rewrite that undoes the changes of one tool, and the changes that fit nothing here.

    What reads as it did before the change needs neither: its owner has written it again. Nor does a rule
    that was added and is not there.

    Raises:
        UsageError: a change is more than one of flags, or there twice.

    """
    addresses = [change.address for change in changes]
    made = Counter(zip(addresses, (change.new for change in changes), strict=True))
    indexes_by_chain = {
        address: _indexes([line.uncounted for line in ruleset.rules_of(address)])
        for address in set(addresses)
    }
    edits: dict[tuple[ChainAddress, int], Edit] = {}
    lost = []
    for change, address in zip(changes, addresses, strict=True):
        _require_a_cure(ruleset, change)
        alike = indexes_by_chain[address]
        indexes = alike.get(change.new, [])
        index = indexes[change.nth] if len(indexes) == change.copies else None
        if index is not None and not (change.added and _is_alone(ruleset, change, index)):
            if (address, index) in edits:
                raise UsageError(f"the file has a rule of {address} twice: '{change.new}'")
            edits[address, index] = _edit(ruleset, change, index)
            continue
        none_of_ours_left = len(indexes) == change.copies - made[address, change.new]
        old_is_back = ruleset.uncounted(change.old) in alike
        is_gone = not indexes if change.added else none_of_ours_left and old_is_back
        if not is_gone:
            lost.append(change)
    return Rewrite(ruleset, tuple(edits.values())), lost


def _is_alone(ruleset: Ruleset, change: Change, index: int) -> bool:
    """Whether the rule that a new one was put in front of is not behind it any more.

    Then the new one may be all that translates there, and somebody else's.
    """
    behind = ruleset.rules_of(change.address)[index + 1 :]
    old = ruleset.uncounted(change.old)
    return all(line.uncounted != old for line in behind)


def _edit(ruleset: Ruleset, change: Change, index: int) -> Edit:
    """Return what undoes a change whose new rule is here, at an index."""
    present = ruleset.rules_of(change.address)[index].text
    if change.added:
        return Edit(chain=change.address, index=index, old=present, new="", kind=Kind.remove)
    old = ruleset.with_flags(present, ruleset.flags_of(change.old))
    return Edit(chain=change.address, index=index, old=present, new=old)


def _require_a_cure(ruleset: Ruleset, change: Change) -> None:
    """Check that a change is one that a cure makes.

    Raises:
        UsageError: it is another.

    """
    cured = ruleset.for_tcp(change.old) if change.added else ruleset.cured(change.old)
    if cured is None or ruleset.comparable(cured) != ruleset.comparable(change.new):
        raise UsageError(
            f"the file does not undo what an apply does: its rules '{change.old}' and '{change.new}' "
            f"differ in more than random ports{' for TCP' if change.added else ''}"
        )


def _indexes(texts: Iterable[str]) -> dict[str, list[int]]:
    """Return where each text is."""
    indexes: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        indexes.setdefault(text, []).append(index)
    return indexes
