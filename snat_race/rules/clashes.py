"""Which of many clients may be given the same translated tuple as another: not comparing all pairs. Pure.

A claim is what one client may be given: ranges of each part of a tuple. Two claims clash if they are of
different clients and share a number in every part. 20,000 claims are 200 million pairs, so they are parted
first: those that share no number in one part cannot clash. What is left is swept along the part in which
the fewest overlap. Claims that many clients make are met with those of single ones in the same way.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from snat_race.rules.traffic import Intervals, meet

Parts = tuple[Intervals, ...]
# Pairs that are looked at in claims that overlap in every single part. Beyond, they count as clashing.
_MOST_PAIRS = 400_000
_FEW_PAIRS = 100_000  # that are looked at sooner than parted


@dataclass(slots=True, eq=False)
class _Claim:
    """What one client may be given, or several alike."""

    parts: Parts
    client: int | None  # None: of several
    clashes: bool = False  # whether another is known, of a different client

    def meets(self, other: "_Claim") -> bool:
        of_others = self.client != other.client or self.client is None
        return of_others and all(map(meet, self.parts, other.parts))


def clashing(claims: Iterable[tuple[int, Parts]]) -> list[bool]:
    """Return for each claim, its client and the parts of its tuples, whether it clashes with another."""
    listed = list(claims)
    alike: dict[Parts, _Claim] = {}
    for client, parts in listed:
        claim = alike.setdefault(parts, _Claim(parts, client))
        if claim.client != client:
            claim.client = None
            claim.clashes = True
    for group in _split(alike.values()):
        if len(group) > 1:
            part = min(range(len(group[0].parts)), key=lambda part: _pairs(group, part))
            _sweep(group, part)
    return [alike[parts].clashes for _, parts in listed]


def sharing(claims: Sequence[Parts], of_many: Iterable[Parts]) -> list[bool]:
    """Return for each claim whether it clashes with one of ``of_many``, each of which many clients make."""
    many = [_Claim(parts, None) for parts in dict.fromkeys(of_many)]
    if not many:
        return [False] * len(claims)
    alike = {parts: _Claim(parts, 0) for parts in claims}
    everything = [*alike.values(), *many]
    few = len(alike) * len(many) <= _FEW_PAIRS
    for group in [everything] if few else _split(everything):
        _meet_across(group)
    return [alike[parts].clashes for parts in claims]


def _split(claims: Iterable[_Claim]) -> Iterator[list[_Claim]]:
    """Yield groups that share no number with one another in some part."""
    waiting = [list(claims)]
    while waiting:
        group = waiting.pop()
        smaller = [group]
        for part in range(len(group[0].parts) if len(group) > 1 else 0):
            smaller = _parted(group, part)
            if len(smaller) > 1:
                break
        if len(smaller) > 1:
            waiting += smaller
        else:
            yield group


def _parted(group: Sequence[_Claim], part: int) -> list[list[_Claim]]:
    """Return the claims that overlap in one part, directly or through others, together."""
    ordered = sorted(group, key=lambda claim: claim.parts[part][0][0])
    parted = [[ordered[0]]]
    end = ordered[0].parts[part][-1][1]
    for claim in ordered[1:]:
        ranges = claim.parts[part]
        if ranges[0][0] > end:
            parted.append([])
        parted[-1].append(claim)
        end = max(end, ranges[-1][1])
    return parted


def _events(group: Iterable[_Claim], part: int) -> list[tuple[int, int, int, _Claim]]:
    """Return the ranges of one part from the lowest on: both ends, a number of its own, its claim."""
    return sorted(
        (low, high, number, claim) for number, claim in enumerate(group) for low, high in claim.parts[part]
    )


def _pairs(group: Sequence[_Claim], part: int) -> int:
    """Return how many pairs overlap in one part."""
    ranges = [ends for claim in group for ends in claim.parts[part]]
    lows = sorted(low for low, _ in ranges)
    highs = sorted(high for _, high in ranges)
    pairs = ended = 0
    for begun, low in enumerate(lows):
        while highs[ended] < low:
            ended += 1
        pairs += begun - ended
    return pairs


def _sweep(group: Sequence[_Claim], part: int) -> None:
    """Find the clashes of claims that overlap in ``part``; those that are known to clash need no second."""
    alone: list[tuple[int, _Claim]] = []  # each with the end of its range
    clashed: list[tuple[int, _Claim]] = []
    left = _MOST_PAIRS
    for low, high, _, claim in _events(group, part):
        left -= len(alone) + (0 if claim.clashes else len(clashed))
        if left < 0:
            for rest in group:
                rest.clashes = True
            return
        still_alone: list[tuple[int, _Claim]] = []
        for end, other in alone:
            if end < low:
                continue
            if claim.meets(other):
                claim.clashes = other.clashes = True
            (clashed if other.clashes else still_alone).append((end, other))
        alone = still_alone
        if not claim.clashes:
            clashed = [(end, other) for end, other in clashed if end >= low]
            claim.clashes = any(claim.meets(other) for _, other in clashed)
        (clashed if claim.clashes else alone).append((high, claim))


def _meet_across(group: Sequence[_Claim]) -> None:
    """Find which claims of one client clash with claims of many."""
    of_many = [claim for claim in group if claim.client is None]
    of_one = [claim for claim in group if claim.client is not None] if of_many else []
    if len(of_one) * len(of_many) <= _FEW_PAIRS:
        for claim in of_one:
            claim.clashes = any(claim.meets(other) for other in of_many)
        return

    def pairs(part: int) -> int:
        return _pairs(group, part) - _pairs(of_one, part) - _pairs(of_many, part)

    _sweep_across(group, min(range(len(group[0].parts)), key=pairs))


def _sweep_across(group: Sequence[_Claim], part: int) -> None:
    """Find the same among claims that overlap in ``part``."""
    of_one: list[tuple[int, _Claim]] = []  # each with the end of its range; none is known to clash
    of_many: list[tuple[int, _Claim]] = []
    left = _MOST_PAIRS
    for low, high, _, claim in _events(group, part):
        if claim.client is None:
            left -= len(of_one)
            of_one = [(end, other) for end, other in of_one if end >= low]
            for _, other in of_one:
                other.clashes = other.meets(claim)
            of_one = [(end, other) for end, other in of_one if not other.clashes]
            of_many.append((high, claim))
        elif not claim.clashes:
            left -= len(of_many)
            of_many = [(end, other) for end, other in of_many if end >= low]
            claim.clashes = any(claim.meets(other) for _, other in of_many)
            if not claim.clashes:
                of_one.append((high, claim))
        if left < 0:
            for rest in group:
                rest.clashes = True
            return
