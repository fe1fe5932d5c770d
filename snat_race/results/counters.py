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


_counters_of = attrgetter(*CONNTRACK_COUNTERS)

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


class ConntrackSum:
    """Adds up conntrack counters as they come, of several periods or namespaces; it holds none of them."""

    def __init__(self, first: ConntrackDelta) -> None:
        self._per_cpu = [*_counters_of(first)]
        self._count = first.count
        self._max = first.max

    def add(self, delta: ConntrackDelta) -> None:
        """Add what was counted."""
        for at, counts in enumerate(_counters_of(delta)):
            so_far = self._per_cpu[at]
            # Nodes differ in how many CPUs they have. Of most counters, nothing was counted.
            if any(counts) or len(counts) > len(so_far):
                self._per_cpu[at] = [one + other for one, other in zip_longest(so_far, counts, fillvalue=0)]
        self._count = max(self._count, delta.count)
        self._max = max(self._max, delta.max)

    def total(self) -> ConntrackDelta:
        """Return what was counted in all."""
        per_cpu = dict(zip(CONNTRACK_COUNTERS, self._per_cpu, strict=True))
        return ConntrackDelta(**per_cpu, count=self._count, max=self._max)


class CounterSum:
    """Adds up the periods of one namespace as they come; it holds none of them but the first."""

    def __init__(self, first: CounterDelta) -> None:
        self._first = first
        self._is_one = True
        self._elapsed_s = first.elapsed_s
        self._conntrack = ConntrackSum(first.conntrack) if first.conntrack else None
        self._tcp = dict(first.tcp)

    def add(self, period: CounterDelta) -> None:
        """Add the next period."""
        self._is_one = False
        self._elapsed_s += period.elapsed_s
        _add_to(self._tcp, period.tcp)
        if not period.conntrack:
            return
        if self._conntrack:
            self._conntrack.add(period.conntrack)
        else:
            self._conntrack = ConntrackSum(period.conntrack)

    def total(self) -> CounterDelta:
        """Return what was counted in all; of one period, itself."""
        if self._is_one:
            return self._first
        return CounterDelta(
            netns=self._first.netns,
            inode=self._first.inode,
            began_at=self._first.began_at,
            elapsed_s=round(self._elapsed_s, 6),
            conntrack=self._conntrack.total() if self._conntrack else None,
            tcp=dict(self._tcp),
        )


def total_of(deltas: Iterable[CounterDelta]) -> CounterDelta | None:
    """Add the periods of one namespace up; None if there is none."""
    periods = iter(deltas)
    first = next(periods, None)
    if not first:
        return None
    total = CounterSum(first)
    for period in periods:
        total.add(period)
    return total.total()


def conntrack_of(deltas: Iterable[CounterDelta]) -> ConntrackDelta | None:
    """Add conntrack counters up, of several periods or namespaces; None if nobody read them."""
    read = (delta.conntrack for delta in deltas if delta.conntrack)
    first = next(read, None)
    if not first:
        return None
    total = ConntrackSum(first)
    for conntrack in read:
        total.add(conntrack)
    return total.total()


def summed(counters: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add counters up by name."""
    total: dict[str, int] = {}
    for counter in counters:
        _add_to(total, counter)
    return total


def _add_to(total: dict[str, int], counter: dict[str, int]) -> None:
    for name, value in counter.items():
        total[name] = total.get(name, 0) + value


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
