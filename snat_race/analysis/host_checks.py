"""Whether a host loses SYNs, and whether a measurement on it would be clean. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from snat_race.results.findings import Check, Finding, Level, Value

_FULL_FROM = 0.8  # share of the conntrack table: above, it gets tight
_LONGEST_CHAIN = 4  # conntrack entries per bucket: above, a lookup gets slow
_FEWEST_PORTS = 8192
_FEWEST_FILES = 1024
_SHORTEST_BACKLOG = 1024
_FIRST_RANDOM_KERNEL = (5, 0)
_STEADY_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen")
# The stable kernels that first had the fix for checksums of encapsulated packets that a NAT gave a
# random port (kubernetes/kubernetes#88986).
_VXLAN_MENDED_SINCE = (5, 6, 13)
_VXLAN_MENDED_IN = ((5, 4, 41), (4, 19, 123))
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
    yield from _conntrack(host)
    yield from _ports(host)
    yield _backlog(host)
    yield _files(host)
    yield _cpus(host)
    yield _clock(host)
    if host.checksumming_vxlans:
        yield _vxlan(host)


def _finding(check: Check, *, bad: bool = False, **values: Value) -> Finding:
    level = Level.warning if bad else Level.ok
    return Finding(level=level, check=check, values=values)


def _kernel(host: Host) -> Finding:
    """Tell old kernels: before 5.0, the search for a free port went on from a counter that racing
    clients shared; since then it begins at a random offset (nf_nat_l4proto_unique_tuple()).
    """
    version = ".".join(map(str, host.kernel))
    return _finding(Check.kernel, bad=host.kernel < _FIRST_RANDOM_KERNEL, version=version)


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
    mended = host.kernel >= _VXLAN_MENDED_SINCE or any(
        host.kernel[:2] == version[:2] and host.kernel >= version for version in _VXLAN_MENDED_IN
    )
    devices = list(host.checksumming_vxlans)
    return _finding(Check.vxlan_checksum_offload, bad=not mended, devices=devices)
