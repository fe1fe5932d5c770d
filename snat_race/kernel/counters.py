"""What the kernel counted: conntrack per CPU, TcpExt, table fill. Snapshots and differences."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyroute2 import NFCTSocket

from snat_race.kernel.namespaces import Namespace

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
_NETSTAT, _SNMP = Path("/proc/self/net/netstat"), Path("/proc/self/net/snmp")
_MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")

Reading = dict[str, list[int]]
"""Counter name -> its values: one per CPU for conntrack, a single one for TcpExt and Tcp."""


def read_conntrack(namespace: Namespace) -> Reading:
    """Read what ``conntrack -S`` shows, by netlink, ordered by CPU."""
    with namespace.entered(), NFCTSocket() as netlink:
        rows = sorted(netlink.stat(), key=lambda row: int(row["res_id"]))
    return {
        name: [int(row.get_attr(f"CTA_STATS_{name.upper()}") or 0) for row in rows] for name in CONNTRACK
    }


def read_fill(namespace: Namespace) -> tuple[int, int]:
    """Return the number of conntrack entries and the most there may be."""
    with namespace.entered(), NFCTSocket() as netlink:
        (fill,) = netlink.count()
        return int(fill.get_attr("CTA_STATS_GLOBAL_ENTRIES")), int(_MAX.read_text())


def flush_conntrack(namespace: Namespace) -> None:
    """Delete every entry, so that one round's entries cannot meet the next round's SYNs."""
    with namespace.entered(), NFCTSocket() as netlink:
        netlink.flush()


def any_translated(namespace: Namespace) -> bool:
    """Whether any entry's reply goes to another address or port than its original came from."""
    with namespace.entered(), NFCTSocket() as netlink:
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
    """Read the TcpExt and Tcp counters, by the names ``nstat`` uses without the prefix."""
    with namespace.entered():
        return parse_netstat(_NETSTAT.read_text(), "TcpExt") | parse_netstat(_SNMP.read_text(), "Tcp")


def parse_netstat(text: str, section: str) -> Reading:
    """Parse one section of /proc/net/netstat: a line of names, then a line of values."""
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith(f"{section}:"))
    return {name: [int(value)] for name, value in zip(names, values, strict=True)}


def rise(later: Reading, earlier: Reading) -> Reading:
    """Return how far each counter rose."""
    return {name: [b - a for a, b in zip(earlier[name], later[name], strict=True)] for name in later}


def total(readings: Iterable[Reading]) -> Reading:
    """Add readings up, counter by counter and CPU by CPU."""
    summed: Reading = {}
    for reading in readings:
        for name, values in reading.items():
            summed[name] = [a + b for a, b in zip(summed.get(name, [0] * len(values)), values, strict=True)]
    return summed
