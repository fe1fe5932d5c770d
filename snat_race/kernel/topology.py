"""The hosts of the lab, wired as a Docker host would be: containers on a bridge, one uplink."""

from dataclasses import dataclass

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from snat_race.errors import EnvironmentLacks
from snat_race.kernel.namespaces import Namespace, new_namespace

SUBNET = "172.17.0.0/16"
DESTINATION_IP = "10.18.10.137"
SOURCE_IP = "10.18.10.136"
_GATEWAY = "172.17.0.1"


@dataclass(frozen=True, slots=True)
class Topology:
    """``source`` forwards from ``containers`` (172.17.0.2, .3, ...) to ``destination``."""

    source: Namespace
    destination: Namespace
    containers: list[Namespace]

    @staticmethod
    def container_ip(index: int) -> str:
        """Return the address of container ``index``, counted from 0."""
        return f"172.17.0.{index + 2}"


def build_bridge(containers: int) -> Topology:
    """Make and wire the namespaces. Call it in a sandbox.

    Raises:
        EnvironmentLacks: the kernel has no veth or bridge, or forbids them.

    """
    topology = Topology(
        new_namespace("source"),
        new_namespace("destination"),
        [new_namespace(f"container {index}") for index in range(containers)],
    )
    try:
        _wire(topology)
    except NetlinkError as failed:
        raise EnvironmentLacks(
            f"cannot build the lab's network ({failed.args[-1]}); it needs the kernel modules veth "
            "and bridge: 'sudo modprobe -a veth bridge'"
        ) from failed
    return topology


def _wire(topology: Topology) -> None:
    source, destination = topology.source, topology.destination
    with source.entered(), IPRoute() as netlink:
        netlink.link("add", ifname="docker0", kind="bridge")
        netlink.addr("add", index=_up(netlink, "docker0"), address=_GATEWAY, prefixlen=16)
        _veth(netlink, "eth0", destination)
        netlink.addr("add", index=_up(netlink, "eth0"), address=SOURCE_IP, prefixlen=24)
        bridge = netlink.link_lookup(ifname="docker0")[0]
        for index, container in enumerate(topology.containers):
            _veth(netlink, f"veth{index}", container)
            netlink.link("set", index=_up(netlink, f"veth{index}"), master=bridge)
    source.sysctl("ipv4/ip_forward", 1)
    with destination.entered(), IPRoute() as netlink:
        _up(netlink, "lo")
        netlink.addr("add", index=_up(netlink, "eth0"), address=DESTINATION_IP, prefixlen=24)
    for index, container in enumerate(topology.containers):
        with container.entered(), IPRoute() as netlink:
            _up(netlink, "lo")
            address = Topology.container_ip(index)
            netlink.addr("add", index=_up(netlink, "eth0"), address=address, prefixlen=16)
            netlink.route("add", gateway=_GATEWAY)


def _veth(netlink: IPRoute, name: str, peer: Namespace) -> None:
    netlink.link("add", ifname=name, kind="veth", peer={"ifname": "eth0", "net_ns_fd": peer.fd})


def _up(netlink: IPRoute, name: str) -> int:
    index: int = netlink.link_lookup(ifname=name)[0]
    netlink.link("set", index=index, state="up")
    return index
