"""SNAT rules as a host has them: read from what iptables-save and nft print. Pure.

A rule is exposed if the kernel tries to keep the client's source port and two clients may share
the address it translates to (get_unique_tuple() in nf_nat_core.c); otherwise it is said why not.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

RANDOM = frozenset({"random", "fully-random"})
_COMMENT = re.compile(r' comment "[^"]*"$')
_CHANGES_NOTHING = frozenset({"icmp", "icmpv6", "ipv6-icmp", "1", "58"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides about a rule that this host's kernel adds: whether ``--random`` is as good as
    ``--random-fully`` (since 5.0; before, a range of few ports is handed out in order, to racing
    clients the same), and from which ports clients connect: this host's, and those of containers.
    """

    random_is_full: bool = True
    client_ports: tuple[int, int] = (32768, 60999)


@dataclass(frozen=True, slots=True)
class Place:
    """Which chain of which tool."""

    tool: str
    family: str
    table: str
    chain: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Family, table and name of the chain."""
        return self.family, self.table, self.chain

    def __str__(self) -> str:
        family = f" {self.family}" if self.tool == "nft" else ""
        return f"{self.tool}{family} {self.table} {self.chain}"


@dataclass(frozen=True, slots=True)
class SnatRule:
    """One rule, ``text`` as its tool prints it, the ``index``-th of its chain, counted from 0.

    ``address``: what it translates to, "" for masquerade. ``harmless``: why it is not exposed, ""
    if it is. ``fixed``: why no other program can change it, "" if any can.
    """

    place: Place
    index: int
    text: str
    address: str = ""
    flags: frozenset[str] = frozenset()
    ports: tuple[int, int] | None = None
    protocol: str = ""
    source: str = ""
    destination: str = ""
    comment: str = ""
    reachable: bool = True
    fixed: str = ""
    harmless: str = ""


def judged(rules: Iterable[SnatRule], facts: Facts) -> list[SnatRule]:
    """Return the rules of a whole host, each with the reason why it is harmless, if it is."""
    every = [replace(rule, harmless=_why_harmless(rule, facts)) for rule in rules]
    # A pool of clients is exposed by itself; cured, it does not race a single one either.
    single = [rule for rule in every if not rule.harmless and _one_client(rule)]
    return [
        replace(rule, harmless="a single client")
        if rule in single and not any(_race(rule, other) for other in single)
        else rule
        for rule in every
    ]


def _race(rule: SnatRule, other: SnatRule) -> bool:
    """Whether two rules of a client each give them one address. Masquerade may mean any."""
    return (
        _network(rule.source) != _network(other.source)
        and (rule.protocol == other.protocol or not (rule.protocol and other.protocol))
        and bool(_versions(rule) & _versions(other))
        and (rule.address == other.address or not (rule.address and other.address))
    )


def _versions(rule: SnatRule) -> set[int]:
    """Return the IP versions that a rule may be for; a chain of family inet has both."""
    if told := f"{rule.source}{rule.address}":
        return {6 if ":" in told else 4}
    return {"ip": {4}, "ip6": {6}}.get(rule.place.family, {4, 6})


def _why_harmless(rule: SnatRule, facts: Facts) -> str:
    if "fully-random" in rule.flags or (facts.random_is_full and "random" in rule.flags):
        return "draws ports at random"
    if "netmap" in rule.flags:
        return "gives each client an address of its own"
    if not rule.reachable:
        return "nothing leads to its chain"
    if rule.protocol in _CHANGES_NOTHING:
        return "ICMP has no ports"
    if rule.source and rule.source == rule.destination and _one_client(rule):
        return "a client that reaches itself"
    return _of_ports(rule.ports, facts) if rule.ports else ""


def _of_ports(ports: tuple[int, int], facts: Facts) -> str:
    """Say why a rule with these ports is harmless; "" if it is not."""
    clients = facts.client_ports
    if ports[0] == ports[1]:
        return f"has port {ports[0]} only, so nothing to draw from"
    if facts.random_is_full and (ports[1] < clients[0] or clients[1] < ports[0]):
        return f"draws from {ports[0]}-{ports[1]}, beside the clients' ports {clients[0]}-{clients[1]}"
    return ""


def _one_client(rule: SnatRule) -> bool:
    network = _network(rule.source)
    return network is not None and network.num_addresses == 1


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if text else None
    except ValueError:
        return None


def cured_xtables(text: str) -> str:
    """Return an iptables rule with ``--random-fully``, where iptables-save puts it."""
    body, end = (
        (text.removesuffix(" --persistent"), " --persistent")
        if text.endswith(" --persistent")
        else (text, "")
    )
    return f"{body.removesuffix(' --random')} --random-fully{end}"


def cured_nft(text: str) -> str:
    """Return a rule of nft with ``fully-random``, in the order in which nft lists flags.

    The statement that translates ends a rule; only a comment may follow.
    """
    comment = shape[0] if (shape := _COMMENT.search(text)) else ""
    body = text.removesuffix(comment)
    head, _, last = body.rpartition(" ")
    flags = set(last.split(",")) if set(last.split(",")) <= {*RANDOM, "persistent"} else set()
    kept = [flag for flag in ("persistent",) if flag in flags]
    return f"{head if flags else body} {','.join(['fully-random', *kept])}{comment}"
