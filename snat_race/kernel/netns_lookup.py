"""Network namespaces that exist already, by whatever name people have for them."""

import fcntl
import http.client
import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from snat_race.errors import EnvironmentLacks, UsageError
from snat_race.kernel.netns import Namespace

_NS_GET_NSTYPE, _CLONE_NEWNET = 0xB703, 0x40000000  # linux/nsfs.h, linux/sched.h
HERE = "this namespace"
_NAMED = Path("/run/netns")
_DOCKER_SOCKET = "unix:///var/run/docker.sock"
_DOCKER_TIMEOUT_S = 5.0
_IN_CONTAINERS = {"veth", "ipvlan", "macvlan"}


def here() -> Namespace:
    """Return this process's own namespace."""
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    return Namespace(HERE, fd, own=True)


def find(text: str, option: str) -> Namespace:
    """Return the namespace of a process (PID), a name (of ``ip netns``), a path or docker:CONTAINER.

    Raises:
        UsageError: there is none.
        EnvironmentLacks: it may not be entered, or Docker cannot be asked.

    """
    if not text:
        raise UsageError(f"{option}: is empty; give a PID, a name, a path or docker:CONTAINER")
    if text.startswith("docker:"):
        return _open(text, _of_process(_docker_pid(text.removeprefix("docker:"), option)), option)
    if text.isdecimal():
        return _open(text, _of_process(int(text)), option)
    return _open(text, Path(text) if "/" in text else _NAMED / text, option)


def find_all(texts: Iterable[str], option: str) -> list[Namespace]:
    """Return namespaces as :func:`find` does, each but once, whatever names it was given."""
    found: list[Namespace] = []
    for text in texts:
        namespace = find(text, option)
        if not any(same(namespace, other) for other in found):
            found.append(namespace)
    return found


def same(one: Namespace, other: Namespace) -> bool:
    """Whether two are the same namespace."""
    return os.path.sameopenfile(one.fd, other.fd)


def gone(namespace: Namespace) -> str:
    """Say that what a namespace was found by, a process or a name, is there no more; "" if it is."""
    if namespace.path is None:
        return ""
    try:
        there = namespace.path.stat()
    except OSError:
        there = None
    if there and os.path.samestat(there, os.fstat(namespace.fd)):
        return ""
    return f"the namespace {namespace.name} has ended ({namespace.path})"


def container(namespace: Namespace) -> str:
    """Say that a namespace is a container's, "" if it is not: its only device is of a kind that
    containers have, so it forwards nothing, and its NAT is elsewhere.
    """
    from pyroute2 import IPRoute  # here, because a client starts sooner without

    with namespace.entered(), IPRoute() as netlink:
        found = [
            (link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_LINKINFO"))
            for link in netlink.get_links()
            if link.get_attr("IFLA_IFNAME") != "lo" and link["state"] == "up"
        ]
    if len(found) != 1 or found[0][1] is None:
        return ""
    name, info = found[0]
    if info.get_attr("IFLA_INFO_KIND") not in _IN_CONTAINERS:
        return ""
    return f"{namespace.name} has one device, {name}, so it is a container's"


def _of_process(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net")


def _open(name: str, path: Path, option: str) -> Namespace:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except PermissionError as refused:
        raise EnvironmentLacks(f"{option}: not allowed to open {path}; use sudo") from refused
    except (FileNotFoundError, ProcessLookupError) as missing:
        raise UsageError(
            f"{option}: there is no namespace {name} ({path}); give a PID, a name of 'ip netns list', "
            "a path or docker:CONTAINER"
        ) from missing
    except OSError as failed:
        raise UsageError(f"{option}: {path} is no namespace ({failed.strerror})") from failed
    if kind != _CLONE_NEWNET:
        raise UsageError(f"{option}: {path} is a namespace, but not of the network")
    namespace = Namespace(name, fd, own=same(Namespace(name, fd), here()), path=path)
    try:
        with namespace.entered():
            pass
    except PermissionError as refused:
        raise EnvironmentLacks(
            f"{option}: not allowed to enter the namespace {name}; use sudo"
        ) from refused
    return namespace


def _docker_pid(container: str, option: str) -> int:
    """Ask the engine for the process of a container.

    Raises:
        UsageError: there is no such container, or it does not run.
        EnvironmentLacks: the engine's socket is missing, or not ours to use.

    """
    if not container:
        raise UsageError(f"{option}: docker: needs a name after it; 'docker ps' lists them")
    status, answer = _ask_docker(f"/containers/{quote(container, safe='')}/json", option)
    if status == http.client.NOT_FOUND:
        raise UsageError(f"{option}: Docker knows no container {container!r}; 'docker ps' lists them")
    if status != http.client.OK:
        raise EnvironmentLacks(f"{option}: Docker answered {status}: {answer.get('message', '')}")
    pid = int(answer["State"]["Pid"])
    if not pid:
        raise UsageError(f"{option}: the container {container} does not run; 'docker start' it")
    return pid


def _ask_docker(path: str, option: str) -> tuple[int, dict[str, Any]]:
    address = os.environ.get("DOCKER_HOST") or _DOCKER_SOCKET
    if not address.startswith("unix://"):
        raise EnvironmentLacks(
            f"{option}: DOCKER_HOST is {address}; only an engine on this host can be asked"
        )
    connection = http.client.HTTPConnection("localhost", timeout=_DOCKER_TIMEOUT_S)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_DOCKER_TIMEOUT_S)
            sock.connect(address.removeprefix("unix://"))
            connection.sock = sock
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as failed:
        why = getattr(failed, "strerror", None) or str(failed) or type(failed).__name__
        raise EnvironmentLacks(
            f"{option}: cannot ask Docker at {address} ({why}); start it, use sudo, or give the PID "
            "in place of docker:CONTAINER"
        ) from failed
