"""What the kernel counted: conntrack per CPU, TcpExt, table fill. Snapshots and differences."""

import errno
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snat_race.errors import EnvironmentLacks
from snat_race.kernel import host
from snat_race.kernel.host import utc_now
from snat_race.kernel.netns import Namespace
from snat_race.results.counters import CONNTRACK_COUNTERS, ConntrackDelta, CounterDelta

# /proc/net/stat/nf_conntrack has kept the old headings of columns that now hold something else:
# ct_cpu_seq_show() in net/netfilter/nf_conntrack_standalone.c.
_HEADINGS = {"clash_resolve": "clashres", "chain_toolong": "chainlength", "error": "icmp_error"}
_CONNTRACK_WRAPS_AT = 1 << 32  # struct ip_conntrack_stat: unsigned int
_STAT = Path("/proc/thread-self/net/stat/nf_conntrack")
_NETSTAT, _SNMP = Path("/proc/thread-self/net/netstat"), Path("/proc/thread-self/net/snmp")
_DECIMAL = re.compile(r"-?[0-9]{1,20}")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{1,16}")
_SYSCTL = Path("/proc/sys/net/netfilter")
_MAX, _COUNT = _SYSCTL / "nf_conntrack_max", _SYSCTL / "nf_conntrack_count"
# Any of them shows that conntrack is loaded, or built in; the settings are not in each namespace.
_LOADED = (Path("/sys/module/nf_conntrack"), _MAX)

# Counters outside TcpExt and Tcp that explain a loss too. Their names get their section as a prefix.
_OTHERS = (("Ip", "OutNoRoutes"), ("Icmp", "InDestUnreachs"), ("IpExt", "InNoRoutes"))

