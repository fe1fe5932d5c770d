"""One run of ``watch``: a node's counters, period by period -> a result."""

import time
from collections.abc import Callable
from typing import Any

from snat_race.analysis.candidate_causes import of_node
from snat_race.kernel import netns_lookup
from snat_race.kernel.counters import Node
from snat_race.results.counters import CounterDelta
from snat_race.results.schema import Started, WatchResult
from snat_race.runs.counter_monitor import LAP_S, CounterMonitor
from snat_race.runs.nat_properties import nat_of, rules_for
from snat_race.runs.run_metadata import RunMetadata
from snat_race.runs.settings import WatchSettings
from snat_race.runs.signals import StopSignals

Observer = Callable[[CounterDelta], None]
Begun = Callable[[Started], None]


def run(
    settings: WatchSettings, node: Node, observer: Observer, *, keep: bool, started: Begun = lambda _: None
) -> tuple[WatchResult, str]:
    """Watch until the duration is over, or a signal comes; then too, the last period is told.

    ``keep`` the periods for the result; otherwise it has only their total, however long this runs.
    Returns the result and why it ended before its time, "" if it did not.
    """
    record, began_s = RunMetadata(), time.monotonic()
    nat = nat_of(rules_for([node.namespace]), 0)
    periods, fault = list[CounterDelta](), ""
    with StopSignals() as interrupt:
        beside = CounterMonitor([node], nat, own=False)
        head: dict[str, Any] = {"spec": settings.spec(), "nat": nat, "counters_from": node.source}
        started(Started(kind="watch", **record.fields(), **head))
        over_s = began_s + (settings.duration_s or float("inf"))
        due_s = began_s
        while not interrupt.requested and time.monotonic() < over_s:
            # After a pause, of the machine say, no laps are made up for.
            due_s = max(due_s, time.monotonic() - settings.interval_s) + settings.interval_s
            _wait(min(due_s, over_s), interrupt, beside, node)
            for lap in beside.period():
                if keep:
                    periods.append(lap)
                observer(lap)
            if fault := beside.fault or netns_lookup.gone(node.namespace):
                break
    result = WatchResult(
        **record.fields(),
        spec=settings.spec(),
        counters_from=node.source,
        periods=periods,
        total=next(iter(beside.total), None),
        nat=nat,
        exhausted=beside.exhausted,
        suspects=of_node(beside.kernel(), nat),
    )
    return result, fault


def _wait(until_s: float, interrupt: StopSignals, beside: CounterMonitor, node: Node) -> None:
    """Wait, but read the counters meanwhile: the shorter a lap, the more it tells."""
    while not interrupt.wait(min(until_s, time.monotonic() + LAP_S) - time.monotonic()):
        if time.monotonic() >= until_s or netns_lookup.gone(node.namespace):
            return
        beside.look()
