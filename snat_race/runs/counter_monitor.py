"""Reads the counters of namespaces, lap by lap."""

import time
from collections.abc import Sequence

from snat_race.analysis.candidate_causes import exhausted_at_most
from snat_race.kernel import counters, netns_lookup
from snat_race.kernel.counters import Node, watched
from snat_race.kernel.host import utc_now
from snat_race.results.counters import CounterDelta, KernelCounters, conntrack_of, summed, total_of
from snat_race.results.nat import Nat

LAP_S = 0.5


class Watcher:
    """Several namespaces; ``lap()`` says what rose in each since the last call."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes, self._began_at = nodes, utc_now()
        self._before = [node.read() for node in nodes]

    def lap(self) -> list[CounterDelta]:
        """Return the rise in each namespace."""
        began_at, self._began_at = self._began_at, utc_now()
        now = [node.read() for node in self._nodes]
        risen = [
            watched(node.namespace.name, began_at, later.since(earlier), node.namespace.inode)
            for node, later, earlier in zip(self._nodes, now, self._before, strict=True)
        ]
        self._before = now
        return risen


class CounterMonitor:
    """The counters beside a run: those of ``nodes`` and, with ``own``, TCP's of our own namespace.

    ``exhausted``: how many of the clashes may be of a NAT without free ports, lap by lap. ``fault``: why
    nothing could be read any more, "" as long as it can.
    """

    def __init__(self, nodes: Sequence[Node], nat: Nat, *, own: bool = True) -> None:
        self._nat, self.exhausted, self.fault = nat, 0, ""
        here = netns_lookup.here()
        # Not twice, if it is watched anyway.
        known = any(netns_lookup.same(here, node.namespace) for node in nodes)
        self._own = here if own and not known else None
        self._own_before, self._own_rise = self._read_own(), counters.Reading()
        self._watcher, self._looked_s = Watcher(nodes), time.monotonic()
        self._fills = [0 for _ in nodes]
        self._period: list[CounterDelta] = []
        self._total: list[CounterDelta] = []

    def look(self) -> None:
        """Read the counters, unless that was only just done."""
        if time.monotonic() - self._looked_s >= LAP_S:
            self._look()

    def period(self) -> list[CounterDelta]:
        """Return the rises since the last call, one a namespace."""
        self._look()
        period, self._period = self._period, []
        return period

    @property
    def total(self) -> list[CounterDelta]:
        """The rises up to the last look, one a namespace."""
        return self._total

    def kernel(self) -> KernelCounters:
        """Return all that was counted up to the last look."""
        return KernelCounters(
            source=conntrack_of(self._total),
            exhausted=self.exhausted,
            source_tcp=summed(each.tcp for each in self._total),
            destination={},
            containers={name: values[0] for name, values in self._own_rise.items() if values[0] > 0},
        )

    def _look(self) -> None:
        self._looked_s = time.monotonic()
        if self.fault:
            return
        try:
            laps, own = self._watcher.lap(), self._read_own()
        except OSError as failed:
            self.fault = f"the counters could not be read any more ({failed.args[-1]})"
            return
        self._period, self._total = _added(self._period, laps), _added(self._total, laps)
        self._own_rise = counters.rise(own, self._own_before)
        for index, each in enumerate(laps):
            if each.conntrack:
                # What exhausts a search may have gone by the end of the lap.
                before, self._fills[index] = self._fills[index], each.conntrack.count
                fullest = each.conntrack.model_copy(update={"count": max(before, each.conntrack.count)})
                self.exhausted += exhausted_at_most(fullest, self._nat)

    def _read_own(self) -> counters.Reading:
        return counters.read_tcp(self._own) if self._own else {}


def _added(sums: list[CounterDelta], laps: list[CounterDelta]) -> list[CounterDelta]:
    """Add a lap of each namespace to its sum so far."""
    if not sums:
        return laps
    return [total_of(pair) or pair[1] for pair in zip(sums, laps, strict=True)]
