"""Whether a host loses SYNs, and whether a measurement on it would be clean. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from snat_race.results.findings import Finding, Level

_FILLED, _CHAINED = 0.8, 4  # share of the table, entries a bucket: before it gets tight
_FEWEST_PORTS, _FEWEST_FILES, _SHORTEST_BACKLOG = 8192, 1024, 1024
_STEADY_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen")
# Kernels with the fix for checksums of encapsulated packets that a NAT gave a random port.
_VXLAN_MENDED = ((5, 6, 13), (5, 4, 41), (4, 19, 123))


@dataclass(frozen=True, slots=True)
class Host:
    """What was read of a host. ``workers``: how many dialers it is to run, 0 if nobody said."""

    kernel: tuple[int, ...]
    sysctls: dict[str, str]
    usable_cpus: int
    workers: int
    open_files: tuple[int, int]
    clock_source: str
    checksumming_vxlans: tuple[str, ...]

    def number(self, key: str) -> int:
        """Return a setting; 0 if this kernel, or this namespace, has none."""
        return int(self.sysctls.get(key, "0"))


def checkup(host: Host) -> Iterator[Finding]:
    """Yield a finding for each thing that matters, good ones too."""
    yield _kernel(host)
    yield _retransmission(host)
    yield from _conntrack(host)
    yield _ports(host)
    yield _backlog(host)
    yield _files(host)
    yield _cpus(host)
    yield _clock(host)
    if host.checksumming_vxlans:
        yield _vxlan(host)


def _finding(bad: bool, check: str, evidence: str, advice: str, level: Level = "warning") -> Finding:
    return Finding(
        level=level if bad else "ok", check=check, evidence=evidence, advice=advice if bad else ""
    )


def _kernel(host: Host) -> Finding:
    version = ".".join(map(str, host.kernel))
    old = host.kernel < (5, 0)
    meaning = (
        "before 5.0, racing clients easily get the same port, and --random is not as good as --random-fully"
        if old
        else "a port that is taken is replaced by a random one; --random is as good as --random-fully"
    )
    return _finding(old, "kernel", f"{version}: {meaning}", "use --random-fully, or a newer kernel")


def _retransmission(host: Host) -> Finding:
    linear = host.number("net.ipv4.tcp_syn_linear_timeouts")
    waits = [1] * (linear + 1) + [2, 4, 8] if linear else [1, 2, 4, 8]
    told = ", ".join(map(str, waits))
    return _finding(
        False, "cost of a lost SYN", f"it is sent again after {told}, ... s (tcp_syn_linear_timeouts)", ""
    )


def _conntrack(host: Host) -> Iterator[Finding]:
    prefix = "net.netfilter.nf_conntrack_"
    most, count, buckets = (host.number(f"{prefix}{name}") for name in ("max", "count", "buckets"))
    if not most:
        yield _finding(False, "conntrack", "it is not loaded: nothing here is tracked or translated", "")
        return
    yield _finding(
        count > _FILLED * most,
        "conntrack table",
        f"{count:,} of {most:,} entries; a full table drops SYNs too",
        f"sudo sysctl -w {prefix}max={2 * most}",
    )
    yield _finding(
        buckets > 0 and most > _CHAINED * buckets,
        "conntrack buckets",
        f"{buckets:,} for {most:,} entries; long chains are slow, and since 5.15 drop SYNs",
        f"sudo sysctl -w {prefix}buckets={most}",
    )
    timeouts = [
        (name, host.number(f"{prefix}tcp_timeout_{name}")) for name in ("close", "time_wait", "established")
    ]
    told = ", ".join(f"{name} {seconds:,} s" for name, seconds in timeouts)
    yield _finding(False, "conntrack timeouts", f"{told}: so long a port of the NAT stays in use", "")


def _ports(host: Host) -> Finding:
    low, high = map(int, host.sysctls["net.ipv4.ip_local_port_range"].split())
    return _finding(
        high - low + 1 < _FEWEST_PORTS,
        "client ports",
        f"{low}-{high}, of which connect() uses every other: fewer ports, more clients with the same one",
        "sudo sysctl -w net.ipv4.ip_local_port_range='32768 60999'",
    )


def _backlog(host: Host) -> Finding:
    most = host.number("net.core.somaxconn")
    return _finding(
        most < _SHORTEST_BACKLOG,
        "accept queue",
        f"somaxconn {most:,}; a server with a full one drops SYNs too",
        "sudo sysctl -w net.core.somaxconn=4096",
    )


def _files(host: Host) -> Finding:
    soft, hard = host.open_files
    return _finding(
        0 <= hard < _FEWEST_FILES,
        "open files",
        f"limit {soft:,}, may be raised to {hard:,}" if hard >= 0 else f"limit {soft:,}, may be raised",
        "ulimit -n 65536",
    )


def _cpus(host: Host) -> Finding:
    wanted = host.workers or host.usable_cpus
    return _finding(
        host.usable_cpus < 2 or wanted > host.usable_cpus,
        "CPUs",
        f"{host.usable_cpus} usable here, {wanted} workers; the race needs two, and workers one each",
        "use fewer --workers, or a host or cpuset with more CPUs",
    )


def _clock(host: Host) -> Finding:
    slow = bool(host.clock_source) and not host.clock_source.startswith(_STEADY_CLOCKS)
    return _finding(
        slow,
        "clock source",
        f"{host.clock_source or 'unknown'}{': slow to read, so dials meet less often' if slow else ''}",
        "choose another of /sys/devices/system/clocksource/clocksource0/available_clocksource",
    )


def _vxlan(host: Host) -> Finding:
    names = ", ".join(host.checksumming_vxlans)
    mended = host.kernel >= _VXLAN_MENDED[0] or any(
        host.kernel[:2] == version[:2] and host.kernel >= version for version in _VXLAN_MENDED[1:]
    )
    return _finding(
        not mended,
        "VXLAN checksum offload",
        f"{names}: with random ports, kernels before 5.6.13, 5.4.41, 4.19.123 send wrong checksums",
        f"sudo ethtool -K {host.checksumming_vxlans[0]} tx-checksum-ip-generic off",
    )
