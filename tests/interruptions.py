"""What happens to a process without its doing: it is stopped, frozen, or traced; its clock is set."""

import ctypes
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17  # linux/ptrace.h
_libc = ctypes.CDLL(None, use_errno=True)
_FREEZERS = (  # of cgroup v2, and of v1: where groups are, which file freezes one, what is written into it
    (Path("/sys/fs/cgroup"), "cgroup.freeze", "1", "0"),
    (Path("/sys/fs/cgroup/freezer"), "freezer.state", "FROZEN", "THAWED"),
)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """As Ctrl-Z and ``fg`` do."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """As ``docker pause`` does; skip where we may not."""
    mount, name, on, off = next(
        (freezer for freezer in _FREEZERS if (freezer[0] / "cgroup.procs").exists()), _FREEZERS[0]
    )
    own = mount / _own_group(mount)
    try:
        group = Path(tempfile.mkdtemp(dir=own, prefix="snat-race-"))
    except OSError as refused:
        pytest.skip(f"no cgroup to freeze a process in: {refused}")
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / name).write_text(on)
        yield
    finally:
        (group / name).write_text(off)
        with suppress(ProcessLookupError):
            (own / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def _own_group(mount: Path) -> str:
    controller = "" if mount.name == "cgroup" else mount.name
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == controller:
            return group.lstrip("/")
    return ""


@contextmanager
def traced(pid: int) -> Iterator[None]:
    """As a debugger does; skip where we may not."""
    if _libc.ptrace(_PTRACE_ATTACH, pid, None, None):
        pytest.skip(f"not allowed to trace a process: {os.strerror(ctypes.get_errno())}")
    os.waitpid(pid, 0x40000000)  # __WALL
    try:
        yield
    finally:
        _libc.ptrace(_PTRACE_DETACH, pid, None, None)


PAUSES: dict[str, Callable[[int], AbstractContextManager[None]]] = {
    "stopped": stopped,
    "frozen": frozen,
    "traced": traced,
}


def stepping_clock(set_at_ns: int, step_ns: int) -> Callable[[], int]:
    """A CLOCK_REALTIME that is set once, at an instant of CLOCK_MONOTONIC."""
    return lambda: time.time_ns() + (step_ns if time.monotonic_ns() >= set_at_ns else 0)
