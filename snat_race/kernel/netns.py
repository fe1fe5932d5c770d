"""Anonymous network namespaces: nothing under /run/netns, gone with the last process that holds
them, even after ``kill -9``.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snat_race.errors import EnvironmentLacks

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_PROC_SYS = Path("/proc/sys")
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One network namespace, held open by a file descriptor.

    ``own``: the one that this process is in, which takes no privilege to be in. ``path``: where it was
    opened, if it has a place.
    """

    def __init__(self, name: str, fd: int, *, own: bool = False, path: Path | None = None) -> None:
        self.name = name
        self.fd = fd
        self.path = path
        self._own = own

    @property
    def inode(self) -> int:
        """What this kernel, since it has booted, knows the namespace by."""
        return os.fstat(self.fd).st_ino

    def enter(self) -> None:
        """Move this process in, for good."""
        _checked(_libc.setns(self.fd, _CLONE_NEWNET))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move this process in and back; sockets opened meanwhile stay inside."""
        if self._own:
            yield
            return
        back = _current("back")
        self.enter()
        try:
            yield
        finally:
            back.enter()
            os.close(back.fd)

    def sysctl(self, key: str, value: int | str) -> None:
        """Set ``net.``-something, such as ``ipv4/ip_forward``, in this namespace.

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
    """Move this process into a network namespace of its own, if need be within a user namespace.

    From here namespaces, devices and rules can be made that the host never sees.

    Raises:
        EnvironmentLacks: the kernel refuses both; the message names the setting that would help.

    """
    try:
        _checked(_libc.unshare(_CLONE_NEWNET))
    except PermissionError:
        _enter_user_namespace()


def new_namespace(name: str) -> Namespace:
    """Make a network namespace; this process stays where it is."""
    back = _current("back")
    _checked(_libc.unshare(_CLONE_NEWNET))
    made = _current(name)
    back.enter()
    os.close(back.fd)
    return made


def _enter_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        _checked(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET))
        # user_namespaces(7): an ordinary user maps itself only, and gives up setgroups for it
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        _checked(_libc.unshare(_CLONE_NEWNET))
    except OSError as failed:
        raise EnvironmentLacks(
            f"not allowed to make a network namespace ({failed.strerror}); {_remedy()}"
        ) from failed


def _remedy() -> str:
    refusals = {
        "kernel/unprivileged_userns_clone": "0",
        "kernel/apparmor_restrict_unprivileged_userns": "1",
        "user/max_user_namespaces": "0",
    }
    for key, refusing in refusals.items():
        setting = _PROC_SYS / key
        if setting.exists() and setting.read_text().strip() == refusing:
            allowing = "1" if refusing == "0" and "max" not in key else "10000" if "max" in key else "0"
            return f"use sudo, or 'sudo sysctl {key.replace('/', '.')}={allowing}'"
    return "use sudo (in a container: --privileged)"


def _current(name: str) -> Namespace:
    return Namespace(name, os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
