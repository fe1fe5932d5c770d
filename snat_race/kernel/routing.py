"""What a namespace does with packets: which it keeps for itself, and what its devices are called."""

import time

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from snat_race.kernel.netns import Namespace

_RTN_LOCAL, _RTN_BROADCAST, _RTN_MULTICAST = 2, 3, 5  # linux/rtnetlink.h
_KEPT = {_RTN_LOCAL, _RTN_BROADCAST, _RTN_MULTICAST}
_MOST_KNOWN = 65_536
_KNOWN_FOR_S = 5.0  # then addresses and devices may have come or gone


class Routing:
    """Asks the kernel, and remembers its answers for some seconds."""

    def __init__(self, namespace: Namespace) -> None:
        with namespace.entered():
            self._netlink = IPRoute()
        self._kept: dict[str, bool] = {}
        self._devices: dict[int, str] = {}
        self._since_s = time.monotonic()

    def delivers_here(self, address: str) -> bool:
        """Whether a packet that comes in for an address is delivered on this host, and not forwarded.

        The routing tables say so: also of addresses that no device has, as of a proxy.
        """
        self._forget_if_old()
        if address not in self._kept:
            self._kept[address] = self._ask(address)
        return self._kept[address]

    def device_name(self, index: int) -> str:
        """Return the name of a device; "device 7" if it is gone."""
        self._forget_if_old()
        if index not in self._devices:
            links = self._netlink.get_links()
            self._devices |= {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
        return self._devices.setdefault(index, f"device {index}")

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def _forget_if_old(self) -> None:
        if time.monotonic() - self._since_s > _KNOWN_FOR_S or len(self._kept) >= _MOST_KNOWN:
            self._kept.clear()
            self._devices.clear()
            self._since_s = time.monotonic()

    def _ask(self, address: str) -> bool:
        try:
            routes = self._netlink.route("get", dst=address)
        except NetlinkError:  # there is no route
            return False
        return any(route["type"] in _KEPT for route in routes)
