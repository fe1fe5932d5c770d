"""A variant in the languages that load it: netlink expressions, an nft script, iptables commands."""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

from pyroute2.nftables.expressions import genex

from snat_race.errors import Unavailable
from snat_race.lab.topology import Network
from snat_race.lab.variants import Variant

Expressions = list[dict[str, Any]]

TABLE = "snat_race"
_PRIORITY_RAW, _PRIORITY_DNAT, PRIORITY_SNAT = -300, -100, 100  # linux/netfilter_ipv4.h
# linux/netfilter/nf_tables.h
_NFT_NAT_SNAT, _NFT_NAT_DNAT, _NFT_NG_RANDOM, _NFT_CT_STATE, _NETWORK_HEADER = 0, 1, 1, 0, 1
_SOURCE_AT, _DESTINATION_AT = {4: 12, 6: 8}, {4: 16, 6: 24}
_FLAGS = {
    "random": "NF_NAT_RANGE_PROTO_RANDOM",
    "fully-random": "NF_NAT_RANGE_PROTO_RANDOM_FULLY",
    "persistent": "NF_NAT_RANGE_PERSISTENT",
}


@dataclass(frozen=True, slots=True)
class Chain:
    """A base chain of nftables."""

    kind: str
    hook: str
    priority: int


NAT_CHAIN = Chain("nat", "postrouting", PRIORITY_SNAT)
RAW_CHAIN = Chain("filter", "prerouting", _PRIORITY_RAW)
SERVICE_CHAIN = Chain("nat", "prerouting", _PRIORITY_DNAT)


def _saddr(net: Network) -> str:
    return f"{'ip6' if net.family == socket.AF_INET6 else 'ip'} saddr {net.subnet}"


def nft_statement(variant: Variant, net: Network) -> str:
    """Return what the variant does, as nft writes it; empty for no translation."""
    if not variant.to:
        return "" if variant.tracked else "notrack"
    ports = f":{variant.ports[0]}-{variant.ports[1]}" if variant.ports else ""
    if variant.to == "masquerade":
        words = f"masquerade to {ports}" if ports else "masquerade"
    else:
        words = f"snat to {'-'.join(_addresses(variant, net))}"
    return f"{words} {','.join(variant.flags)}".rstrip()


def describe(variant: Variant, net: Network) -> str:
    """Return what is loaded, for the record."""
    return variant.text or nft_statement(variant, net) or "no rule"


def nft_script(variant: Variant, net: Network, protocol: str) -> str:
    """Return a script for ``nft -f``."""
    chain = NAT_CHAIN if variant.tracked else RAW_CHAIN
    family = "ip6" if net.family == socket.AF_INET6 else "ip"
    matching = f"meta l4proto {protocol} " if variant.ports else ""
    statement = nft_statement(variant, net)
    rule = f"{_saddr(net)} {matching}{statement}" if statement else "ct state invalid counter"
    return (
        f"table {family} {TABLE} {{ chain c {{ type {chain.kind} hook {chain.hook} "
        f"priority {chain.priority}; {rule}\n}}\n}}\n"
    )


def iptables_arguments(variant: Variant, net: Network, protocol: str) -> list[str]:
    """Return the arguments of ``iptables`` or ``ip6tables``.

    Raises:
        Unavailable: iptables cannot say it.

    """
    if not variant.tracked:
        return ["-t", "raw", "-A", "PREROUTING", "-s", net.subnet, "-j", "CT", "--notrack"]
    if not variant.to:
        return ["-t", "nat", "-A", "POSTROUTING", "-m", "conntrack", "--ctstate", "INVALID"]
    words = ["-t", "nat", "-A", "POSTROUTING", "-s", net.subnet]
    if variant.ports:
        words += ["-p", protocol]
    if variant.to == "masquerade":
        if "persistent" in variant.flags:
            raise Unavailable("iptables' MASQUERADE has no --persistent")
        words += ["-j", "MASQUERADE"]
        if variant.ports:
            words += ["--to-ports", f"{variant.ports[0]}-{variant.ports[1]}"]
    else:
        words += ["-j", "SNAT", "--to-source", "-".join(_addresses(variant, net))]
    return words + [{"fully-random": "--random-fully"}.get(flag, f"--{flag}") for flag in variant.flags]


