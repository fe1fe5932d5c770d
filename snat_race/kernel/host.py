"""The machine we run on: kernel, CPUs, limits that shape a measurement."""

import os
import platform
import re
import resource
from pathlib import Path
from typing import Any

import psutil

_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def usable_cpus() -> list[int]:
    """Return the CPUs this process may run on (cpusets and taskset respected)."""
    return list(psutil.Process().cpu_affinity())


def online_cpus() -> int:
    """Return the host's online CPUs: the same number in every container of the host."""
    return os.sysconf("SC_NPROCESSORS_ONLN")


def kernel_version() -> tuple[int, int]:
    """Return the kernel's version, as (6, 5)."""
    numbers = re.findall(r"[0-9]+", platform.release())
    return int(numbers[0]), int(numbers[1])


def local_port_range() -> tuple[int, int]:
    """Return the kernel's range of ephemeral ports, both inclusive."""
    low, high = _PORT_RANGE.read_text().split()
    return int(low), int(high)


def raise_open_file_limit() -> None:
    """Let this process open as many files as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def environment() -> dict[str, Any]:
    """Describe this machine, for the result file."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": online_cpus(),
        "usable_cpus": usable_cpus(),
        "python": platform.python_version(),
        "root": os.geteuid() == 0,
    }
