"""Which of a NAT's rules translate a client's connections, and what they leave to chance."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from snat_race.kernel import host
from snat_race.kernel.netns import Namespace
from snat_race.results import kernels
from snat_race.results.conclusions import MeasurementWarning, WarningKind
from snat_race.results.findings import NotExposed, Unreadable
from snat_race.results.nat import EVERY_PORT, Nat
from snat_race.rules import reader
from snat_race.rules.exposure import RANDOM, SnatRule

# Why a rule translates no connection from one host to another, so that its ports say nothing.
_OF_NO_DIALS = (
    NotExposed.behind_another,
    NotExposed.no_ports,
    NotExposed.client_reaches_itself,
    NotExposed.loop_back_set,
    NotExposed.tcp_draws_ports,
)


@dataclass(frozen=True, slots=True)
class Translation:
    """The rules that may apply, whether somebody looked and every rule there is was read, and what
    could not be read; and what else clashes there.
    """

    rules: list[SnatRule]
    complete: bool
    unreadable: list[Unreadable]
    dns_servers: int  # to how many hosts DNAT sends the queries of one socket to UDP port 53

    def warnings(self) -> list[MeasurementWarning]:
        """Return the warning that not all rules could be read, if that is so."""
        if not self.unreadable:
            return []
        tools = {unreadable.tool or "no tool" for unreadable in self.unreadable}
        named = ", ".join(sorted(tools))
        return [MeasurementWarning(kind=WarningKind.some_rules_unread, values={"tools": named})]


def rules_for(namespaces: Iterable[Namespace], source_ips: Iterable[str] = ()) -> Translation:
    """Return the rules that may apply to these addresses, or to any; none if no tool can read them."""
    ips = list(source_ips)
    hosts = [reader.read(namespace) for namespace in namespaces]
    translating = [
        rule
        for rules in hosts
        for rule in rules.snat_rules
        if rule.reachable and rule.not_exposed not in _OF_NO_DIALS
    ]
    applying = [
        rule for rule in translating if not ips or any(_covers(rule.source_network, ip) for ip in ips)
    ]
    unreadable = [reason for rules in hosts for reason in rules.unreadable]
    dns_servers = max((rules.dns_servers for rules in hosts), default=0)
    return Translation(applying, bool(hosts) and not unreadable, unreadable, dns_servers)


def nat_of(translation: Translation, attempted: int) -> Nat:
    """Return how many ports the NAT has, at the least, and, if all rules draw them, how many of
    that many dials draw the port of another that they met.
    """
    rules = translation.rules
    ports = min((rule.ports[1] - rule.ports[0] + 1 for rule in rules if rule.ports), default=EVERY_PORT)
    # Before 5.0, a rule may say --random and be exposed all the same.
    drawn = bool(rules) and all(rule.flags & RANDOM and not rule.exposed for rule in rules)
    version = host.kernel_version()
    return Nat(
        ports=ports,
        same_draws=attempted / ports if drawn else 0.0,
        evicts=kernels.evicts(version),
        known=translation.complete,
        drawn=drawn,
        absent=translation.complete and not rules,
        clashes_raise_drop=kernels.clashes_raise_drop(version),
        udp_clashes=kernels.udp_clash_loses(version, servers=translation.dns_servers),
    )


def _covers(network: str, ip: str) -> bool:
    """Whether a rule's network, "" for any, covers an address; yes, if that cannot be told."""
    try:
        return not network or ipaddress.ip_address(ip) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return True
