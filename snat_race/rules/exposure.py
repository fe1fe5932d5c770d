"""Which SNAT rules of a host are exposed to the race, and why the others are not. Pure.

A rule is exposed if the kernel tries to keep the client's source port, and two clients may share the
address that it translates to: get_unique_tuple() in net/netfilter/nf_nat_core.c keeps the port unless
NF_NAT_RANGE_PROTO_RANDOM_ALL is set.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from snat_race.results.findings import ChainAddress, NotExposed, Unchangeable

RANDOM = frozenset({"random", "fully-random"})
_WITHOUT_PORTS = frozenset({"icmp", "icmpv6", "ipv6-icmp", "1", "58"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTraits:
    """What decides about a rule besides its own words."""

    # Whether --random is as good as --random-fully: since 5.0. An older kernel hands out a range of few
    # ports in order, and racing clients get the same one.
    random_is_full: bool = True
    # From which ports clients connect: those of this host, and those of its containers.
    client_ports: tuple[int, int] = (32768, 60999)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnatRule:
    """One rule that translates sources."""

    chain: ChainAddress
    index: int  # in its chain, counted from 0
    text: str  # as its tool prints it, without handle and without the counts in front
    to_address: str = ""  # what it translates to; "" for masquerade
    flags: frozenset[str] = frozenset()  # random, fully-random, persistent, netmap
    ports: tuple[int, int] | None = None  # that it may give to clients, both inclusive; None is any
    protocol: str = ""  # that it asks for; "" is any
    source_network: str = ""  # that it asks for; "" is any, or several
    destination_network: str = ""  # likewise
    comment: str = ""
    reachable: bool = True  # whether a packet can come to its chain
    unchangeable: Unchangeable | None = None  # why no other program can change it
    not_exposed: NotExposed | None = None  # see :func:`judged`

    @property
    def exposed(self) -> bool:
        """Whether its clients can lose SYNs to the race."""
        return self.not_exposed is None


def judged(rules: Iterable[SnatRule], traits: HostTraits) -> list[SnatRule]:
    """Return the rules of a whole host, each with the reason why it is not exposed, if there is one.

    A rule for a pool of clients is exposed by itself. A rule for a single client is exposed only if a
    rule for another client, in whichever tool, may give that the same address. Rules that draw ports
    race neither with one another nor with these.
    """
    alone = [
        replace(rule, not_exposed=reason) if (reason := _reason_alone(rule, traits)) else rule
        for rule in rules
    ]
    single = [rule for rule in alone if rule.exposed and _one_client(rule)]
    return [
        replace(rule, not_exposed=NotExposed.single_client)
        if rule.exposed and _one_client(rule) and not any(_race(rule, other) for other in single)
        else rule
        for rule in alone
    ]


def _race(rule: SnatRule, other: SnatRule) -> bool:
    """Whether two rules of a client each give them one address. Masquerade may mean any."""
    return (
        _network(rule.source_network) != _network(other.source_network)
        and (rule.protocol == other.protocol or not (rule.protocol and other.protocol))
        and bool(_ip_versions(rule) & _ip_versions(other))
        and (rule.to_address == other.to_address or not (rule.to_address and other.to_address))
    )


def _ip_versions(rule: SnatRule) -> set[int]:
    """Return the IP versions that a rule may be for; a chain of family inet has both."""
    if named := f"{rule.source_network}{rule.to_address}":
        return {6 if ":" in named else 4}
    return {"ip": {4}, "ip6": {6}}.get(rule.chain.family, {4, 6})


def _reason_alone(rule: SnatRule, traits: HostTraits) -> NotExposed | None:
    """Return why a rule is not exposed, whatever other rules there are."""
    if "fully-random" in rule.flags or (traits.random_is_full and "random" in rule.flags):
        return NotExposed.random_ports
    if "netmap" in rule.flags:
        return NotExposed.address_per_client
    if not rule.reachable:
        return NotExposed.unreachable_chain
    if rule.protocol in _WITHOUT_PORTS:
        return NotExposed.no_ports
    if rule.source_network and rule.source_network == rule.destination_network and _one_client(rule):
        return NotExposed.client_reaches_itself
    return _reason_of_ports(rule.ports, traits) if rule.ports else None


def _reason_of_ports(ports: tuple[int, int], traits: HostTraits) -> NotExposed | None:
    """Return why a rule that gives out these ports only is not exposed.

    A client's port that is not among them cannot be kept, so another is drawn.
    """
    clients = traits.client_ports
    if ports[0] == ports[1]:
        return NotExposed.single_port
    if traits.random_is_full and (ports[1] < clients[0] or clients[1] < ports[0]):
        return NotExposed.ports_apart
    return None


def _one_client(rule: SnatRule) -> bool:
    network = _network(rule.source_network)
    return network is not None and network.num_addresses == 1


@lru_cache(maxsize=1 << 14)  # a rule is compared with all others
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if text else None
    except ValueError:
        return None
