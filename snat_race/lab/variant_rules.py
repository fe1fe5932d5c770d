"""A variant in the three languages that load it: an nft script, iptables arguments, netlink expressions.

A test loads every variant by netlink and by nft, and compares what ``nft list ruleset`` prints.
"""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

from pyroute2.nftables.expressions import genex

from snat_race.errors import Unavailable
from snat_race.lab.topology import Network
from snat_race.lab.variants import TranslateTo, Variant

Expressions = list[dict[str, Any]]
"""One rule of nftables, as pyroute2 sends it."""

TABLE = "snat_race"
_PRIORITY_RAW, _PRIORITY_DNAT, _PRIORITY_SNAT = -300, -100, 100  # linux/netfilter_ipv4.h
# linux/netfilter/nf_tables.h
_NFT_NAT_SNAT, _NFT_NAT_DNAT = 0, 1
_NFT_NG_RANDOM = 1
_NFT_CT_STATE = 0
_NFT_PAYLOAD_NETWORK_HEADER = 1
_NFT_CMP_EQ = 0
# Where the addresses are in an IP header, in bytes: by IP version.
_SOURCE_AT, _DESTINATION_AT = {4: 12, 6: 8}, {4: 16, 6: 24}
_NFPROTO_IPV4, _NFPROTO_IPV6 = 2, 10  # linux/netfilter.h
_NETLINK_FLAGS = {
    "random": "NF_NAT_RANGE_PROTO_RANDOM",
    "fully-random": "NF_NAT_RANGE_PROTO_RANDOM_FULLY",
    "persistent": "NF_NAT_RANGE_PERSISTENT",
}
_IPTABLES_FLAGS = {"random": "--random", "fully-random": "--random-fully", "persistent": "--persistent"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """A base chain of nftables."""

    # "nat" or "filter".
    kind: str
    # Where in a packet's way it is: "prerouting" or "postrouting".
    hook: str
    # The lower, the earlier among the chains of a hook.
    priority: int


NAT_CHAIN = Chain(kind="nat", hook="postrouting", priority=_PRIORITY_SNAT)
RAW_CHAIN = Chain(kind="filter", hook="prerouting", priority=_PRIORITY_RAW)
SERVICE_CHAIN = Chain(kind="nat", hook="prerouting", priority=_PRIORITY_DNAT)


def describe(variant: Variant, network: Network) -> str:
    """Return what is loaded, for the record."""
    return variant.command_text or nft_statement(variant, network) or "no rule"


def nft_statement(variant: Variant, network: Network) -> str:
    """Return what the variant does, as nft writes it; empty for no translation."""
    if variant.translate_to is TranslateTo.nothing:
        return "" if variant.tracked else "notrack"
    if variant.translate_to is TranslateTo.masquerade:
        ports = f" to :{variant.ports[0]}-{variant.ports[1]}" if variant.ports else ""
        statement = f"masquerade{ports}"
    else:
        statement = f"snat to {'-'.join(_addresses(variant, network))}"
    return f"{statement} {','.join(variant.flags)}".rstrip()


def nft_script(variant: Variant, network: Network, protocol: str) -> str:
    """Return a script for ``nft -f``; ``protocol``: "tcp" or "udp"."""
    chain = NAT_CHAIN if variant.tracked else RAW_CHAIN
    family = "ip6" if network.family == socket.AF_INET6 else "ip"
    statement = nft_statement(variant, network)
    # Without translation any rule will do that asks for a connection's state: conntrack is at work then.
    rule = "ct state invalid counter"
    if statement:
        # nft takes a range of ports only where the protocol is known.
        protocol_match = f"meta l4proto {protocol} " if variant.ports else ""
        rule = f"{family} saddr {network.subnet} {protocol_match}{statement}"
    return (
        f"table {family} {TABLE} {{ chain c {{ type {chain.kind} hook {chain.hook} "
        f"priority {chain.priority}; {rule}\n}}\n}}\n"
    )


def iptables_arguments(variant: Variant, network: Network, protocol: str) -> list[str]:
    """Return the arguments of ``iptables`` or ``ip6tables``; ``protocol``: "tcp" or "udp".

    Raises:
        Unavailable: iptables cannot say it.

    """
    if not variant.tracked:
        return ["-t", "raw", "-A", "PREROUTING", "-s", network.subnet, "-j", "CT", "--notrack"]
    if variant.translate_to is TranslateTo.nothing:
        return ["-t", "nat", "-A", "POSTROUTING", "-m", "conntrack", "--ctstate", "INVALID"]
    arguments = ["-t", "nat", "-A", "POSTROUTING", "-s", network.subnet]
    if variant.ports:
        arguments += ["-p", protocol]
    if variant.translate_to is TranslateTo.masquerade:
        if "persistent" in variant.flags:
            raise Unavailable("iptables' MASQUERADE has no --persistent")
        arguments += ["-j", "MASQUERADE"]
        if variant.ports:
            arguments += ["--to-ports", f"{variant.ports[0]}-{variant.ports[1]}"]
    else:
        arguments += ["-j", "SNAT", "--to-source", "-".join(_addresses(variant, network))]
    return arguments + [_IPTABLES_FLAGS[flag] for flag in variant.flags]


def expressions(variant: Variant, network: Network) -> Expressions:
    """Return the rule as netlink has it."""
    if not variant.tracked:
        return [*_matches(network.subnet, _SOURCE_AT), {"attrs": [("NFTA_EXPR_NAME", "notrack")]}]
    if variant.translate_to is TranslateTo.nothing:
        return [genex("ct", {"dreg": 1, "key": _NFT_CT_STATE})]  # so that conntrack is at work
    flags = {_NETLINK_FLAGS[flag] for flag in variant.flags}
    loads: Expressions = []
    data: dict[str, Any] = {}
    if variant.translate_to is not TranslateTo.masquerade:
        addresses = _addresses(variant, network)
        loads += [_load(1, _packed(addresses[0])), _load(2, _packed(addresses[-1]))]
        data |= {"type": _NFT_NAT_SNAT, "family": nfproto(network), "reg_addr_min": 1, "reg_addr_max": 2}
        flags.add("NF_NAT_RANGE_MAP_IPS")
    if variant.ports:
        first, last = variant.ports
        loads += [_load(3, first.to_bytes(2)), _load(4, last.to_bytes(2))]
        data |= {"reg_proto_min": 3, "reg_proto_max": 4}
        flags.add("NF_NAT_RANGE_PROTO_SPECIFIED")
    if flags:
        data["flags"] = flags
    statement = "masq" if variant.translate_to is TranslateTo.masquerade else "nat"
    return [*_matches(network.subnet, _SOURCE_AT), *loads, genex(statement, data)]


def service_rules(network: Network) -> list[Expressions]:
    """Return two rules that send each connection to one of two backends by chance, as kube-proxy
    does with ``-m statistic --mode random``.
    """
    numgen = {
        "attrs": [("NFTA_NG_DREG", 1), ("NFTA_NG_MODULUS", 2), ("NFTA_NG_TYPE", _NFT_NG_RANDOM)],
    }
    draw = {"attrs": [("NFTA_EXPR_NAME", "numgen"), ("NFTA_EXPR_DATA", numgen)]}
    is_zero = genex("cmp", {"sreg": 1, "op": _NFT_CMP_EQ, "data": _data((0).to_bytes(4))})
    to_service = _matches(network.service_ip, _DESTINATION_AT)
    first, second = (_destination_nat(backend, network) for backend in network.backends)
    return [[*to_service, draw, is_zero, *first], [*to_service, *second]]


def _destination_nat(backend: str, network: Network) -> Expressions:
    data = {
        "type": _NFT_NAT_DNAT,
        "family": nfproto(network),
        "flags": {"NF_NAT_RANGE_MAP_IPS"},
        "reg_addr_min": 1,
        "reg_addr_max": 1,
    }
    return [_load(1, _packed(backend)), genex("nat", data)]


def nfproto(network: Network) -> int:
    """Return the netfilter protocol family of a network."""
    return _NFPROTO_IPV6 if network.family == socket.AF_INET6 else _NFPROTO_IPV4


def _addresses(variant: Variant, network: Network) -> tuple[str, ...]:
    """Return the first and the last address to translate to, or the only one."""
    if variant.translate_to is TranslateTo.address_pool:
        return (network.pool[0], network.pool[-1])
    return (network.source_ip,)


def _packed(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


def _data(value: bytes) -> dict[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _load(register: int, value: bytes) -> dict[str, Any]:
    """Put a value into a register of nftables' machine."""
    expression: dict[str, Any] = genex("immediate", {"dreg": register, "data": _data(value)})
    return expression


def _matches(subnet: str, offsets: dict[int, int]) -> Expressions:
    """Compare the packet's address at one of ``offsets``, by IP version, with ``subnet``."""
    network = ipaddress.ip_network(subnet)
    size = len(network.network_address.packed)
    payload = {
        "dreg": 1,
        "base": _NFT_PAYLOAD_NETWORK_HEADER,
        "offset": offsets[network.version],
        "len": size,
    }
    mask = {
        "sreg": 1,
        "dreg": 1,
        "len": size,
        "mask": _data(network.netmask.packed),
        "xor": _data(bytes(size)),
    }
    compare = {"sreg": 1, "op": _NFT_CMP_EQ, "data": _data(network.network_address.packed)}
    return [genex("payload", payload), genex("bitwise", mask), genex("cmp", compare)]
