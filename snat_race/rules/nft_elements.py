"""The elements of nft's sets and maps that rules ask for by name, as far as they can be told apart. Pure.

An element of several fields, and each of a map, is an alternative of its own for every rule that asks for
it. So a large set that many rules ask for would take minutes. It counts as one whose elements are not
known then: its rules are for more packets, and give more addresses and ports, than in truth.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from snat_race.rules.nft_json import JsonRule, Listing

Elements = Mapping[str, Sequence[Any]]
"""The elements of the sets and maps of a table, by name; none of those that packets change."""

_NAMED = re.compile(r'"@([^"\\]+)"')
_FEW = 2_000  # elements of a table, with which nobody has to count who asks for them
_MOST_COST = 2_000_000  # some 4 s
_COST, _COST_OF_ALTERNATIVE = 3, 30  # of an element, for each rule that asks for it


def affordable(listing: Listing) -> dict[tuple[str, str], Elements]:
    """Return the elements of each table that can be told apart: all, unless that takes too long."""
    large = {table for table, sets in listing.elements.items() if sum(map(len, sets.values())) > _FEW}
    times = _times_asked(rule for rule in listing.rules if rule.chain[:2] in large) if large else {}
    costs = {
        (table, name): _cost(elements) * times.get((*table, name), 0)
        for table in large
        for name, elements in listing.elements[table].items()
    }
    cheapest = sorted(costs, key=lambda key: costs[key])
    sums = accumulate(costs[key] for key in cheapest)
    dear = {key for key, cost in zip(cheapest, sums, strict=True) if cost > _MOST_COST}
    return {
        table: {name: elements for name, elements in sets.items() if (table, name) not in dear}
        for table, sets in listing.elements.items()
    }


def _times_asked(rules: Iterable[JsonRule]) -> Counter[tuple[str, str, str]]:
    """Return how often rules name each set, by family, table and name."""
    return Counter(
        (*rule.chain[:2], name) for rule in rules for name in _NAMED.findall(json.dumps(rule.statements))
    )


def _cost(elements: Sequence[Any]) -> int:
    is_alternative = isinstance(elements[0], list) or '"concat"' in json.dumps(elements[0])
    return len(elements) * (_COST_OF_ALTERNATIVE if is_alternative else _COST)
