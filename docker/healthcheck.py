#!/usr/bin/env -S python3 -IS
"""Whether the container's main process listens, if it is a server.

It does not connect, because the server would count that among its connections.
"""

import contextlib
import sys
from pathlib import Path

_LISTEN = "0A"  # include/net/tcp_states.h
_STATE, _INODE = 3, 9  # columns of /proc/net/tcp


def is_server(arguments: bytes) -> bool:
    """Whether a process that was started so is a server of ours."""
    words = arguments.split(b"\0")
    return b"server" in words or b"s" in words


def listening(table: str) -> set[str]:
    """Return the inodes of the sockets that listen, from /proc/net/tcp or tcp6."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return {row[_INODE] for row in rows if row[_STATE] == _LISTEN}


def sockets(process: Path) -> set[str]:
    """Return the inodes of the sockets of a process and of all that descend from it.

    With 'docker run --init' the first process is not the server.
    """
    inodes = set()
    for member in family(process):
        for link in (member / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                inodes.add(link.readlink().name.removeprefix("socket:[").removesuffix("]"))
    return inodes


def family(process: Path) -> list[Path]:
    """Return a process and all that descend from it, as folders of /proc."""
    members = [process]
    for pid in (process / "task" / process.name / "children").read_text().split():
        members += family(process.parent / pid)
    return members


def main() -> None:
    """Exit with 0 if all is well."""
    first = Path("/proc/1")
    if not is_server((first / "cmdline").read_bytes()):
        sys.exit(0)
    tables = [Path("/proc/net", name) for name in ("tcp", "tcp6")]
    listeners = set().union(*(listening(table.read_text()) for table in tables if table.exists()))
    sys.exit(0 if listeners & sockets(first) else "the server does not listen")


if __name__ == "__main__":
    main()
