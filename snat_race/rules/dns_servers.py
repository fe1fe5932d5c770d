"""To how many servers a host's rules send the DNS queries of one socket. Pure.

glibc sends the queries for A and AAAA from one socket at once. Where DNAT chooses a server for each, older
kernels lose one: see ``results.kernels.udp_clash_loses``. Only that number is wanted, so rules are read as
text, in the words of iptables-save and of nft alike: which ask for UDP port 53, to which chains they lead,
and which addresses they translate to. What cannot be told, as a map of nft that is kept elsewhere, is not
counted.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from snat_race.rules.ruleset import ChainKey, reached

_PORT = r"(?:53|domain)"
_ASKS_FOR_DNS = re.compile(
    rf"-p (?:udp|17) .*--(?:dport|dports) (?:[\w:]+,)*{_PORT}(?:,|\s)"
    rf"|\b(?:udp|th) dport (?:{_PORT}\b|\{{(?: [\w-]+,)* {_PORT}\b)"
)
_ASKS_FOR_TCP = re.compile(r"-p (?:tcp|6) |\btcp dport\b|\bl4proto (?:tcp|6)\b")
_DESTINATION = re.compile(r"(?:^| )-d (\S+)|\bdaddr (\S+)")
_TARGET = re.compile(r"(?: -[jg] | --(?:jump|goto) |\b(?:jump|goto) )([^\s,}]+)")
_TRANSLATES = re.compile(r"--to-destination |\bdnat\b.*? to ")
_ADDRESS = re.compile(
    r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b|(?<![\w:])[0-9a-f]{0,4}:[0-9a-f:]*:[0-9a-f.]{0,15}"
)


def dns_servers(rules: Mapping[ChainKey, Iterable[str]]) -> int:
    """Return the most servers that DNAT may choose from for one destination; 0 if it translates no DNS.

    ``rules``: the rules of each chain, as text.
    """

    @cache  # many rules may lead to one chain
    def targets(chain: ChainKey) -> tuple[ChainKey, ...]:
        return tuple(_targets(chain, rules.get(chain, ())))

    @cache
    def servers_behind(chain: ChainKey) -> frozenset[str]:
        chains = reached([chain], targets)
        return frozenset(address for key in chains for address in _translated_to(rules.get(key, ())))

    servers: dict[tuple[ChainKey, str], set[str]] = {}
    for chain, rule in _asking_for_dns(rules):
        destination = _DESTINATION.search(rule)
        chosen = servers.setdefault((chain, destination[0].strip() if destination else ""), set())
        chosen |= _translated_to([rule])
        for target in _targets(chain, [rule]):
            chosen |= servers_behind(target)
    return max(map(len, servers.values()), default=0)


def _asking_for_dns(rules: Mapping[ChainKey, Iterable[str]]) -> Iterator[tuple[ChainKey, str]]:
    for chain, texts in rules.items():
        for rule in texts:
            if ("53" in rule or "domain" in rule) and _ASKS_FOR_DNS.search(rule):
                yield chain, rule


def _targets(chain: ChainKey, rules: Iterable[str]) -> list[ChainKey]:
    """Return the chains that rules of a chain lead to, and targets such as ACCEPT."""
    return [(*chain[:2], name) for rule in rules for name in _TARGET.findall(rule)]


def _translated_to(rules: Iterable[str]) -> set[str]:
    """Return the addresses that rules give to destinations, those of TCP left out; of a range, its ends."""
    addresses: set[str] = set()
    for rule in rules:
        words = _TRANSLATES.search(rule)
        if words and not _ASKS_FOR_TCP.search(rule):
            addresses.update(_ADDRESS.findall(rule, words.end()))
    return addresses
