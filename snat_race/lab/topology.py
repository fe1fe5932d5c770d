"""The hosts of the lab: containers, the source that forwards and translates, the destination."""

import socket
from collections.abc import Callable
from dataclasses import dataclass

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from snat_race.errors import EnvironmentLacks
from snat_race.kernel.netns import Namespace, new_namespace
from snat_race.lab.settings import Wiring

_IFA_F_NODAD = 2  # linux/if_addr.h: an address that is usable at once
_RT_SCOPE_LINK = 253  # linux/rtnetlink.h: no gateway in between


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """The addresses of the lab in one IP version."""

    family: socket.AddressFamily
    # The containers' subnet, as ADDRESS/BITS, and the bits alone.
    subnet: str
    container_bits: int
    # The source's address in it, the containers' way out.
    gateway: str
    # The first container's address, as what comes before its last number, and that number.
    first_container: tuple[str, int]
    # The source's address on the uplink; translated connections come from there.
    source_ip: str
    # The destination's address on the uplink, and the bits of the uplink's subnet.
    destination_ip: str
    uplink_bits: int
    # Further addresses of the source on the uplink, in a row; SNAT to a pool uses them.
    pool: tuple[str, ...]
    # An address that is nobody's and stands for two backends, which are addresses of the destination.
    service_ip: str
    backends: tuple[str, str]

    def container_ip(self, index: int) -> str:
        """Return the address of container ``index``, counted from 0."""
        prefix, first = self.first_container
        return f"{prefix}{first + index:{'x' if self.family == socket.AF_INET6 else 'd'}}"


