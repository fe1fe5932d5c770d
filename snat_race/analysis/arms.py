"""What two or more results have to compare, and what makes the comparison doubtful. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from snat_race.analysis.comparison import Arm, Compared, compare
from snat_race.results.model import Result
from snat_race.results.schema import ClientResult, LabResult, MergedResult, Summary

_MOST_UNEVEN = 0.1
_ENVIRONMENT = ("kernel", "machine", "cpus", "usable_cpus")
_LEAVE = frozenset({"seed", "variants", "rules", "nft", "watch_netns", "duration_s", "count"})


@dataclass(frozen=True, slots=True)
class Named:
    """A result that can be compared, and what people call it."""

    name: str
    result: ClientResult | LabResult | MergedResult


def compared(every: Sequence[Named]) -> Compared:
    """Compare each with the first: rule by rule where both measured the same rules, else with its
    first rule.
    """
    base, *others = every
    pairs = [pair for other in others for pair in _pairs(base, other)]
    return Compared(
        comparisons=[compare(*pair) for pair in pairs],
        doubts=list(
            dict.fromkeys([*_uneven(pairs), *(each for other in others for each in _unlike(base, other))])
        ),
    )


def _pairs(base: Named, other: Named) -> list[tuple[Arm, Arm]]:
    mine, theirs = _arms(base), _arms(other)
    if len(mine) > 1 and mine.keys() == theirs.keys():
        return [(mine[rule], theirs[rule]) for rule in mine]
    first = next(iter(mine.values()))
    return [(first, arm) for arm in theirs.values()]


def _arms(named: Named) -> dict[str, Arm]:
    """Return what was measured, by rule; a client has but one, of which nobody knows."""
    result = named.result
    if isinstance(result, LabResult):
        return {
            each.name: _arm(f"{named.name}, {each.name}", each.summary, each.periods)
            for each in result.variants
        }
    return {"": _arm(named.name, result.summary, result.periods)}


def _arm(name: str, summary: Summary, periods: Iterable[Summary]) -> Arm:
    """Take (lost, dialled) of each period, and of what came after the last."""
    found = [(each.failed, each.attempted - each.overruns) for each in periods]
    lost = summary.failed - sum(lost for lost, _ in found)
    dialled = summary.attempted - summary.overruns - sum(dialled for _, dialled in found)
    rest = [(lost, dialled)] if dialled > 0 and lost >= 0 else []
    return Arm(name, (*found, *rest), summary.attempted + summary.late)


def _uneven(pairs: Iterable[tuple[Arm, Arm]]) -> list[str]:
    return [
        f"{other.name}: {other.offered:,} dials were due, {base.offered:,} of the baseline: not the same "
        "amount of work. Compare runs of the same --count, or --duration."
        for base, other in pairs
        if abs(other.offered - base.offered) > _MOST_UNEVEN * base.offered
    ]


def _unlike(base: Named, other: Named) -> list[str]:
    one, two = base.result, other.result
    keys = [key for key in one.spec if key not in _LEAVE]
    return [
        *_differences(other.name, one.environment, two.environment, _ENVIRONMENT),
        *_differences(other.name, one.spec, two.spec, keys),
        *(
            f"{named.name}: of a single period, so drift of the machine does not show."
            for named in (base, other)
            if _single(named.result)
        ),
    ]


def _single(result: Result) -> bool:
    return isinstance(result, ClientResult | MergedResult) and len(result.periods) < 2


def _differences(name: str, one: dict[str, Any], two: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [
        f"{name}: {key} is {two.get(key)}, of the baseline {one.get(key)}."
        for key in keys
        if one.get(key) != two.get(key)
    ]
