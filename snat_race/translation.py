"""Which of a NAT's rules translate a client's connections, and what they leave to chance."""

import ipaddress
from collections.abc import Iterable

from snat_race.analysis.suspects import EVERY_PORT, Nat
from snat_race.kernel import host, rulesets
from snat_race.kernel.namespaces import Namespace
from snat_race.kernel.snat_rules import RANDOM, SnatRule


def rules_for(namespaces: Iterable[Namespace], source_ips: Iterable[str] = ()) -> list[SnatRule]:
    """Return the rules that may apply to these addresses, or to any; none if no tool can read them."""
    ips = list(source_ips)
    every = [rule for each in namespaces for rule in rulesets.read(each).rules if rule.reachable]
    return [rule for rule in every if not ips or any(_covers(rule.source, ip) for ip in ips)]


def nat_of(rules: list[SnatRule], attempted: int) -> Nat:
    """Return how many ports the NAT has, at the least, and, if all rules draw them, how many of
    so many dials draw the port of another that they met.
    """
    ports = min((rule.ports[1] - rule.ports[0] + 1 for rule in rules if rule.ports), default=EVERY_PORT)
    drawn = bool(rules) and all(rule.flags & RANDOM for rule in rules)
    evicts = host.kernel_version() >= (6, 5)
    return Nat(ports, attempted / ports if drawn else 0.0, evicts=evicts, known=bool(rules))


def _covers(network: str, ip: str) -> bool:
    """Whether a rule's source, "" for any, covers an address; yes, if that cannot be told."""
    try:
        return not network or ipaddress.ip_address(ip) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return True
