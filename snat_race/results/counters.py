"""What the kernel counted while we looked: rises, never totals since boot."""

from collections.abc import Iterable
from itertools import zip_longest

from snat_race.results.model import Model

PER_CPU = (
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


class ConntrackDelta(Model):
    """Rise of a namespace's conntrack counters, one number per CPU, and the table's fill: ``count``
    at the end of a period, or the highest of those.
    """

    insert_failed: list[int]
    drop: list[int]
    found: list[int]
    clash_resolve: list[int]
    chain_toolong: list[int]
    early_drop: list[int]
    invalid: list[int]
    error: list[int]
    search_restart: list[int]
    count: int
    max: int


NOTHING = ConntrackDelta(**{name: [] for name in PER_CPU}, count=0, max=0)


class CounterDelta(Model):
    """Rise of one namespace's counters over ``elapsed_s`` from ``began_at`` on.

    ``tcp``: TcpExt and Tcp by name, only those that rose. ``conntrack`` None: not read there.
    ``inode``: the namespace, whatever it is called; 0: one of the lab's own.
    """

    netns: str
    inode: int = 0
    began_at: str
    elapsed_s: float
    conntrack: ConntrackDelta | None = None
    tcp: dict[str, int]


class KernelCounters(Model):
    """Rise of the kernel's counters over a run: conntrack where the NAT is, None if nobody looked
    there, and TcpExt and Tcp by name, only those that rose. ``exhausted``: how many clashes may be
    of a NAT without free ports, added up over the laps of the run; None: it was all one lap.
    """

    source: ConntrackDelta | None
    exhausted: int | None = None
    source_tcp: dict[str, int] = {}
    destination: dict[str, int]
    containers: dict[str, int]

    @property
    def conntrack(self) -> ConntrackDelta:
        """What conntrack counted; nothing, if nobody looked."""
        return self.source or NOTHING

    @property
    def tcp(self) -> dict[str, int]:
        """TcpExt and Tcp of all hosts."""
        return summed((self.source_tcp, self.destination, self.containers))


def total_of(periods: Iterable[CounterDelta]) -> CounterDelta | None:
    """Add the periods of one namespace up; None if there is none."""
    every = list(periods)
    if not every:
        return None
    return every[0].model_copy(
        update={
            "elapsed_s": round(sum(each.elapsed_s for each in every), 6),
            "conntrack": conntrack_of(every),
            "tcp": summed(each.tcp for each in every),
        }
    )


def conntrack_of(watched: Iterable[CounterDelta]) -> ConntrackDelta | None:
    """Add conntrack counters up, of several periods or namespaces; None if nobody read them."""
    every = [each.conntrack for each in watched if each.conntrack]
    if not every:
        return None
    per_cpu = {
        # Nodes differ in how many CPUs they have.
        name: [sum(column) for column in zip_longest(*(getattr(each, name) for each in every), fillvalue=0)]
        for name in PER_CPU
    }
    fill = max(each.count for each in every), max(each.max for each in every)
    return ConntrackDelta(**per_cpu, count=fill[0], max=fill[1])


def summed(counters: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add counters up by name."""
    total: dict[str, int] = {}
    for each in counters:
        for name, value in each.items():
            total[name] = total.get(name, 0) + value
    return total
