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
        self._kept: dict[tuple[str, int], bool] = {}
        self._devices: dict[int, str] = {}
        self._bridges: dict[int, int] = {}
        self._since_s = time.monotonic()

    def keeps(self, address: str, port: int = 0) -> bool:
        """Whether a packet that comes in for an address is not for this host to forward.

        It is delivered here, as the routing tables say: also for addresses that no device has, as of a
        proxy. Or a bridge passes it on: one that came in at its ``port``, and whose way leads out of that
        bridge again. A container's packets for elsewhere also come in at a port, but their way leads out of
        another device: so this host is their gateway. With br_netfilter they are lost at the port already.

        Args:
            address: where the packet is to go.
            port: ifindex of the port of a bridge that alone saw it; 0: it came further.

        """
        self._forget_if_old()
        if (address, port) not in self._kept:
            self._kept[address, port] = self._ask(address, port)
        return self._kept[address, port]

    def device_name(self, index: int) -> str:
        """Return the name of a device; "device 7" if it is gone."""
        self._forget_if_old()
        self._know(index)
        return self._devices.setdefault(index, f"device {index}")

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def _forget_if_old(self) -> None:
        if time.monotonic() - self._since_s > _KNOWN_FOR_S or len(self._kept) >= _MOST_KNOWN:
            self._kept.clear()
            self._devices.clear()
            self._bridges.clear()
            self._since_s = time.monotonic()

    def _know(self, index: int) -> None:
        """Ask for all devices, if one is not known."""
        if index not in self._devices:
            for link in self._netlink.get_links():
                self._devices[link["index"]] = link.get_attr("IFLA_IFNAME")
                self._bridges[link["index"]] = link.get_attr("IFLA_MASTER") or 0

    def _ask(self, address: str, port: int) -> bool:
        self._know(port)
        bridge = self._bridges.get(port, 0)
        try:
            routes = self._netlink.route("get", dst=address)
        except NetlinkError:  # there is no route
            return bool(port)
        if any(route["type"] in _KEPT for route in routes):
            return True
        return bool(port) and (not bridge or any(route.get_attr("RTA_OIF") == bridge for route in routes))
