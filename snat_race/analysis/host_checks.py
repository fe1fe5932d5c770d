"""Whether a host loses SYNs, and whether a measurement on it would be clean. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from snat_race.results import kernels
from snat_race.results.findings import Check, Finding, Level, Value

_FULL_FROM = 0.8  # share of the conntrack table: above, it gets tight
_LONGEST_CHAIN = 4  # conntrack entries per bucket: above, a lookup gets slow
_FEWEST_PORTS = 8192
_FEWEST_FILES = 1024
_SHORTEST_BACKLOG = 1024
_STEADY_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen")
_MOST_RETRIES = 127  # MAX_TCP_SYNCNT in include/net/tcp.h
_NO_LIMIT = -1  # resource.RLIM_INFINITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What was read of a host."""

    kernel: tuple[int, ...]  # its version, as (6, 5, 13)
    sysctls: dict[str, str]  # by their full names; those that this kernel, or this namespace, has
    usable_cpus: int  # that this process may run on
    workers: int  # that are to dial; 0 is one per usable CPU
    open_files: tuple[int, int]  # soft and hard limit; -1 is none
    clock_source: str  # "" if the kernel does not say
    checksumming_vxlans: tuple[str, ...]  # VXLAN devices that leave checksums to the device below
    of_vendor: bool = False  # whether its kernel may have what kernel.org's of that version lacks
    # How many entries conntrack could not insert, and packets it dropped, so far; None: it does not say.
    clashes: tuple[int, int] | None = None
    dns_servers: int = 0  # to how many hosts DNAT sends the queries of one socket to UDP port 53

    def number(self, key: str) -> int:
        """Return a setting; 0 if this kernel, or this namespace, has none."""
        return int(self.sysctls.get(key, "0").split()[0])

    def conntrack(self, name: str) -> int:
        """Return a setting of conntrack; 0 if there is none."""
        return self.number(f"net.netfilter.nf_conntrack_{name}")


def checkup(host: Host) -> Iterator[Finding]:
    """Yield a finding for each thing that matters, good ones too."""
    yield _kernel(host)
    yield _retransmission(host)
    if host.clashes and host.conntrack("max"):
        insert_failed, drop = host.clashes
        yield _finding(Check.clashes, bad=insert_failed > 0, insert_failed=insert_failed, drop=drop)
    yield from _conntrack(host)
    yield from _ports(host)
    yield _backlog(host)
    yield _files(host)
    yield _cpus(host)
    yield _clock(host)
    if kernels.udp_clash_loses(host.kernel, servers=host.dns_servers) and host.dns_servers:
        yield _finding(Check.dns_clashes, bad=True, servers=host.dns_servers)
    if host.checksumming_vxlans:
        yield _vxlan(host)


def _finding(check: Check, *, bad: bool = False, **values: Value) -> Finding:
    level = Level.warning if bad else Level.ok
    return Finding(level=level, check=check, values=values)


def _kernel(host: Host) -> Finding:
    """Tell kernels that race more easily, or count otherwise, from those that do not."""
    differs = {
        "shared_search": not kernels.searches_from_random(host.kernel),
        "resolved_counted": (
            kernels.clashes_raise_drop(host.kernel)
            and not kernels.counts_resolved_clashes_apart(host.kernel)
        ),
        "drop_uncounted": not kernels.clashes_raise_drop(host.kernel),
    }
    return _finding(
        Check.kernel,
        bad=differs["shared_search"],
        version=".".join(map(str, host.kernel)),
        differs=[name for name, is_so in differs.items() if is_so],
    )


def _retransmission(host: Host) -> Finding:
    """Say when a lost SYN is sent again: some times after 1 s, then after doubled waits (ip-sysctl.rst)."""
    linear = min(host.number("net.ipv4.tcp_syn_linear_timeouts"), _MOST_RETRIES)
    waits = [1] * (linear + 1) + [2, 4, 8] if linear else [1, 2, 4, 8]
    return _finding(Check.syn_retransmission, waits_s=waits)


def _conntrack(host: Host) -> Iterator[Finding]:
    most = host.conntrack("max")
    entries = host.conntrack("count")
    buckets = host.conntrack("buckets")
    if not most:
        yield _finding(Check.conntrack)
        return
    yield _finding(
        Check.conntrack_table,
        bad=entries > _FULL_FROM * most,
        entries=entries,
        max=most,
        advised_max=2 * most,
    )
    yield _finding(
        Check.conntrack_buckets,
        bad=0 < _LONGEST_CHAIN * buckets < most,
        buckets=buckets,
        max=most,
    )
    yield _finding(
        Check.conntrack_timeouts,
        close_s=host.conntrack("tcp_timeout_close"),
        time_wait_s=host.conntrack("tcp_timeout_time_wait"),
        established_s=host.conntrack("tcp_timeout_established"),
    )


def _ports(host: Host) -> Iterator[Finding]:
    ports = [int(word) for word in host.sysctls.get("net.ipv4.ip_local_port_range", "").split()]
    if len(ports) == 2:
        low, high = ports
        yield _finding(Check.client_ports, bad=high - low + 1 < _FEWEST_PORTS, low=low, high=high)


def _backlog(host: Host) -> Finding:
    longest = host.number("net.core.somaxconn")
    return _finding(Check.accept_queue, bad=longest < _SHORTEST_BACKLOG, somaxconn=longest)


def _files(host: Host) -> Finding:
    soft, hard = host.open_files
    too_few = hard != _NO_LIMIT and hard < _FEWEST_FILES
    return _finding(Check.open_files, bad=too_few, soft=soft, hard=hard)


def _cpus(host: Host) -> Finding:
    usable = host.usable_cpus
    workers = host.workers or usable
    return _finding(Check.cpus, bad=usable < 2 or workers > usable, usable=usable, workers=workers)


def _clock(host: Host) -> Finding:
    name = host.clock_source
    slow = bool(name) and not name.startswith(_STEADY_CLOCKS)
    return _finding(Check.clock_source, bad=slow, name=name)


def _vxlan(host: Host) -> Finding:
    mended = kernels.mends_vxlan_checksums(host.kernel)
    return _finding(
        Check.vxlan_checksum_offload,
        bad=not mended,
        devices=list(host.checksumming_vxlans),
        of_vendor=int(host.of_vendor),
    )
