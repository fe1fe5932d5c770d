"""What the kernel counted while we looked: how far counters rose, never totals since boot."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from operator import attrgetter

from snat_race.results.model import Count, Instant, Model, Seconds

CONNTRACK_COUNTERS = (
    "insert_failed",
    "drop",
    "found",
    "clash_resolve",
    "chain_toolong",
    "early_drop",
    "invalid",
    "error",
    "search_restart",
)
"""Conntrack's counters, each kept per CPU, named as netlink's CTA_STATS_* attributes."""

CONNTRACK_LABELS = {"chain_toolong": "chaintoolong"}
"""What ``conntrack -S`` calls those that it gives another name."""

LOSS_COUNTERS = frozenset({"insert_failed", "drop", "chain_toolong"})
"""Conntrack's counters that rise when a packet is lost."""

TCP_COUNTERS = (
    "ListenOverflows",
    "ListenDrops",
    "TCPReqQFullDrop",
    "TCPReqQFullDoCookies",
    "SyncookiesSent",
    "PAWSActive",
    "PAWSEstab",
    "PAWSTimewait",
    "TCPACKSkippedTimeWait",
    "TCPSYNChallenge",
    "IPReversePathFilter",
    "TCPSynRetrans",
)
"""Counters of TcpExt that have to do with lost SYNs: those that are shown and exported."""


class ConntrackDelta(Model):
    """How far a namespace's conntrack counters rose, one number per CPU, and its table's fill."""

    insert_failed: list[Count]
    """Entries that could not be inserted: clashes, and hash chains that are too long."""
    drop: list[Count]
    """Packets dropped because their entry could not be made or inserted."""
    found: list[Count]
    """Ports that a NAT's search found taken, and entries looked up and found."""
    clash_resolve: list[Count]
    """Clashes of one flow's packets that were resolved, so that both passed."""
    chain_toolong: list[Count]
    """Entries not inserted because their hash chain was too long; insert_failed counts them too."""
    early_drop: list[Count]
    """Entries deleted to make room in a full table."""
    invalid: list[Count]
    """Packets that could not be tracked."""
    error: list[Count]
    """Packets with an error, most of them of ICMP."""
    search_restart: list[Count]
    """Look-ups repeated because the hash table was resized."""
    count: Count
    """Entries in the table at the end; of several periods, the most."""
    max: Count
    """Most entries that there may be; 0: not read."""


NOTHING = ConntrackDelta(**{name: [] for name in CONNTRACK_COUNTERS}, count=0, max=0)


class CounterDelta(Model):
    """How far one namespace's counters rose."""

    netns: str
    """Name of the namespace."""
    inode: Count = 0
    """Inode of the namespace, which identifies it whatever its name; 0: one of the lab's own."""
    began_at: Instant
    """Since when: UTC, ISO 8601."""
    elapsed_s: Seconds
    """For how many seconds."""
    conntrack: ConntrackDelta | None = None
    """Conntrack's counters; null: not read there."""
    tcp: dict[str, Count]
    """Counters of TcpExt, Tcp and a few others by name, only those that rose."""


class KernelCounters(Model):
    """How far the kernel's counters rose over a run, by where they were read."""

    source: ConntrackDelta | None
    """Conntrack where the NAT is; null: nobody read it."""
    exhausted: Count | None = None
    """How many clashes may be of a NAT without free ports; null: to be told from ``source``."""
    source_tcp: dict[str, Count] = {}
    """Counters of TcpExt, Tcp and others where the NAT is, only those that rose."""
    destination: dict[str, Count]
    """The same at the server."""
    containers: dict[str, Count]
    """The same where the dials come from."""

    @property
    def conntrack(self) -> ConntrackDelta:
        """What conntrack counted; nothing, if nobody read it."""
        return self.source or NOTHING

    @property
    def tcp(self) -> dict[str, int]:
        """The counters of TcpExt and Tcp of all hosts."""
        return summed((self.source_tcp, self.destination, self.containers))


def total_of(deltas: Iterable[CounterDelta]) -> CounterDelta | None:
    """Add the periods of one namespace up; None if there is none."""
    periods = list(deltas)
    if not periods:
        return None
    first = periods[0]
    return CounterDelta(
        netns=first.netns,
        inode=first.inode,
        began_at=first.began_at,
        elapsed_s=round(sum(period.elapsed_s for period in periods), 6),
        conntrack=conntrack_of(periods),
        tcp=summed(period.tcp for period in periods),
    )


def conntrack_of(deltas: Iterable[CounterDelta]) -> ConntrackDelta | None:
    """Add conntrack counters up, of several periods or namespaces; None if nobody read them."""
    read = [delta.conntrack for delta in deltas if delta.conntrack]
    if not read:
        return None
    per_cpu: dict[str, list[int]] = {}
    for name in CONNTRACK_COUNTERS:
        # Nodes differ in how many CPUs they have.
        columns = zip_longest(*map(attrgetter(name), read), fillvalue=0)
        per_cpu[name] = [*map(sum, columns)]
    return ConntrackDelta(
        **per_cpu,
        count=max(conntrack.count for conntrack in read),
        max=max(conntrack.max for conntrack in read),
    )


def summed(counters: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add counters up by name."""
    total: dict[str, int] = {}
    for counter in counters:
        for name, value in counter.items():
            total[name] = total.get(name, 0) + value
    return total


def kernel_counters(
    deltas: Sequence[CounterDelta],
    *,
    exhausted: int | None = None,
    containers: dict[str, int] | None = None,
) -> KernelCounters:
    """Return what was counted where the NAT is, added up over periods and namespaces.

    ``exhausted``: how many clashes may be of a NAT without free ports. ``containers``: counters of where
    the dials come from.
    """
    return KernelCounters(
        source=conntrack_of(deltas),
        exhausted=exhausted,
        source_tcp=summed(delta.tcp for delta in deltas),
        destination={},
        containers=containers or {},
    )
