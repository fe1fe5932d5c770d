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


@dataclass(frozen=True, slots=True)
class Network:
    """The addresses of one IP version. ``pool`` are further ones of the source, first and last."""

    family: socket.AddressFamily
    subnet: str
    gateway: str
    first_container: tuple[str, int]
    container_bits: int
    source_ip: str
    destination_ip: str
    uplink_bits: int
    pool: tuple[str, ...]
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


@dataclass(frozen=True, slots=True)
class Topology:
    """``source`` forwards from ``containers`` to ``destination``; ``others`` only carry frames."""

    network: Network
    source: Namespace
    destination: Namespace
    containers: list[Namespace]
    others: list[Namespace]


def build(containers: int, wiring: Wiring = Wiring.bridge, network: Network = IPV4) -> Topology:
    """Make and wire the namespaces. Call it in a sandbox.

    Raises:
        EnvironmentLacks: the kernel lacks a kind of device, or IPv6, or forbids them.

    """
    made = Topology(
        network,
        new_namespace("source"),
        new_namespace("destination"),
        [new_namespace(f"container {index}") for index in range(containers)],
        [new_namespace("trunk")] if wiring in {Wiring.ipvlan, Wiring.macvlan} else [],
    )
    if network.family == socket.AF_INET6:
        for each in (made.source, made.destination, *made.containers, *made.others):
            # Without duplicate address detection, link-local addresses too are usable at once.
            each.sysctl("ipv6/conf/default/accept_dad", 0)
    try:
        _wire_uplink(made)
        _WIRINGS[wiring](made)
    except NetlinkError as failed:
        kinds = {Wiring.bridge: "veth bridge", Wiring.routed: "veth"}.get(wiring, f"veth {wiring}")
        raise EnvironmentLacks(
            f"cannot build the lab's network ({failed.args[-1]}); this kernel may lack what "
            f"--topology {wiring} needs: 'sudo modprobe -a {kinds}'"
        ) from failed
    return made


def _wire_uplink(made: Topology) -> None:
    net, source, destination = made.network, made.source, made.destination
    with source.entered(), IPRoute() as netlink:
        _up(netlink, "lo")
        _veth(netlink, "eth0", destination)
        for ip in (net.source_ip, *net.pool):
            _address(netlink, "eth0", ip, net.uplink_bits)
    if net.family == socket.AF_INET6:
        source.sysctl("ipv6/conf/all/forwarding", 1)
    else:
        source.sysctl("ipv4/ip_forward", 1)
    with destination.entered(), IPRoute() as netlink:
        _up(netlink, "lo")
        for ip in (net.destination_ip, *net.backends):
            _address(netlink, "eth0", ip, net.uplink_bits)
        # What is not translated finds its way back too.
        netlink.route("add", family=net.family, dst=net.subnet, gateway=net.source_ip)


def _wire_bridge(made: Topology) -> None:
    """Wire a bridge and a veth pair for each container, as Docker does."""
    with made.source.entered(), IPRoute() as netlink:
        netlink.link("add", ifname="docker0", kind="bridge")
        _address(netlink, "docker0", made.network.gateway, made.network.container_bits)
        bridge = netlink.link_lookup(ifname="docker0")[0]
        for index, container in enumerate(made.containers):
            _veth(netlink, f"veth{index}", container)
            netlink.link("set", index=_up(netlink, f"veth{index}"), master=bridge)
    _join_subnet(made)


def _wire_routed(made: Topology) -> None:
    """Wire a veth pair and a host route for each container, no bridge, as Calico does."""
    net, every = made.network, 128 if made.network.family == socket.AF_INET6 else 32
    with made.source.entered(), IPRoute() as netlink:
        for index, container in enumerate(made.containers):
            _veth(netlink, f"veth{index}", container)
            _address(netlink, f"veth{index}", net.gateway, every)
            _neighbour(netlink, f"veth{index}", f"{net.container_ip(index)}/{every}")
    for index, container in enumerate(made.containers):
        with container.entered(), IPRoute() as netlink:
            _up(netlink, "lo")
            _address(netlink, "eth0", net.container_ip(index), every)
            _neighbour(netlink, "eth0", f"{net.gateway}/{every}")
            netlink.route("add", family=net.family, gateway=net.gateway)


def _wire_sharing(kind: str, **mode: str) -> Callable[[Topology], None]:
    """Wire containers that share one parent device, whose other end is the router's."""

    def wire(made: Topology) -> None:
        (trunk,) = made.others
        with made.source.entered(), IPRoute() as netlink:
            netlink.link(
                "add", ifname="lan0", kind="veth", peer={"ifname": "trunk0", "net_ns_fd": trunk.fd}
            )
            _address(netlink, "lan0", made.network.gateway, made.network.container_bits)
        with trunk.entered(), IPRoute() as netlink:
            parent = _up(netlink, "trunk0")
            for container in made.containers:
                netlink.link("add", ifname="eth0", kind=kind, link=parent, net_ns_fd=container.fd, **mode)
        _join_subnet(made)

    return wire


_WIRINGS = {
    Wiring.bridge: _wire_bridge,
    Wiring.routed: _wire_routed,
    Wiring.ipvlan: _wire_sharing("ipvlan"),
    Wiring.macvlan: _wire_sharing("macvlan", macvlan_mode="bridge"),
}


def _join_subnet(made: Topology) -> None:
    """Give each container its address in the common subnet, and the way out."""
    net = made.network
    for index, container in enumerate(made.containers):
        with container.entered(), IPRoute() as netlink:
            _up(netlink, "lo")
            _address(netlink, "eth0", net.container_ip(index), net.container_bits)
            netlink.route("add", family=net.family, gateway=net.gateway)


def _veth(netlink: IPRoute, name: str, peer: Namespace) -> None:
    netlink.link("add", ifname=name, kind="veth", peer={"ifname": "eth0", "net_ns_fd": peer.fd})


def _neighbour(netlink: IPRoute, name: str, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    oif = netlink.link_lookup(ifname=name)[0]
    netlink.route("add", family=family, dst=host, oif=oif, scope=_RT_SCOPE_LINK)


def _up(netlink: IPRoute, name: str) -> int:
    index: int = netlink.link_lookup(ifname=name)[0]
    netlink.link("set", index=index, state="up")
    return index


def _address(netlink: IPRoute, name: str, ip: str, bits: int) -> None:
    flags = {"flags": _IFA_F_NODAD} if ":" in ip else {}
    netlink.addr("add", index=_up(netlink, name), address=ip, prefixlen=bits, **flags)
