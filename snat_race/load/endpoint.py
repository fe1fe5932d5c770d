"""Addresses as users write them, and as sockets want them."""

import re
import socket
from dataclasses import dataclass

from snat_race.errors import UsageError

SocketAddress = tuple[str, int] | tuple[str, int, int, int]

_SHAPE = re.compile(r"^(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:]*)):(?P<low>[^-:]*)(?:-(?P<high>[^-:]*))?$")
_SO_DONTROUTE = getattr(socket, "SO_DONTROUTE", 5)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and its ports, both ends inclusive; one port means ``low == high``."""

    host: str
    low: int
    high: int

    @classmethod
    def parse(cls, text: str, default_host: str) -> "Endpoint":
        """Parse ``host:port``, ``[v6]:port``, ``:port`` or ``host:low-high``.

        Raises:
            UsageError: it is none of these.

        """
        shape = _SHAPE.match(text)
        if not shape:
            raise UsageError(f"{text!r} is not HOST:PORT; write 10.0.0.1:8080 or [::1]:8080")
        low = _port(shape["low"], text)
        high = _port(shape["high"], text) if shape["high"] is not None else low
        if low > high:
            raise UsageError(f"port range {low}-{high} is empty; write the lower port first")
        return cls(shape["v6"] or shape["host"] or default_host, low, high)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.low}" + (f"-{self.high}" if self.high > self.low else "")


def _port(text: str, whole: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise UsageError(f"{whole!r} has no port from 1 to 65535; write HOST:PORT")
    return int(text)


def resolve(endpoint: Endpoint) -> tuple[int, SocketAddress]:
    """Return the address family and socket address of the endpoint's first port.

    Raises:
        UsageError: the name does not resolve.

    """
    try:
        addresses = socket.getaddrinfo(endpoint.host, endpoint.low, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as failed:
        why = getattr(failed, "strerror", None) or "not a host name"
        raise UsageError(f"unknown host {endpoint.host!r} ({why}); check the name") from failed
    family, _, _, _, address = addresses[0]
    return family, (address[0], int(address[1]), *address[2:])


def require_local(ip: str, family: int) -> None:
    """Check that ``ip`` is an address of this machine that can reach ``family``.

    Raises:
        UsageError: it is not.

    """
    try:
        socket.inet_pton(family, ip)
    except OSError as failed:
        kind = "IPv6" if family == socket.AF_INET6 else "IPv4"
        raise UsageError(f"{ip!r} is not an {kind} address; give one of this machine's") from failed
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError as failed:
            raise UsageError(f"{ip} is not an address of this machine; 'ip address' lists them") from failed


def source_ip(family: int, remote: SocketAddress) -> str:
    """Return the address the kernel would dial ``remote`` from; '*' if there is no route."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(remote)
        except OSError:
            return "*"
        return str(probe.getsockname()[0])


def behind_router(family: int, remote: SocketAddress) -> bool:
    """Whether packets to ``remote`` (IPv4) pass a router: only then can a NAT be in the way.

    SO_DONTROUTE restricts the route look-up to directly connected hosts (socket(7)); connecting
    a datagram socket looks up the route and sends nothing.
    """
    if family != socket.AF_INET:
        return False
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, _SO_DONTROUTE, 1)
        try:
            probe.connect(remote)
        except OSError:
            return True
        return False