IPV4 = Network(
    family=socket.AF_INET,
    subnet="172.17.0.0/16",
    gateway="172.17.0.1",
    first_container=("172.17.0.", 2),
    container_bits=16,
    source_ip="10.18.10.136",
    destination_ip="10.18.10.137",
    uplink_bits=24,
    pool=("10.18.10.140", "10.18.10.141", "10.18.10.142"),
    service_ip="10.96.0.10",
    backends=("10.18.10.150", "10.18.10.151"),
)
IPV6 = Network(
    family=socket.AF_INET6,
    subnet="fd00:17::/64",
    gateway="fd00:17::1",
    first_container=("fd00:17::", 2),
    container_bits=64,
    source_ip="fd00:18::136",
    destination_ip="fd00:18::137",
    uplink_bits=64,
    pool=("fd00:18::140", "fd00:18::141", "fd00:18::142"),
    service_ip="fd00:96::10",
    backends=("fd00:18::150", "fd00:18::151"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """The lab's hosts, wired."""

    network: Network
    # Forwards between the containers and the destination; the SNAT rule is here.
    source: Namespace
    destination: Namespace
    containers: list[Namespace]


def build(containers: int, wiring: Wiring = Wiring.bridge, network: Network = IPV4) -> Topology:
    """Make and wire the namespaces. Call it in a sandbox.

    Raises:
        EnvironmentLacks: the kernel lacks a kind of device, or IPv6, or forbids them.
        OSError: no more namespaces can be made.

    """
    topology = Topology(
        network=network,
        source=new_namespace("source"),
        destination=new_namespace("destination"),
        containers=[new_namespace(f"container {index}") for index in range(containers)],
    )
    for host in (topology.source, topology.destination, *topology.containers):
        _skip_duplicate_address_detection(host, network)
    try:
        _wire_uplink(topology)
        _WIRINGS[wiring](topology)
    except NetlinkError as failed:
        modules = {Wiring.bridge: "veth bridge", Wiring.routed: "veth"}.get(wiring, f"veth {wiring}")
        raise EnvironmentLacks(
            f"cannot build the lab's network ({failed.args[-1]}); this kernel may lack what "
            f"the topology '{wiring}' needs: 'sudo modprobe -a {modules}'"
        ) from failed
    return topology


def _skip_duplicate_address_detection(host: Namespace, network: Network) -> None:
    """Make IPv6 addresses, link-local ones too, usable at once."""
    if network.family == socket.AF_INET6:
        host.sysctl("ipv6/conf/default/accept_dad", 0)


def _wire_uplink(topology: Topology) -> None:
    network = topology.network
    source = topology.source
    destination = topology.destination
    with source.entered(), IPRoute() as netlink:
        _up(netlink, "lo")
        _veth(netlink, "eth0", destination)
        for ip in (network.source_ip, *network.pool):
            _address(netlink, "eth0", ip, network.uplink_bits)
    if network.family == socket.AF_INET6:
        source.sysctl("ipv6/conf/all/forwarding", 1)
    else:
        source.sysctl("ipv4/ip_forward", 1)
    with destination.entered(), IPRoute() as netlink:
        _up(netlink, "lo")
        for ip in (network.destination_ip, *network.backends):
            _address(netlink, "eth0", ip, network.uplink_bits)
        # What is not translated finds its way back too.
        netlink.route("add", family=network.family, dst=network.subnet, gateway=network.source_ip)


def _wire_bridge(topology: Topology) -> None:
    """Wire a bridge and a veth pair for each container, as Docker does.

    A bridge that snoops joins a group of its own and reports that: an entry in the table that is not ours.
    """
    with topology.source.entered(), IPRoute() as netlink:
        netlink.link("add", ifname="docker0", kind="bridge", br_mcast_snooping=0)
        _address(netlink, "docker0", topology.network.gateway, topology.network.container_bits)
        bridge = netlink.link_lookup(ifname="docker0")[0]
        for index, container in enumerate(topology.containers):
            _veth(netlink, f"veth{index}", container)
            netlink.link("set", index=_up(netlink, f"veth{index}"), master=bridge)
    _join_subnet(topology)


def _wire_routed(topology: Topology) -> None:
    """Wire a veth pair and a host route for each container, no bridge, as Calico does."""
    network = topology.network
    host_bits = 128 if network.family == socket.AF_INET6 else 32
    with topology.source.entered(), IPRoute() as netlink:
        for index, container in enumerate(topology.containers):
            _veth(netlink, f"veth{index}", container)
            _address(netlink, f"veth{index}", network.gateway, host_bits)
            _route_to_neighbour(netlink, f"veth{index}", f"{network.container_ip(index)}/{host_bits}")
    for index, container in enumerate(topology.containers):
        with container.entered(), IPRoute() as netlink:
            _up(netlink, "lo")
            _address(netlink, "eth0", network.container_ip(index), host_bits)
            _route_to_neighbour(netlink, "eth0", f"{network.gateway}/{host_bits}")
            netlink.route("add", family=network.family, gateway=network.gateway)


def _wire_sharing(kind: str, **mode: str) -> Callable[[Topology], None]:
    """Wire containers that share one parent device, whose other end is the router's."""

    def wire(topology: Topology) -> None:
        # Holds the parent device, and only carries frames. It lives as long as this process.
        trunk = new_namespace("trunk")
        _skip_duplicate_address_detection(trunk, topology.network)
        with topology.source.entered(), IPRoute() as netlink:
            netlink.link(
                "add", ifname="lan0", kind="veth", peer={"ifname": "trunk0", "net_ns_fd": trunk.fd}
            )
            _address(netlink, "lan0", topology.network.gateway, topology.network.container_bits)
        with trunk.entered(), IPRoute() as netlink:
            parent = _up(netlink, "trunk0")
            for container in topology.containers:
                netlink.link("add", ifname="eth0", kind=kind, link=parent, net_ns_fd=container.fd, **mode)
        _join_subnet(topology)

    return wire


_WIRINGS = {
    Wiring.bridge: _wire_bridge,
    Wiring.routed: _wire_routed,
    Wiring.ipvlan: _wire_sharing("ipvlan"),
    Wiring.macvlan: _wire_sharing("macvlan", macvlan_mode="bridge"),
}


def _join_subnet(topology: Topology) -> None:
    """Give each container its address in the common subnet, and the way out."""
    network = topology.network
    for index, container in enumerate(topology.containers):
        with container.entered(), IPRoute() as netlink:
            _up(netlink, "lo")
            _address(netlink, "eth0", network.container_ip(index), network.container_bits)
            netlink.route("add", family=network.family, gateway=network.gateway)


def _veth(netlink: IPRoute, name: str, peer: Namespace) -> None:
    """Make a pair of devices: ``name`` here, ``eth0`` in ``peer``."""
    netlink.link("add", ifname=name, kind="veth", peer={"ifname": "eth0", "net_ns_fd": peer.fd})


def _route_to_neighbour(netlink: IPRoute, name: str, host: str) -> None:
    """Say that ``host``, an ADDRESS/BITS, is at the other end of a device, with no gateway in between."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    oif = netlink.link_lookup(ifname=name)[0]
    netlink.route("add", family=family, dst=host, oif=oif, scope=_RT_SCOPE_LINK)


def _up(netlink: IPRoute, name: str) -> int:
    """Bring a device up; return its index."""
    index: int = netlink.link_lookup(ifname=name)[0]
    netlink.link("set", index=index, state="up")
    return index


def _address(netlink: IPRoute, name: str, ip: str, bits: int) -> None:
    """Give a device an address, and bring it up."""
    flags = {"flags": _IFA_F_NODAD} if ":" in ip else {}
    netlink.addr("add", index=_up(netlink, name), address=ip, prefixlen=bits, **flags)
