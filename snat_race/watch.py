"""One run of ``watch``: a node's counters, period by period -> a result."""

import time
from collections.abc import Callable
from typing import Any

from snat_race.analysis.node import Watched
from snat_race.analysis.result import Started, WatchResult
from snat_race.analysis.suspects import of_node
from snat_race.interrupt import Interrupt
from snat_race.kernel import places
from snat_race.kernel.counters import Node
from snat_race.options import WatchOptions
from snat_race.record import Record
from snat_race.translation import nat_of, rules_for
from snat_race.watcher import LAP_S, Beside

Observer = Callable[[Watched], None]
Begun = Callable[[Started], None]


def run(
    options: WatchOptions, node: Node, observer: Observer, *, keep: bool, started: Begun = lambda _: None
) -> tuple[WatchResult, str]:
    """Watch until the duration is over, or a signal comes; then too, the last period is told.

    ``keep`` the periods for the result; otherwise it has only their total, however long this runs.
    Returns the result and why it ended before its time, "" if it did not.
    """
    record, began_s = Record(), time.monotonic()
    nat = nat_of(rules_for([node.namespace]), 0)
    periods, fault = list[Watched](), ""
    with Interrupt() as interrupt:
        beside = Beside([node], nat, own=False)
        head: dict[str, Any] = {"spec": options.spec(), "nat": nat, "counters_from": node.source}
        started(Started(kind="watch", **record.fields(), **head))
        over_s = began_s + (options.duration_s or float("inf"))
        due_s = began_s
        while not interrupt.requested and time.monotonic() < over_s:
            # After a pause, of the machine say, no laps are made up for.
            due_s = max(due_s, time.monotonic() - options.interval_s) + options.interval_s
            _wait(min(due_s, over_s), interrupt, beside, node)
            for lap in beside.period():
                if keep:
                    periods.append(lap)
                observer(lap)
            if fault := beside.fault or places.gone(node.namespace):
                break
    result = WatchResult(
        **record.fields(),
        spec=options.spec(),
        counters_from=node.source,
        periods=periods,
        total=next(iter(beside.total), None),
        nat=nat,
        exhausted=beside.exhausted,
        suspects=of_node(beside.kernel(), nat),
    )
    return result, fault


def _wait(until_s: float, interrupt: Interrupt, beside: Beside, node: Node) -> None:
    """Wait, but read the counters meanwhile: the shorter a lap, the more it tells."""
    while not interrupt.wait(min(until_s, time.monotonic() + LAP_S) - time.monotonic()):
        if time.monotonic() >= until_s or places.gone(node.namespace):
            return
        beside.look()