Reading = dict[str, list[int]]
"""Counter name -> its values: one per CPU for conntrack, a single one for TcpExt and Tcp."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """All counters of a namespace at one time: totals since the namespace, or the host, came up."""

    # conntrack's counters, one value per CPU; empty if nobody reads them in this namespace.
    conntrack: Reading
    # TcpExt, Tcp and a few others, one value each.
    tcp: Reading
    # Entries in the conntrack table now.
    count: int
    # The most entries that the table may have.
    max: int
    # When it was taken: UTC, as results have times, and CLOCK_MONOTONIC in seconds.
    taken_at: str = field(default_factory=utc_now)
    taken_s: float = field(default_factory=time.monotonic)

    def since(self, earlier: "Snapshot", *, netns: str, inode: int = 0) -> CounterDelta:
        """Return how far the counters rose since ``earlier``, as results have it.

        Args:
            earlier: a snapshot of the same namespace.
            netns: the name of the namespace.
            inode: the number of the namespace; 0 for one of the lab's own.

        """
        conntrack = None
        if self.conntrack:
            counted = difference(self.conntrack, earlier.conntrack, _CONNTRACK_WRAPS_AT)
            conntrack = ConntrackDelta(**counted, count=self.count, max=self.max)
        tcp = {name: values[0] for name, values in difference(self.tcp, earlier.tcp).items()}
        return CounterDelta(
            netns=netns,
            inode=inode,
            began_at=earlier.taken_at,
            elapsed_s=round(self.taken_s - earlier.taken_s, 6),
            conntrack=conntrack,
            tcp={name: value for name, value in tcp.items() if value > 0},
        )


class CounterReader:
    """Reads the counters of a namespace again and again, by netlink or, failing that, from /proc.

    Attributes:
        namespace: whose counters these are.
        read_from: "netlink", or the file that is read in its place.
        netlink_refusal: why netlink cannot be used, in the kernel's words; None if it is used.

    Raises:
        EnvironmentLacks: neither works.

    """

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.read_from = "netlink"
        self.netlink_refusal: str | None = None
        try:
            read_conntrack(namespace)
        except (OSError, EnvironmentLacks) as refused:
            self.read_from = "/proc/net/stat/nf_conntrack"
            self.netlink_refusal = str(refused.args[-1])
            self._refused_for = getattr(refused, "errno", None)
            self._require_proc()

    def read(self) -> Snapshot:
        """Read all counters.

        Raises:
            OSError: they cannot be read any more.
            EnvironmentLacks: they read like nothing that is known here.

        """
        return self._read_proc() if self.netlink_refusal else read(self.namespace)

    def _read_proc(self) -> Snapshot:
        with self.namespace.entered():
            conntrack = parse_stat(host.proc_text(_STAT))
            count, most = parse_number(_COUNT), parse_number(_MAX)
        tcp = read_tcp(self.namespace)
        return Snapshot(conntrack=conntrack, tcp=tcp, count=count, max=most)

    def _require_proc(self) -> None:
        try:
            self._read_proc()
        except (OSError, EnvironmentLacks) as failed:
            said = f"{failed.filename}: {failed.strerror}" if isinstance(failed, OSError) else str(failed)
            absent = isinstance(failed, FileNotFoundError) and failed.filename == str(_STAT)
            raise EnvironmentLacks(
                f"cannot read conntrack's counters: netlink says '{self.netlink_refusal}', and {said}; "
                f"{self._remedy(absent=absent)}"
            ) from failed

    def _remedy(self, *, absent: bool) -> str:
        """Return what is missing, and how to get it; ``absent``: there is no file to read.

        Netlink takes CAP_NET_ADMIN in the user namespace that owns the network namespace
        (nfnetlink_rcv() in net/netfilter/nfnetlink.c). The file takes no privilege, but
        CONFIG_NF_CONNTRACK_PROCFS, which many kernels lack.
        """
        if not any(path.exists() for path in _LOADED):
            return "nothing seems to track connections here: 'sudo modprobe nf_conntrack', then use sudo"
        if self._refused_for != errno.EPERM:
            return "conntrack is loaded, but not what answers: 'sudo modprobe nf_conntrack_netlink'"
        lacks = "this kernel has no such file (CONFIG_NF_CONNTRACK_PROCFS), and " if absent else ""
        return (
            f"conntrack is loaded, but {lacks}netlink takes CAP_NET_ADMIN: use sudo; in a container "
            "--cap-add NET_ADMIN, and --user 0 if it needs that"
        )


def read(namespace: Namespace) -> Snapshot:
    """Read all counters, conntrack's by netlink.

    Raises:
        OSError: netlink refuses; it takes CAP_NET_ADMIN in the namespace's user namespace.

    """
    conntrack = read_conntrack(namespace)
    count, most = read_fill(namespace)
    tcp = read_tcp(namespace)
    return Snapshot(conntrack=conntrack, tcp=tcp, count=count, max=most)


def tcp_only(tcp: Reading) -> Snapshot:
    """Return a snapshot of a namespace whose conntrack nobody reads."""
    return Snapshot(conntrack={}, tcp=tcp, count=0, max=0)


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
    """Read what ``conntrack -S`` shows, by netlink, ordered by CPU; OSError as for :func:`read`."""
    with _conntrack(namespace) as netlink:
        rows = sorted(netlink.stat(), key=lambda row: int(row.get("res_id", 0)))
    return parse_netlink_stat(rows)


def parse_netlink_stat(rows: Sequence[Any]) -> Reading:
    """Return the counters of netlink's replies, one for each CPU; one that a kernel lacks reads 0.

    Raises:
        EnvironmentLacks: they do not even tell failed inserts, so they would tell of no loss.

    """
    of_rows = [{name: _attribute(row, name) for name in CONNTRACK_COUNTERS} for row in rows]
    if not rows or any(counted["insert_failed"] is None for counted in of_rows):
        raise EnvironmentLacks(
            "netlink's counters of conntrack could not be read: no insert_failed in them"
        )
    return {name: [counted[name] or 0 for counted in of_rows] for name in CONNTRACK_COUNTERS}


def _attribute(row: Any, name: str) -> int | None:  # noqa: ANN401 - pyroute2 is not typed
    value = row.get_attr(f"CTA_STATS_{name.upper()}")
    return value if isinstance(value, int) else None


def parse_stat(text: str) -> Reading:
    """Parse /proc/net/stat/nf_conntrack: a line of names, then one of hexadecimal numbers per CPU.

    Columns come and go with kernel versions; one that is not there reads 0.

    Raises:
        EnvironmentLacks: it is something else.

    """
    headings, *rows = [line.split() for line in text.splitlines()] or [[]]
    column_of = {heading: column for column, heading in enumerate(headings)}
    if "insert_failed" not in column_of or not rows:
        raise _unreadable(_STAT, "no insert_failed in its heading, or no line below that")
    for number, row in enumerate(rows, 2):
        if len(row) != len(headings) or not all(map(_HEXADECIMAL.fullmatch, row)):
            raise _unreadable(_STAT, f"line {number} does not hold {len(headings)} hexadecimal numbers")
    reading: Reading = {}
    for name in CONNTRACK_COUNTERS:
        column = column_of.get(_HEADINGS.get(name, name))
        reading[name] = [0 if column is None else int(row[column], 16) for row in rows]
    return reading


def _unreadable(path: Path, why: str) -> EnvironmentLacks:
    return EnvironmentLacks(f"{path} could not be read: {why}")


def read_fill(namespace: Namespace) -> tuple[int, int]:
    """Return the number of conntrack entries and the most there may be; OSError as for :func:`read`."""
    with _conntrack(namespace) as netlink:
        entries = [fill.get_attr("CTA_STATS_GLOBAL_ENTRIES") for fill in netlink.count()]
        if len(entries) != 1 or not isinstance(entries[0], int):
            raise EnvironmentLacks("netlink does not tell how many entries conntrack has")
        return entries[0], parse_number(_MAX)


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
    """Return the addresses (IPv4, IPv6) and the port of one end of a connection."""
    address = tuple_.get_attr("CTA_TUPLE_IP")
    transport = tuple_.get_attr("CTA_TUPLE_PROTO")
    return (
        address.get_attr(f"CTA_IP_V4_{side}"),
        address.get_attr(f"CTA_IP_V6_{side}"),
        transport.get_attr(f"CTA_PROTO_{side}_PORT"),
    )


def read_tcp(namespace: Namespace) -> Reading:
    """Read the TcpExt and Tcp counters by the names that ``nstat`` prints, without the prefix.

    A few of other sections come with them, with the prefix.
    """
    with namespace.entered():
        return parse_tcp(f"{host.proc_text(_NETSTAT)}\n{host.proc_text(_SNMP)}")


def parse_tcp(text: str) -> Reading:
    """Parse /proc/net/netstat and /proc/net/snmp: see :func:`read_tcp`. A counter that this kernel lacks
    is left out.

    Raises:
        EnvironmentLacks: the names and the values of a section do not match.

    """
    reading = parse_netstat(text, "TcpExt") | parse_netstat(text, "Tcp")
    for section, name in _OTHERS:
        if name in (others := parse_netstat(text, section)):
            reading[f"{section}{name}"] = others[name]
    return reading


def parse_netstat(text: str, section: str) -> Reading:
    """Parse one section: a line of names, then a line of values. No section: no counters."""
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith(f"{section}:")]
    if not lines:
        return {}
    names, values = lines if len(lines) == 2 else (lines[0], [])
    if len(names) != len(values) or not all(map(_DECIMAL.fullmatch, values)):
        raise _unreadable(_NETSTAT, f"its section {section} is no line of names and one of as many numbers")
    return {name: [int(value)] for name, value in zip(names, values, strict=True)}


def parse_number(path: Path) -> int:
    """Return the number that a file of /proc/sys holds.

    Raises:
        OSError: there is no such file, or it may not be read.
        EnvironmentLacks: it holds something else.

    """
    text = host.proc_text(path).strip()
    if not _DECIMAL.fullmatch(text):
        raise _unreadable(path, "it holds no number")
    return int(text)


def difference(later: Reading, earlier: Reading, wraps_at: int = 0) -> Reading:
    """Return how far each counter rose; ``wraps_at``: where it starts again at 0, 0 if it never does.

    Raises:
        EnvironmentLacks: there are other counters now, or of another number of CPUs.

    """
    counted: Reading = {}
    for name, values in later.items():
        before = earlier.get(name, [])
        if len(before) != len(values):
            raise EnvironmentLacks(
                f"the counter {name} was of {len(before)} CPUs, and is of {len(values)} now"
            )
        counted[name] = [
            (now - then) % wraps_at if wraps_at else now - then
            for then, now in zip(before, values, strict=True)
        ]
    return counted


def added(readings: Iterable[Reading]) -> Reading:
    """Add readings up, counter by counter and CPU by CPU."""
    sums: Reading = {}
    for reading in readings:
        for name, values in reading.items():
            sums[name] = [a + b for a, b in zip(sums.get(name, [0] * len(values)), values, strict=True)]
    return sums
