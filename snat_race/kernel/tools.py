"""The tools that people load rules with: where they are, running them in a namespace, and their lock.

Legacy iptables takes an flock on /run/xtables.lock, because it writes whole tables back. Whoever holds
that lock keeps it from changing rules in between. A tool that we start meanwhile would wait for us, so
it is given a spare file to lock by XTABLES_LOCKFILE, which iptables knows since 1.8.5.
"""

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from snat_race.errors import EnvironmentLacks
from snat_race.kernel.netns import Namespace

_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")  # an ordinary user's shell may not look there


def _search_path(path: str) -> str:
    """Return where tools are looked for: the folders of PATH that have a whole path, then the system's.

    An empty entry, or a relative one, is the folder that we happen to be in. Whoever owns that folder would
    choose what runs as root.
    """
    folders = [folder for folder in path.split(":") if folder.startswith("/")]
    return ":".join(dict.fromkeys([*folders, *_SYSTEM_FOLDERS]))


_PATH = _search_path(os.environ.get("PATH", ""))
# What else a tool gets to know: where its lock is, and its extensions, which some distributions keep
# elsewhere. No other variable shall change what it loads or how it words things, as LD_PRELOAD and LANG do.
_KEPT_VARIABLES = ("XTABLES_LOCKFILE", "XTABLES_LIBDIR")
_XTABLES_LOCK = "/run/xtables.lock"
_LOCK_WITHIN_S = 10.0
_LOCK_POLL_S = 0.05
SLOWEST_S = 20.0  # a tool that takes longer is stopped
_MAY_NOT_RUN = 126  # the exit code of a shell for what may not be started

_HALVES = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")  # that JSON may hold, and Python has no byte for
# What is to be done if the lock cannot be opened.
NO_LOCK = (
    "the lock of xtables cannot be opened; use sudo (in a container: --user 0 -v /run:/run, so that it is "
    "the host's), or name another file with XTABLES_LOCKFILE, as for iptables, if these rules are of a "
    "namespace of your own"
)

Finished = subprocess.CompletedProcess[str]


def where(name: str) -> str | None:
    """Return the path of a tool; None if it is not here."""
    return shutil.which(name, path=_PATH)


def run(
    namespace: Namespace, command: Sequence[str], script: str = "", *, lock: str | None = None
) -> Finished:
    """Run a tool in a namespace, with ``script`` as its standard input.

    ``lock``: the file that it locks in place of that of all xtables. A tool that may not be started
    counts as one that has said so, with exit code 126.

    Raises:
        EnvironmentLacks: there is no such tool.
        subprocess.TimeoutExpired: it did not end within ``SLOWEST_S``.

    """
    path = where(command[0])
    if path is None:
        raise EnvironmentLacks(f"there is no {command[0]} here")
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    environment |= {"PATH": _PATH, "LC_ALL": "C"} | ({"XTABLES_LOCKFILE": lock} if lock else {})
    try:
        with namespace.entered(), _file(script) as stdin, _file() as stdout:
            ended = subprocess.run(  # noqa: S603 - tools of the system, by their whole paths
                [path, *command[1:]],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,  # it is closed when the tool ends, which wakes us
                timeout=SLOWEST_S,
                check=False,
                env=environment,
                # Ctrl-C reaches the processes of the terminal's group. It is for us, who stop when it is
                # safe; a tool that is in the middle of a change has to end that.
                process_group=0,
            )
            return Finished(
                command, ended.returncode, _text(stdout), ended.stderr.decode("utf-8", "surrogateescape")
            )
    except PermissionError as refused:
        complaint = f"{refused.strerror} (in a container, add --cap-add NET_ADMIN)"
        return Finished(command, _MAY_NOT_RUN, "", complaint)


@contextmanager
def _file(text: str = "") -> Iterator[int]:
    """Yield a file of memory that a tool reads, or writes.

    A script is all there before the tool begins: if we were killed while we write to a pipe, the tool might
    load what it has by then. What it prints is read when it has ended: nft writes 4 KiB at a time, and to
    take each from a pipe would cost as much as to print it.
    """
    descriptor = os.memfd_create("text")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _text(descriptor: int) -> str:
    """Return what a tool has written: any bytes, of comments, as they have to come out again."""
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read().decode("utf-8", "surrogateescape")


@contextmanager
def spare_lock() -> Iterator[str]:
    """Yield the path of a file for a tool to lock that nobody else knows. It has no name, so it is gone
    with this process, even after ``kill -9``.
    """
    descriptor = os.memfd_create("xtables.lock")
    try:
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def printable(text: str) -> str:
    """Return what a tool printed with the bytes that are no UTF-8 escaped, and half characters too."""
    whole = _HALVES.sub(lambda half: ascii(half[0])[1:-1], text)
    return whole.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def said(done: Finished) -> str:
    """Return what a tool complained of, as one line."""
    return printable(" ".join((done.stderr or done.stdout).split())) or f"exit code {done.returncode}"


class Lock:
    """The lock of all xtables, held.

    Raises:
        EnvironmentLacks: another program keeps it; also when it is taken again.

    """

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        self.was_kept = True  # all the time
        self._take()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let go of it for a while."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self.was_kept = False
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        deadline = time.monotonic() + _LOCK_WITHIN_S
        while not _locked(self._fd):
            if time.monotonic() > deadline:
                raise EnvironmentLacks(
                    f"another program has held {self._path} for {_LOCK_WITHIN_S:.0f} s; "
                    f"see 'fuser -v {self._path}'"
                )
            time.sleep(_LOCK_POLL_S)


@contextmanager
def xtables_lock() -> Iterator[Lock | None]:
    """Hold the lock that iptables and iptables-restore take (iptables(8), --wait); None if it cannot be
    opened: see ``NO_LOCK``.

    Raises:
        EnvironmentLacks: another program keeps it.

    """
    path = Path(os.environ.get("XTABLES_LOCKFILE", _XTABLES_LOCK))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError:
        yield None
        return
    try:
        yield Lock(path, fd)
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