def expressions(variant: Variant, net: Network) -> Expressions:
    """Return the rule as netlink has it."""
    if not variant.tracked:
        return [*_matches(net.subnet, _SOURCE_AT), {"attrs": [("NFTA_EXPR_NAME", "notrack")]}]
    if not variant.to:
        return [genex("ct", {"dreg": 1, "key": _NFT_CT_STATE})]  # so that conntrack is at work
    flags = {_FLAGS[flag] for flag in variant.flags}
    loaded: Expressions = []
    data: dict[str, Any] = {}
    if variant.to != "masquerade":
        addresses = _addresses(variant, net)
        loaded += [_load(1, _packed(addresses[0])), _load(2, _packed(addresses[-1]))]
        data |= {"type": _NFT_NAT_SNAT, "family": nfproto(net), "reg_addr_min": 1, "reg_addr_max": 2}
        flags.add("NF_NAT_RANGE_MAP_IPS")
    if variant.ports:
        low, high = variant.ports
        loaded += [_load(3, low.to_bytes(2)), _load(4, high.to_bytes(2))]
        data |= {"reg_proto_min": 3, "reg_proto_max": 4}
        flags.add("NF_NAT_RANGE_PROTO_SPECIFIED")
    if flags:
        data["flags"] = flags
    return [
        *_matches(net.subnet, _SOURCE_AT),
        *loaded,
        genex("masq" if variant.to == "masquerade" else "nat", data),
    ]


def service_rules(net: Network) -> list[Expressions]:
    """Return two rules that send each connection to one of two backends by chance, as kube-proxy
    does with ``-m statistic --mode random``.
    """
    drawn = {"attrs": [("NFTA_NG_DREG", 1), ("NFTA_NG_MODULUS", 2), ("NFTA_NG_TYPE", _NFT_NG_RANDOM)]}
    draw = {"attrs": [("NFTA_EXPR_NAME", "numgen"), ("NFTA_EXPR_DATA", drawn)]}
    heads = genex("cmp", {"sreg": 1, "op": 0, "data": _data((0).to_bytes(4))})
    to_service = _matches(net.service_ip, _DESTINATION_AT)
    first, second = (_destination_nat(backend, net) for backend in net.backends)
    return [[*to_service, draw, heads, *first], [*to_service, *second]]


def _destination_nat(backend: str, net: Network) -> Expressions:
    data = {"type": _NFT_NAT_DNAT, "family": nfproto(net), "flags": {"NF_NAT_RANGE_MAP_IPS"}}
    return [_load(1, _packed(backend)), genex("nat", data | {"reg_addr_min": 1, "reg_addr_max": 1})]


def nfproto(net: Network) -> int:
    """Return the netfilter protocol family of a network."""
    return 10 if net.family == socket.AF_INET6 else 2


def _addresses(variant: Variant, net: Network) -> tuple[str, ...]:
    """Return the first and the last address to translate to."""
    return (net.pool[0], net.pool[-1]) if variant.to == "pool" else (net.source_ip,)


def _packed(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


def _data(value: bytes) -> dict[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _load(register: int, value: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = genex("immediate", {"dreg": register, "data": _data(value)})
    return loaded


def _matches(subnet: str, at: dict[int, int]) -> Expressions:
    """Compare an address of the packet with ``subnet``."""
    network = ipaddress.ip_network(subnet)
    size = len(network.network_address.packed)
    payload = {"dreg": 1, "base": _NETWORK_HEADER, "offset": at[network.version], "len": size}
    mask = {
        "sreg": 1,
        "dreg": 1,
        "len": size,
        "mask": _data(network.netmask.packed),
        "xor": _data(bytes(size)),
    }
    compare = {"sreg": 1, "op": 0, "data": _data(network.network_address.packed)}
    return [genex("payload", payload), genex("bitwise", mask), genex("cmp", compare)]
