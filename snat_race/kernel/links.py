"""The network devices of a namespace and their addresses, by netlink: rtnetlink(7)."""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from snat_race.kernel import netlink
from snat_race.kernel.netlink import attributes, text_of
from snat_race.kernel.netns import Namespace

_NEW_LINK, _GET_LINK, _NEW_ADDRESS, _GET_ADDRESS = 16, 18, 20, 22
_FIELDS = struct.Struct("=BBHiII")  # struct ifinfomsg: family, padding, type, index, flags, change
_ADDRESS_FIELDS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_UP = 0x1  # IFF_UP
_LENGTHS = {socket.AF_INET: 4, socket.AF_INET6: 16}  # bytes of an address
_TO_ALL = 0  # RT_SCOPE_UNIVERSE
_ADDRESS, _LOCAL = 1, 2  # IFA_ADDRESS, which is the other end's if there is IFA_LOCAL
_NAME, _INFO, _KIND = 3, 18, 1  # IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One device."""

    name: str
    kind: str  # of a virtual device, "veth" for example; "" of a physical one
    is_up: bool  # by its owner's will, whether or not it has a carrier


def links(namespace: Namespace) -> Iterator[Link]:
    """Yield the devices of a namespace.

    Raises:
        EnvironmentLacks: the kernel does not list them.

    """
    with netlink.opened(namespace, netlink.ROUTE) as asked:
        asked.send(netlink.message(_GET_LINK, netlink.REQUEST | netlink.DUMP, 1, _FIELDS.pack(*[0] * 6)))
        for kind, _, _, body in netlink.answers(asked):
            if kind != _NEW_LINK or len(body) < _FIELDS.size:
                continue
            *_, flags, _ = _FIELDS.unpack_from(body)
            said = dict(attributes(body, _FIELDS.size))
            info = dict(attributes(said.get(_INFO, b"")))
            yield Link(
                name=text_of(said.get(_NAME, b"")),
                kind=text_of(info.get(_KIND, b"")),
                is_up=bool(flags & _UP),
            )


def addresses(namespace: Namespace) -> Iterator[str]:
    """Yield the addresses of all devices of a namespace, without those of its loopback and, of IPv6, those
    of one link only.

    Raises:
        EnvironmentLacks: the kernel does not list them.

    """
    with netlink.opened(namespace, netlink.ROUTE) as asked:
        asked.send(
            netlink.message(_GET_ADDRESS, netlink.REQUEST | netlink.DUMP, 1, _ADDRESS_FIELDS.pack(*[0] * 5))
        )
        for kind, _, _, body in netlink.answers(asked):
            if kind != _NEW_ADDRESS or len(body) < _ADDRESS_FIELDS.size:
                continue
            family, _, _, scope, _ = _ADDRESS_FIELDS.unpack_from(body)
            said = dict(attributes(body, _ADDRESS_FIELDS.size))
            packed = said.get(_LOCAL, said.get(_ADDRESS, b""))
            if len(packed) != _LENGTHS.get(family) or (family == socket.AF_INET6 and scope != _TO_ALL):
                continue
            address = socket.inet_ntop(family, packed)
            if not address.startswith("127."):
                yield address
