"""Finds the file that a path names, as the kernel does, but not by way of a stranger's link.

Somebody who runs us as root may name a file in a folder that everybody can write in, /tmp say. A link
that another user has put there would have root replace any file of that user's choice. The kernel
refuses to follow such a link if fs.protected_symlinks is 1 (proc_sys_fs(5)). We refuse in any case.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_MOST_LINKS = 40  # as the kernel has it: path_resolution(7)
_OWN_DESCRIPTORS = Path("/proc/self/fd")


class StrangersLink(OSError):
    """A link that may be somebody else's trap is on the way."""

    def __init__(self, name: str, owner: int) -> None:
        super().__init__(f"'{name}' is a link of another user, {owner}, in a folder open to all")
        self.strerror = self.args[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPath:
    """Where a file is, or will be: in a folder that is held, so nobody can exchange it meanwhile."""

    folder: int  # a descriptor of the folder (O_PATH)
    name: str  # of the file in it; no link
    status: os.stat_result | None  # None: there is no such file yet
    descriptor: int | None  # one of ours that the path stands for, as /dev/stdout does; None: a file

    @property
    def replaceable(self) -> bool:
        """Whether it is an ordinary file, or none yet; a device or a pipe can only be written to."""
        return self.descriptor is None and (self.status is None or stat.S_ISREG(self.status.st_mode))


@contextmanager
def located(path: Path) -> Iterator[OutputPath]:
    """Find what ``path`` names.

    Raises:
        StrangersLink: see there.
        OSError: a folder is missing, for example.

    """
    parts = [*reversed(path.parts)] or ["."]
    folder = _opened("/" if path.is_absolute() else ".")
    links = 0
    try:
        while True:
            name = parts.pop()
            descriptor = _descriptor_named(name, folder)
            status = _status(name, folder)
            if descriptor is None and status and stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(None, "a loop of links")
                _require_trusted(name, status, folder)
                target = Path(os.readlink(name, dir_fd=folder))
                parts += reversed(target.parts)
                entered = _opened("/", folder) if target.is_absolute() else None
            elif parts:
                entered = _opened(name, folder)
            else:
                yield OutputPath(folder=folder, name=name, status=status, descriptor=descriptor)
                return
            if entered is not None:
                os.close(folder)
                folder = entered
    finally:
        os.close(folder)


def _opened(name: str, folder: int | None = None) -> int:
    return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def _status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _descriptor_named(name: str, folder: int) -> int | None:
    """Return the open descriptor of ours that ``name`` in /proc/self/fd is; None if it is not there.

    Such a link's text is no path if it is of a pipe or a socket, and a shell's >(...) is one.
    """
    if name.isdecimal() and os.path.samestat(os.fstat(folder), _OWN_DESCRIPTORS.stat()):
        os.fstat(int(name))
        return int(name)
    return None


def _require_trusted(name: str, link: os.stat_result, folder: int) -> None:
    if os.fstat(folder).st_mode & stat.S_IWOTH and link.st_uid not in (0, os.geteuid()):
        raise StrangersLink(name, link.st_uid)
