"""What the kernel counted: conntrack per CPU, TcpExt, table fill. Snapshots and differences."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snat_race.errors import EnvironmentLacks
from snat_race.kernel.netns import Namespace
from snat_race.results.counters import ConntrackDelta, CounterDelta

CONNTRACK = (
    "insert_failed",
    "drop",
    "found",
    "invalid",
    "early_drop",
    "error",
    "search_restart",
    "clash_resolve",
    "chain_toolong",
)
# nf_conntrack_standalone.c has kept the old headings of columns that now hold something else.
_HEADINGS = {"clash_resolve": "clashres", "chain_toolong": "chainlength", "error": "icmp_error"}
_CONNTRACK_WRAPS = 1 << 32  # struct ip_conntrack_stat: unsigned int
_STAT = Path("/proc/thread-self/net/stat/nf_conntrack")
_NETSTAT, _SNMP = Path("/proc/thread-self/net/netstat"), Path("/proc/thread-self/net/snmp")
_SYSCTL = Path("/proc/sys/net/netfilter")
_MAX, _COUNT = _SYSCTL / "nf_conntrack_max", _SYSCTL / "nf_conntrack_count"

_OTHERS = (("Ip", "OutNoRoutes"), ("Icmp", "InDestUnreachs"), ("IpExt", "InNoRoutes"))

Reading = dict[str, list[int]]
"""Counter name -> its values: one per CPU for conntrack, a single one for TcpExt and Tcp."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All counters of a namespace; ``at_s`` is CLOCK_MONOTONIC."""

    conntrack: Reading
    tcp: Reading
    count: int
    max: int
    at_s: float

    def since(self, earlier: "Snapshot") -> "Snapshot":
        """Return how far the counters rose; the table's fill stays as it is, ``at_s`` is elapsed."""
        return Snapshot(
            rise(self.conntrack, earlier.conntrack, _CONNTRACK_WRAPS),
            {name: value for name, value in rise(self.tcp, earlier.tcp).items() if value[0] > 0},
            self.count,
            self.max,
            self.at_s - earlier.at_s,
        )


class Node:
    """A namespace whose counters are read again and again, by netlink or, failing that, from /proc.

    ``source`` says which; ``why_not_netlink`` is empty if it is netlink.

    Raises:
        EnvironmentLacks: neither works.

    """

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.source, self.why_not_netlink = "netlink", ""
        try:
            read_conntrack(namespace)
        except OSError as refused:
            self.source, self.why_not_netlink = "/proc/net/stat/nf_conntrack", str(refused.args[-1])
            self._require_proc()

    def read(self) -> Snapshot:
        """Read everything."""
        if not self.why_not_netlink:
            return read(self.namespace)
        with self.namespace.entered():
            conntrack = parse_stat(_STAT.read_text())
            fill = int(_COUNT.read_text()), int(_MAX.read_text())
        return Snapshot(conntrack, read_tcp(self.namespace), *fill, time.monotonic())

    def _require_proc(self) -> None:
        try:
            self.read()
        except OSError as failed:
            raise EnvironmentLacks(
                f"cannot read conntrack's counters: netlink says '{self.why_not_netlink}', and {_STAT}: "
                f"{failed.strerror}; use sudo, and 'sudo modprobe nf_conntrack' if nothing tracks here"
            ) from failed


def read(namespace: Namespace) -> Snapshot:
    """Read everything, conntrack's counters by netlink."""
    conntrack, fill = read_conntrack(namespace), read_fill(namespace)
    return Snapshot(conntrack, read_tcp(namespace), *fill, time.monotonic())


def tcp_only(tcp: Reading) -> Snapshot:
    """Return a snapshot of a namespace whose conntrack nobody reads."""
    return Snapshot({}, tcp, 0, 0, time.monotonic())


@contextmanager
def _conntrack(namespace: Namespace) -> Iterator[Any]:
    """Open conntrack's netlink socket in a namespace; what it refuses is an OSError."""
    # Here, because a client that watches nothing starts in three quarters of the time without.
    from pyroute2 import NFCTSocket
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with namespace.entered(), NFCTSocket() as netlink:
            yield netlink
    except NetlinkError as refused:
        raise OSError(*refused.args) from refused


