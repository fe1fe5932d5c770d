"""Network namespaces that exist already, by whatever name people have for them."""

import fcntl
import http.client
import json
import os
import re
import socket
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from snat_race.errors import EnvironmentLacks, UsageError
from snat_race.kernel.links import links
from snat_race.kernel.netns import OWN, Namespace, current
from snat_race.kernel.tools import printable
from snat_race.results.findings import OWN_NAMESPACE

_NS_GET_NSTYPE, _CLONE_NEWNET = 0xB703, 0x40000000  # linux/nsfs.h, linux/sched.h
HERE = OWN_NAMESPACE
_NAMED = Path("/run/netns")  # where ip-netns(8) keeps its names
_PID = re.compile(r"[0-9]{1,10}")
_LONGEST, _SHOWN = 4096, 60  # characters of a name: PATH_MAX, and what a message shows of one that is wrong
_GIVE = "give a PID, a name, a path or docker:CONTAINER"
_DOCKER_PREFIX = "docker:"
_DOCKER_SOCKET = "unix:///var/run/docker.sock"
_DOCKER_TIMEOUT_S = 5.0
_LONGEST_ANSWER = 1 << 24  # bytes
_KINDS_IN_CONTAINERS = {"veth", "ipvlan", "macvlan"}


def here() -> Namespace:
    """Return this process's own namespace."""
    return current(HERE, is_own=True)


def find(text: str) -> Namespace:
    """Return the network namespace that a user means.

    Args:
        text: a process's PID, a name of ``ip netns``, a path, or ``docker:CONTAINER``.

    Raises:
        UsageError: there is none.
        EnvironmentLacks: it may not be entered, or Docker cannot be asked.

    """
    if not text:
        raise UsageError(f"is empty; {_GIVE}")
    if len(text) > _LONGEST or "\0" in text or printable(text) != text:
        raise UsageError(
            f"{text[:_SHOWN]!a}... is no namespace; give a PID, a name, a path or docker:CONTAINER"
        )
    return _open(text, _path_of(text))


def find_all(texts: Iterable[str]) -> list[Namespace]:
    """Return namespaces as :func:`find` does; one that has several names appears once."""
    namespaces: list[Namespace] = []
    for text in texts:
        namespace = find(text)
        if not any(same(namespace, known) for known in namespaces):
            namespaces.append(namespace)
    return namespaces


def same(one: Namespace, other: Namespace) -> bool:
    """Whether two are the same namespace."""
    return os.path.sameopenfile(one.fd, other.fd)


def has_ended(namespace: Namespace) -> bool:
    """Whether the process or the name that a namespace was found by is gone, or means another one now.

    The namespace itself lives on as long as we hold it open, but nobody else is in it.
    """
    if namespace.path is None:
        return False
    try:
        there = namespace.path.stat()
    except OSError:
        return True
    return not os.path.samestat(there, os.fstat(namespace.fd))


def container_device(namespace: Namespace) -> str | None:
    """Return the name of a container's only device; None if the namespace is not a container's.

    A namespace is a container's if one device besides loopback is up in it, and that device is of a kind
    that containers get. It forwards nothing, so the NAT of its connections is elsewhere.
    """
    kinds = {link.name: link.kind for link in links(namespace) if link.is_up}
    kinds.pop("lo", None)
    if len(kinds) != 1:
        return None
    ((device, kind),) = kinds.items()
    return device if kind in _KINDS_IN_CONTAINERS else None


def _path_of(text: str) -> Path:
    if text.startswith(_DOCKER_PREFIX):
        return _path_of_process(_docker_pid(text.removeprefix(_DOCKER_PREFIX)))
    if _PID.fullmatch(text):
        return _path_of_process(int(text))
    return Path(text) if "/" in text else _NAMED / text


def _path_of_process(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net")


def _open(name: str, path: Path) -> Namespace:
    try:
        # To open a FIFO is to wait for its writer, and to open a device may do something.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path} is no namespace; {_GIVE}")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
        except OSError:
            os.close(fd)
            raise
    except PermissionError as refused:
        raise EnvironmentLacks(f"not allowed to open {path}; use sudo") from refused
    except (FileNotFoundError, ProcessLookupError) as missing:
        raise UsageError(
            f"there is no namespace {name} ({path}); give a PID, a name of 'ip netns list', "
            "a path or docker:CONTAINER"
        ) from missing
    except OSError as failed:
        raise UsageError(f"{path} is no namespace ({failed.strerror})") from failed
    if kind != _CLONE_NEWNET:
        os.close(fd)
        raise UsageError(f"{path} is a namespace, but not of the network")
    is_own = os.path.samestat(os.fstat(fd), OWN.stat())
    namespace = Namespace(name, fd, is_own=is_own, path=path)
    try:
        with namespace.entered():
            pass
    except PermissionError as refused:
        raise EnvironmentLacks(f"not allowed to enter the namespace {name}; use sudo") from refused
    return namespace


def _docker_pid(container: str) -> int:
    """Ask the engine for the process of a container.

    Raises:
        UsageError: there is no such container, or it does not run.
        EnvironmentLacks: the engine's socket is missing, or not ours to use.

    """
    if not container:
        raise UsageError("docker: needs a name after it; 'docker ps' lists them")
    status, text = _ask_docker(f"/containers/{quote(container, safe='')}/json")
    if status == http.client.NOT_FOUND:
        raise UsageError(f"Docker knows no container {container!r}; 'docker ps' lists them")
    if status != http.client.OK:
        raise EnvironmentLacks(f"Docker answered {status}: {_docker_says(text, 'message')}")
    pid = _docker_says(text, "State", "Pid")
    if not isinstance(pid, int) or pid < 0:
        raise EnvironmentLacks(
            f"Docker does not tell the process of {container}; give the PID in its place"
        )
    if not pid:
        raise UsageError(f"the container {container} does not run; 'docker start' it")
    return pid


def _docker_says(text: bytes, *keys: str) -> Any:  # noqa: ANN401 - JSON
    """Return a value of the engine's answer, by the keys that lead to it; "" if it is not there."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    for key in keys:
        value = value.get(key, "") if isinstance(value, dict) else ""
    return value


def _ask_docker(path: str) -> tuple[int, bytes]:
    """Return the status and the text of the engine's answer to ``GET path``."""
    address = os.environ.get("DOCKER_HOST") or _DOCKER_SOCKET
    if not address.startswith("unix://"):
        raise EnvironmentLacks(f"DOCKER_HOST is {address}; only an engine on this host can be asked")
    connection = http.client.HTTPConnection("localhost", timeout=_DOCKER_TIMEOUT_S)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_DOCKER_TIMEOUT_S)
            sock.connect(address.removeprefix("unix://"))
            connection.sock = sock
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read(_LONGEST_ANSWER)
    except (OSError, http.client.HTTPException, ValueError) as failed:
        why = getattr(failed, "strerror", None) or str(failed) or type(failed).__name__
        raise EnvironmentLacks(
            f"cannot ask Docker at {address} ({why}); start it, use sudo, or give the PID "
            "in place of docker:CONTAINER"
        ) from failed
