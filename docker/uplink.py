"""Wire a container that has no network to the host, as a machine beyond docker0 would be.

Run it as root in a container that has the host's network (--network host) and the other container's
processes (--pid container:...). The other's first process is number 1 there. The wire ends with the
other container.
"""

import ipaddress
import sys
from socket import AF_INET

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from snat_race.errors import EnvironmentLacks, SnatRaceError
from snat_race.kernel import netns_lookup
from snat_race.kernel.netns import Namespace

NAME, CAPABILITIES = "snat-race0", "NET_ADMIN, SYS_ADMIN and SYS_PTRACE"


def wire(network: ipaddress.IPv4Interface, other: Namespace) -> None:
    """Make a veth pair: ``network``'s address on our side, the next one on the other's.

    Raises:
        EnvironmentLacks: this host has a route into ``network`` already.

    """
    with other.entered(), IPRoute() as there:
        if there.link_lookup(ifname="eth0"):
            return  # wired already
    with IPRoute() as here:
        for stale in here.link_lookup(ifname=NAME):  # of a container that is just ending
            here.link("del", index=stale)
        if _in_use(here, network.network):
            raise EnvironmentLacks(f"this host uses {network.network}; choose SNAT_RACE_UPLINK=A.B.C.D/N")
        here.link("add", ifname=NAME, kind="veth", peer={"ifname": "eth0", "net_ns_fd": other.fd})
        _address(here, NAME, network.ip, network.network.prefixlen)
    with other.entered(), IPRoute() as there:
        _address(there, "eth0", network.ip + 1, network.network.prefixlen)


def _address(netlink: IPRoute, device: str, ip: ipaddress.IPv4Address, bits: int) -> None:
    index = netlink.link_lookup(ifname=device)[0]
    netlink.addr("add", index=index, address=str(ip), prefixlen=bits)
    netlink.link("set", index=index, state="up")


def _in_use(netlink: IPRoute, network: ipaddress.IPv4Network) -> bool:
    routes = ((route.get_attr("RTA_DST"), route["dst_len"]) for route in netlink.get_routes(family=AF_INET))
    return any(network.overlaps(ipaddress.ip_network(f"{dst}/{length}")) for dst, length in routes if dst)


def main() -> None:
    """Wire, and print the other's address; one line says what went wrong."""
    try:
        network = ipaddress.IPv4Interface(sys.argv[1])
    except ValueError as failed:
        sys.exit(f"SNAT_RACE_UPLINK: {failed}; write 10.18.10.136/30")
    other, broadcast = network.ip + 1, network.network.broadcast_address
    if other not in network.network or (other == broadcast and network.network.prefixlen < 31):
        sys.exit(f"SNAT_RACE_UPLINK: {network} has no next address for the server; write 10.18.10.136/30")
    try:
        wire(network, netns_lookup.find("1"))
    except SnatRaceError as failed:
        sys.exit(f"cannot wire the server to this host: {failed}")
    except (NetlinkError, OSError) as failed:
        sys.exit(f"cannot wire the server to this host: {failed.args[-1]}; it takes {CAPABILITIES}")
    print(network.ip + 1)


if __name__ == "__main__":
    main()
