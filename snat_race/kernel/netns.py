"""Anonymous network namespaces: nothing under /run/netns, gone with the last process that holds
them, even after ``kill -9``.
"""

import ctypes
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from snat_race.errors import EnvironmentLacks

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
OWN = Path("/proc/thread-self/ns/net")  # of this thread
_PROC_SYS = Path("/proc/sys")
# Settings that forbid an ordinary user to make a user namespace: (value that forbids, value that allows).
# The first is Debian's, the second Ubuntu's; the third is user_namespaces(7)'s.
_USER_NAMESPACE_SETTINGS = {
    "kernel/unprivileged_userns_clone": ("0", "1"),
    "kernel/apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user/max_user_namespaces": ("0", "10000"),
}
_LOCKS = Path("/proc/locks")
_LOCK_WITHIN_S = 30.0
_LOCK_POLL_S = 0.02
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One network namespace, held open by a file descriptor.

    Args:
        name: what messages and results call it.
        fd: an open file descriptor of it; it stays open as long as the namespace is wanted.
        is_own: this process is in it, so entering it takes no privilege and does nothing.
        path: the file that it was opened from; None for an anonymous one.

    """

    def __init__(self, name: str, fd: int, *, is_own: bool = False, path: Path | None = None) -> None:
        self.name = name
        self.fd = fd
        self.path = path
        self._is_own = is_own

    @property
    def inode(self) -> int:
        """The number of the namespace; unique on this host until it reboots."""
        return os.fstat(self.fd).st_ino

    def enter(self) -> None:
        """Move this process in, for good.

        Raises:
            OSError: setns(2) refuses; it takes CAP_SYS_ADMIN in the user namespace that owns this one.

        """
        _checked(_libc.setns(self.fd, _CLONE_NEWNET))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move this process in and back; sockets opened meanwhile stay inside.

        Raises:
            OSError: as for :meth:`enter`.

        """
        if self._is_own:
            yield
            return
        previous = current("previous")
        self.enter()
        try:
            yield
        finally:
            previous.enter()
            os.close(previous.fd)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other process that asks for this work in the namespace meanwhile.

        The lock is one on the namespace itself: whoever sees the namespace sees the lock, in whichever
        container and as whichever user, and it is gone with the process.

        Raises:
            EnvironmentLacks: another process keeps it.

        """
        deadline = time.monotonic() + _LOCK_WITHIN_S
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EnvironmentLacks(
                        f"{_holder(self.inode)} has kept the lock of {self.name} for "
                        f"{_LOCK_WITHIN_S:.0f} s, as a snat_race does that changes rules; try again when "
                        "it has ended"
                    ) from None
                time.sleep(_LOCK_POLL_S)
        try:
            yield
        finally:
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def sysctl(self, key: str, value: int | str) -> None:
        """Set ``/proc/sys/net/<key>``, ``ipv4/ip_forward`` for example, in this namespace.

        Raises:
            EnvironmentLacks: /proc/sys is read-only, as in an unprivileged container.

        """
        with self.entered():
            try:
                (_PROC_SYS / "net" / key).write_text(str(value))
            except OSError as failed:
                raise EnvironmentLacks(
                    f"cannot set net/{key} in a private namespace ({failed.strerror}); "
                    "run on the host, or in a container with --privileged"
                ) from failed


def enter_sandbox() -> None:
    """Move this process into a network namespace of its own.

    An ordinary user gets it within a new user namespace. Namespaces, devices and rules that are made
    from here on are invisible to the host.

    Raises:
        EnvironmentLacks: the kernel refuses both; the message names the setting that would help.

    """
    try:
        _checked(_libc.unshare(_CLONE_NEWNET))
    except PermissionError:
        _enter_user_namespace()


def new_namespace(name: str) -> Namespace:
    """Make a network namespace; this process stays where it is.

    Raises:
        OSError: the kernel refuses; call :func:`enter_sandbox` first.

    """
    previous = current("previous")
    _checked(_libc.unshare(_CLONE_NEWNET))
    namespace = current(name)
    previous.enter()
    os.close(previous.fd)
    return namespace


def current(name: str, *, is_own: bool = False) -> Namespace:
    """Open the network namespace that this thread is in now.

    Args:
        name: what messages call it.
        is_own: this process will not leave it, except by :meth:`Namespace.entered`.

    """
    fd = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    return Namespace(name, fd, is_own=is_own)


def _holder(inode: int) -> str:
    """Return who has a lock on a file, in words: proc_locks(5). Anybody may take one on a namespace."""
    with suppress(OSError):
        for line in _LOCKS.read_text().splitlines():
            kind, *_, pid, file, _, _ = line.split()[1:]
            if kind == "FLOCK" and file.rpartition(":")[2] == str(inode):
                return f"process {pid}"
    return "another process"


def _enter_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        _checked(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET))
        # user_namespaces(7): an ordinary user may map only itself, and must give up setgroups(2) first.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        _checked(_libc.unshare(_CLONE_NEWNET))
    except OSError as failed:
        raise EnvironmentLacks(
            f"not allowed to make a network namespace ({failed.strerror}); {_remedy()}"
        ) from failed


def _remedy() -> str:
    """Return the setting that forbids user namespaces, as the command that allows them."""
    for key, (forbidding, allowing) in _USER_NAMESPACE_SETTINGS.items():
        setting = _PROC_SYS / key
        try:
            value = setting.read_bytes().decode("utf-8", "replace").strip()
        except OSError:
            continue
        if value == forbidding:
            return f"use sudo, or 'sudo sysctl {key.replace('/', '.')}={allowing}'"
    return "use sudo (in a container: --privileged)"


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
