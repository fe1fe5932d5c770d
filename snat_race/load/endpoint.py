"""Addresses as users write them, and as sockets want them."""

import contextlib
import re
import socket
import struct
from dataclasses import dataclass

from snat_race.errors import UsageError

SocketAddress = tuple[str, int] | tuple[str, int, int, int]

_SHAPE = re.compile(r"^(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:]*)):(?P<ports>[^:]*)$")
_PORTS = re.compile(r"([0-9]*)-([0-9]*)", re.ASCII)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s, so close() sends RST
_SO_DONTROUTE = getattr(socket, "SO_DONTROUTE", 5)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and its ports, both ends inclusive; one port means ``low == high``."""

    host: str
    low: int
    high: int

    @classmethod
    def parse(cls, text: str, default_host: str) -> "Endpoint":
        """Parse ``host:port``, ``[v6]:port``, ``:port``, ``host:service`` or ``host:low-high``.

        Raises:
            UsageError: it is none of these.

        """
        shape = _SHAPE.match(text)
        if not shape:
            raise UsageError(f"{text!r} is not HOST:PORT; write 10.0.0.1:8080 or [::1]:8080")
        ports = _PORTS.fullmatch(shape["ports"])
        low = _port(ports[1] if ports else shape["ports"], text)
        high = _port(ports[2], text) if ports else low
        if low > high:
            raise UsageError(f"port range {low}-{high} is empty; write the lower port first")
        return cls(shape["v6"] or shape["host"] or default_host, low, high)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.low}" + (f"-{self.high}" if self.high > self.low else "")


def _port(text: str, whole: str) -> int:
    """Return the port that a number, or the name of a service (services(5)), stands for."""
    if re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) and 1 <= int(text) <= 65535:
        return int(text)
    if text and not re.fullmatch(r"[0-9]+", text):
        with contextlib.suppress(OSError, UnicodeError, ValueError):
            return socket.getservbyname(text, "tcp")
    raise UsageError(f"{whole!r} has no port from 1 to 65535 and no known service; write HOST:PORT")


def any_ip(family: int) -> str:
    """Return the address to bind to where the kernel shall choose."""
    return "::" if family == socket.AF_INET6 else "0.0.0.0"


def resolve(endpoint: Endpoint) -> list[tuple[int, SocketAddress]]:
    """Return the address families and socket addresses of the endpoint's first port.

    There is one or more, in the order in which they are to be tried (RFC 6724, as getaddrinfo() has it).

    Raises:
        UsageError: the name does not resolve.

    """
    try:
        addresses = socket.getaddrinfo(endpoint.host, endpoint.low, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as failed:
        why = getattr(failed, "strerror", None) or "not a host name"
        raise UsageError(f"unknown host {endpoint.host!r} ({why}); check the name") from failed
    return [(family, (address[0], int(address[1]), *address[2:])) for family, _, _, _, address in addresses]


def address_to_listen_on(endpoint: Endpoint) -> tuple[int, SocketAddress]:
    """Return the first of the endpoint's addresses; of a name that has both kinds, the first of IPv4.

    Raises:
        UsageError: the name does not resolve.

    """
    addresses = resolve(endpoint)
    ipv4 = (known for known in addresses if known[0] == socket.AF_INET)
    return next(ipv4, addresses[0])


def answers(family: int, address: SocketAddress, timeout_s: float) -> bool:
    """Whether somebody listens there: connect once, and reset the connection."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            return sock.connect_ex(address) == 0
    except OSError:  # a family that this kernel lacks (ipv6.disable=1), say
        return False


def local_address(text: str, family: int) -> str:
    """Return the address of this machine that ``text``, an address or a name, stands for in ``family``.

    Raises:
        UsageError: there is none.

    """
    kind = "IPv6" if family == socket.AF_INET6 else "IPv4"
    try:
        ip = str(socket.getaddrinfo(text, None, family, socket.SOCK_DGRAM)[0][4][0])
    except (OSError, UnicodeError) as failed:
        raise UsageError(f"{text!r} is not an {kind} address; give one of this machine's") from failed
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError as failed:
            raise UsageError(f"{ip} is not an address of this machine; 'ip address' lists them") from failed
    return ip


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
