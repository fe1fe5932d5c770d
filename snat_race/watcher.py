"""Reads the counters of namespaces, lap by lap."""

import time
from collections.abc import Sequence

from snat_race.analysis.node import ConntrackRise, Kernel, Watched, conntrack_of, summed, total_of
from snat_race.analysis.suspects import Nat, exhausted_at_most
from snat_race.kernel import counters, places
from snat_race.kernel.counters import Node, Snapshot
from snat_race.record import utc_now

LAP_S = 0.5


class Watcher:
    """Several namespaces; ``lap()`` says what rose in each since the last call."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes, self._began_at = nodes, utc_now()
        self._before = [node.read() for node in nodes]

    def lap(self) -> list[Watched]:
        """Return the rise in each namespace."""
        began_at, self._began_at = self._began_at, utc_now()
        now = [node.read() for node in self._nodes]
        risen = [
            watched(node.namespace.name, began_at, later.since(earlier), node.namespace.inode)
            for node, later, earlier in zip(self._nodes, now, self._before, strict=True)
        ]
        self._before = now
        return risen


class Beside:
    """The counters beside a run: those of ``nodes`` and, with ``own``, TCP's of our own namespace.

    ``exhausted``: how many of the clashes may be of a NAT without free ports, lap by lap. ``fault``: why
    nothing could be read any more, "" as long as it can.
    """

    def __init__(self, nodes: Sequence[Node], nat: Nat, *, own: bool = True) -> None:
        self._nat, self.exhausted, self.fault = nat, 0, ""
        here = places.here()
        # Not twice, if it is watched anyway.
        watched = any(places.same(here, node.namespace) for node in nodes)
        self._own = here if own and not watched else None
        self._own_before, self._own_rise = self._read_own(), counters.Reading()
        self._watcher, self._looked_s = Watcher(nodes), time.monotonic()
        self._fills = [0 for _ in nodes]
        self._period: list[Watched] = []
        self._total: list[Watched] = []

    def look(self) -> None:
        """Read the counters, unless that was only just done."""
        if time.monotonic() - self._looked_s >= LAP_S:
            self._look()

    def period(self) -> list[Watched]:
        """Return the rises since the last call, one a namespace."""
        self._look()
        period, self._period = self._period, []
        return period

    @property
    def total(self) -> list[Watched]:
        """The rises up to the last look, one a namespace."""
        return self._total

    def kernel(self) -> Kernel:
        """Return all that was counted up to the last look."""
        return Kernel(
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


def _added(sums: list[Watched], laps: list[Watched]) -> list[Watched]:
    """Add a lap of each namespace to its sum so far."""
    if not sums:
        return laps
    return [total_of(pair) or pair[1] for pair in zip(sums, laps, strict=True)]


def watched(netns: str, began_at: str, rise: Snapshot, inode: int = 0) -> Watched:
    """Return a rise as results have it."""
    return Watched(
        netns=netns,
        inode=inode,
        began_at=began_at,
        elapsed_s=round(rise.at_s, 6),
        conntrack=ConntrackRise(**rise.conntrack, count=rise.count, max=rise.max)
        if rise.conntrack
        else None,
        tcp={name: values[0] for name, values in rise.tcp.items()},
    )
