"""The network devices of a namespace, by netlink: rtnetlink(7)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from snat_race.kernel import netlink
from snat_race.kernel.netlink import attributes, text_of
from snat_race.kernel.netns import Namespace

_NEW_LINK, _GET_LINK = 16, 18
_FIELDS = struct.Struct("=BBHiII")  # struct ifinfomsg: family, padding, type, index, flags, change
_UP = 0x1  # IFF_UP
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