def read_conntrack(namespace: Namespace) -> Reading:
    """Read what ``conntrack -S`` shows, by netlink, ordered by CPU."""
    with _conntrack(namespace) as netlink:
        rows = sorted(netlink.stat(), key=lambda row: int(row["res_id"]))
    return {
        name: [int(row.get_attr(f"CTA_STATS_{name.upper()}") or 0) for row in rows] for name in CONNTRACK
    }


def parse_stat(text: str) -> Reading:
    """Parse /proc/net/stat/nf_conntrack: a line of names, then one of hexadecimal numbers per CPU.

    Columns come and go with kernel versions; one that is not there reads 0.
    """
    header, *lines = text.splitlines()
    columns, rows = header.split(), [line.split() for line in lines]
    places = {name: columns.index(heading) for name in CONNTRACK if (heading := _heading(name)) in columns}
    return {
        name: [int(row[places[name]], 16) if name in places else 0 for row in rows] for name in CONNTRACK
    }


def _heading(name: str) -> str:
    return _HEADINGS.get(name, name)


def read_fill(namespace: Namespace) -> tuple[int, int]:
    """Return the number of conntrack entries and the most there may be."""
    with _conntrack(namespace) as netlink:
        (fill,) = netlink.count()
        return int(fill.get_attr("CTA_STATS_GLOBAL_ENTRIES")), int(_MAX.read_text())


def flush_conntrack(namespace: Namespace) -> None:
    """Delete every entry, so that one round's entries cannot meet the next round's SYNs."""
    with _conntrack(namespace) as netlink:
        netlink.flush()


def any_translated(namespace: Namespace) -> bool:
    """Whether any entry's reply goes to another address or port than its original came from."""
    with _conntrack(namespace) as netlink:
        return any(_source(entry) != _reply_target(entry) for entry in netlink.dump())


def _source(entry: Any) -> tuple[Any, ...]:  # noqa: ANN401 - pyroute2 is not typed
    return _end(entry.get_attr("CTA_TUPLE_ORIG"), "SRC")


def _reply_target(entry: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return _end(entry.get_attr("CTA_TUPLE_REPLY"), "DST")


def _end(tuple_: Any, side: str) -> tuple[Any, ...]:  # noqa: ANN401
    address, transport = tuple_.get_attr("CTA_TUPLE_IP"), tuple_.get_attr("CTA_TUPLE_PROTO")
    return (
        address.get_attr(f"CTA_IP_V4_{side}"),
        address.get_attr(f"CTA_IP_V6_{side}"),
        transport.get_attr(f"CTA_PROTO_{side}_PORT"),
    )


def read_tcp(namespace: Namespace) -> Reading:
    """Read the TcpExt and Tcp counters, by the names ``nstat`` uses without the prefix, and a
    few others with it.
    """
    with namespace.entered():
        text = _NETSTAT.read_text() + _SNMP.read_text()
    others = {f"{section}{name}": parse_netstat(text, section)[name] for section, name in _OTHERS}
    return parse_netstat(text, "TcpExt") | parse_netstat(text, "Tcp") | others


def parse_netstat(text: str, section: str) -> Reading:
    """Parse one section of /proc/net/netstat: a line of names, then a line of values."""
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith(f"{section}:"))
    return {name: [int(value)] for name, value in zip(names, values, strict=True)}


def rise(later: Reading, earlier: Reading, wraps: int = 0) -> Reading:
    """Return how far each counter rose; ``wraps``: where it starts again at 0, if it does."""
    return {
        name: [(b - a) % wraps if wraps else b - a for a, b in zip(earlier[name], later[name], strict=True)]
        for name in later
    }


def total(readings: Iterable[Reading]) -> Reading:
    """Add readings up, counter by counter and CPU by CPU."""
    summed: Reading = {}
    for reading in readings:
        for name, values in reading.items():
            summed[name] = [a + b for a, b in zip(summed.get(name, [0] * len(values)), values, strict=True)]
    return summed


def watched(netns: str, began_at: str, rise: Snapshot, inode: int = 0) -> CounterDelta:
    """Return a rise as results have it."""
    return CounterDelta(
        netns=netns,
        inode=inode,
        began_at=began_at,
        elapsed_s=round(rise.at_s, 6),
        conntrack=ConntrackDelta(**rise.conntrack, count=rise.count, max=rise.max)
        if rise.conntrack
        else None,
        tcp={name: values[0] for name, values in rise.tcp.items()},
    )
