"""Which rules of nft have come in place of which, known by the handles of those that stayed. Pure."""

from collections.abc import Callable, Mapping, Sequence

from snat_race.rules.ruleset import Edit, Kind, RuleLine, positions


def new_rules(
    before: Sequence[RuleLine],
    edits: Mapping[int, Edit],
    now: Sequence[RuleLine],
    comparable: Callable[[str], str],
) -> list[tuple[Edit, int]] | None:
    """Return which rule of now has come in place of which; None if that cannot be told.

    Rules of before that are still there part both lists in the same way. What is new between two of them
    is ours, unless others have put rules there too: then ours are known by their text.
    """
    at = {line.handle: index for index, line in enumerate(now)}
    pairs: list[tuple[Edit, int]] = []
    wanted: dict[int, list[Edit]] = {}  # by the handle of the rule that they follow, 0 at the beginning
    last = 0
    for index, line in enumerate(before):
        edit = edits.get(index)
        kind, stays = edit.kind if edit else None, line.handle in at
        if stays and kind is Kind.remove:
            return None
        if edit and stays and kind is Kind.replace:  # a kernel may keep its handle
            pairs.append((edit, at[line.handle]))
        elif edit and kind is not Kind.remove:
            wanted.setdefault(last, []).append(edit)
        last = line.handle if stays else last
    present = _unknown(before, now)
    for handle, edits_here in wanted.items():
        indexes = present.get(handle, [])
        if len(indexes) != len(edits_here):
            texts = [comparable(now[index].text) for index in indexes]
            chosen = positions([comparable(edit.new) for edit in edits_here], texts)
            if chosen is None:
                return None
            indexes = [indexes[position] for position in chosen]
        pairs += zip(edits_here, indexes, strict=True)
    return pairs


def _unknown(before: Sequence[RuleLine], now: Sequence[RuleLine]) -> dict[int, list[int]]:
    """Return which rules of now were not there before, by the handle of the last that was, or 0."""
    unknown: dict[int, list[int]] = {}
    known = {line.handle for line in before}
    last = 0
    for index, line in enumerate(now):
        if line.handle in known:
            last = line.handle
        else:
            unknown.setdefault(last, []).append(index)
    return unknown
