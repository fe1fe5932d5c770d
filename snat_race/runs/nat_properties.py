"""Which of a NAT's rules translate a client's connections, and what they leave to chance."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from snat_race.kernel import host
from snat_race.kernel.netns import Namespace
from snat_race.results.nat import EVERY_PORT, Nat
from snat_race.rules import reader
from snat_race.rules.exposure import RANDOM, SnatRule


@dataclass(frozen=True, slots=True)
class Translation:
    """The rules that may apply, and whether somebody looked and every rule there is was read."""

    rules: list[SnatRule]
    complete: bool


def rules_for(namespaces: Iterable[Namespace], source_ips: Iterable[str] = ()) -> Translation:
    """Return the rules that may apply to these addresses, or to any; none if no tool can read them."""
    ips, read = list(source_ips), [reader.read(each) for each in namespaces]
    every = [rule for each in read for rule in each.rules if rule.reachable]
    return Translation(
        [rule for rule in every if not ips or any(_covers(rule.source, ip) for ip in ips)],
        bool(read) and not any(each.unreadable for each in read),
    )


def nat_of(translation: Translation, attempted: int) -> Nat:
    """Return how many ports the NAT has, at the least, and, if all rules draw them, how many of
    so many dials draw the port of another that they met.
    """
    rules = translation.rules
    ports = min((rule.ports[1] - rule.ports[0] + 1 for rule in rules if rule.ports), default=EVERY_PORT)
    drawn = bool(rules) and all(rule.flags & RANDOM for rule in rules)
    evicts = host.kernel_version() >= (6, 5)
    same_draws = attempted / ports if drawn else 0.0
    return Nat(
        ports=ports,
        same_draws=same_draws,
        evicts=evicts,
        known=translation.complete,
        drawn=drawn,
        absent=translation.complete and not rules,
    )


def _covers(network: str, ip: str) -> bool:
    """Whether a rule's source, "" for any, covers an address; yes, if that cannot be told."""
    try:
        return not network or ipaddress.ip_address(ip) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return True
