"""Reads the counters of namespaces, lap by lap."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from snat_race.analysis.node import ConntrackRise, Watched
from snat_race.kernel.counters import Node, Snapshot


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
            watched(node.namespace.name, began_at, later.since(earlier))
            for node, later, earlier in zip(self._nodes, now, self._before, strict=True)
        ]
        self._before = now
        return risen


def watched(netns: str, began_at: str, rise: Snapshot) -> Watched:
    """Return a rise as results have it."""
    return Watched(
        netns=netns,
        began_at=began_at,
        elapsed_s=round(rise.at_s, 6),
        conntrack=ConntrackRise(**rise.conntrack, count=rise.count, max=rise.max)
        if rise.conntrack
        else None,
        tcp={name: values[0] for name, values in rise.tcp.items()},
    )


def utc_now() -> str:
    """Return the time as results have it, to the millisecond."""
    text = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
