"""The machine we run on: kernel, CPUs, limits that shape a measurement."""

import array
import fcntl
import os
import platform
import re
import resource
import socket
import struct
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from snat_race.errors import EnvironmentLacks
from snat_race.kernel.links import links
from snat_race.kernel.netns import Namespace
from snat_race.results import kernels

_SYSCTLS = (
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syn_linear_timeouts",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
    "net.core.somaxconn",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_tcp_timeout_close",
    "net.netfilter.nf_conntrack_tcp_timeout_syn_sent",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
)
_CLOCK_SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
_SIOCETHTOOL, _ETHTOOL_GTXCSUM = 0x8946, 0x16  # linux/sockios.h, linux/ethtool.h
_SIGNATURE = Path("/proc/version_signature")
_DEBIAN_VERSION = re.compile(r"Debian ([0-9.]{1,30})")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NUMBERS = re.compile(r"[0-9]{1,20}(\s[0-9]{1,20})*", re.ASCII)
_LAST_PORT = 65535
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def usable_cpus() -> list[int]:
    """Return the CPUs this process may run on (cpusets and taskset respected)."""
    return list(psutil.Process().cpu_affinity())


def host_name() -> str:
    """Return the name of this host: a pod in its node's network has the node's."""
    return platform.node()


def online_cpus() -> int:
    """Return the host's online CPUs: the same number in every container of the host."""
    return os.sysconf("SC_NPROCESSORS_ONLN")


def kernel_version() -> tuple[int, ...]:
    """Return the kernel's version, as (6, 5, 13).

    Debian and Ubuntu name a release after its ABI: 6.1.0-50 is 6.1.176. Debian has the version in
    ``uname -v``, Ubuntu at the end of /proc/version_signature.
    """
    version = kernels.version_of(release())
    for exact in (*_DEBIAN_VERSION.findall(platform.version()), *_said(_SIGNATURE).split()[-1:]):
        if kernels.version_of(exact)[:2] == version[:2]:
            return kernels.version_of(exact)
    return version


def release() -> str:
    """Return what ``uname -r`` prints."""
    return platform.release()


def local_port_range() -> tuple[int, int]:
    """Return the kernel's range of ephemeral ports, both inclusive.

    Raises:
        EnvironmentLacks: it does not say.

    """
    ports = [int(word) for word in _setting(_PORT_RANGE).split()]
    if len(ports) != 2 or not 0 < ports[0] <= ports[1] <= _LAST_PORT:
        raise EnvironmentLacks(f"{_PORT_RANGE} could not be read: it holds no range of ports")
    return ports[0], ports[1]


def proc_text(path: Path) -> str:
    """Return what a file of /proc or /sys holds, whatever bytes these are.

    Raises:
        OSError: there is none, or it may not be read.

    """
    return path.read_text(encoding="utf-8", errors="replace")


def _said(path: Path) -> str:
    """Return what a file of /proc or /sys says in its line; "" if it says nothing to us."""
    try:
        return proc_text(path).strip()
    except OSError:
        return ""


def _setting(path: Path) -> str:
    """Return a setting: one number or more, as the kernel has them; "" if there are none."""
    text = _said(path)
    return text if _NUMBERS.fullmatch(text) else ""


def raise_open_file_limit() -> None:
    """Let this process open as many files as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def environment() -> dict[str, Any]:
    """Describe this machine, for the result file."""
    return {
        "boot_id": _said(_BOOT_ID),  # the same in all containers of a host; "": not known
        "kernel": release(),
        "machine": platform.machine(),
        "cpus": online_cpus(),
        "usable_cpus": usable_cpus(),
        "python": platform.python_version(),
        "root": os.geteuid() == 0,
    }


def sysctls(namespace: Namespace) -> dict[str, str]:
    """Return the settings that shape losses and measurements; those that this kernel has."""
    with namespace.entered():
        paths = {key: Path("/proc/sys", *key.split(".")) for key in _SYSCTLS}
        settings = {key: _setting(path) for key, path in paths.items()}
    return {key: value for key, value in settings.items() if value}


def open_file_limits() -> tuple[int, int]:
    """Return how many files this process may open, and how many it may allow itself."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def clock_source() -> str:
    """Return what the kernel reads the time from; "" if it does not say."""
    return _said(_CLOCK_SOURCE)


def checksumming_vxlans(namespace: Namespace) -> list[str]:
    """Return the VXLAN devices that leave checksums to the device below (ethtool's tx-checksumming)."""
    names = [link.name for link in links(namespace) if link.kind == "vxlan"]
    with namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return [name for name in names if _checksums(sock, name)]


def _checksums(sock: socket.socket, device: str) -> bool:
    value = array.array("I", [_ETHTOOL_GTXCSUM, 0])
    request = struct.pack("16sP", device.encode(), value.buffer_info()[0])
    try:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
    except OSError:
        return False
    return bool(value[1])


def utc_now() -> str:
    """Return the time as results have it, to the millisecond."""
    text = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
