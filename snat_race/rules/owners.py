"""Which program wrote a SNAT rule: its owner, who writes the rule again. Pure.

A rule is a program's if it stands in a chain that the program makes, and reads as the program writes it
there. One of the two is not enough: people add rules to the chains of programs, and name chains and
comments after them. What each program writes: ``rules/owner_marks.py``. When it writes its rule again, and
which setting it documents: ``report/wording/owners.py``.
"""

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

from snat_race.results.findings import RuleOwner
from snat_race.rules.exposure import SnatRule
from snat_race.rules.owner_marks import MARKS, Mark
from snat_race.rules.ruleset import ChainKey

_CHAINS_AT_ONCE = 1 << 14  # whose marks are kept: kube-proxy and CNI plugins make thousands of chains

_SHAPES_AT_ONCE = 1 << 12

_ADDRESS = re.compile(r"((?:! )?-[sd]) \S+")
_KNOWN_ADDRESS = re.compile(
    "|".join(
        f"(?:{pattern})"
        for marks in MARKS.values()
        for mark in marks
        for pattern in (*mark.has, *mark.may)
        if re.search("-[sd] ", pattern) and not pattern.endswith(r"\S+")
    )
)

_IPTABLES = re.compile(r"-A \S+ (?P<matches>.*?)-j (?P<target>MASQUERADE|SNAT)\b(?P<to>.*)", re.DOTALL)
_IPTABLES_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s"]+')
_IPTABLES_TO = re.compile(r"--to-(?:source|ports) (\S+)")

_NFT = re.compile(
    r'(?P<matches>.*?)(?:\b(?P<target>masquerade|snat)\b|xt target "(?P<xt>MASQUERADE|SNAT)")'
    r'(?P<to>(?: "[^"]*"|[^"])*?)(?: comment ".*")?',
    re.DOTALL,
)
_NFT_TO = re.compile(r"\bto (\S+)")
_NFT_VALUE = r'(?P<value>\{[^}]*\}|"[^"]*"|\S+)'
_NFT_MATCHES = {
    rf"ip6? saddr (?P<not>!= )?{_NFT_VALUE}": "-s",
    rf"ip6? daddr (?P<not>!= )?{_NFT_VALUE}": "-d",
    rf"iif(?:name)? (?P<not>!= )?{_NFT_VALUE}": "-i",
    rf"oif(?:name)? (?P<not>!= )?{_NFT_VALUE}": "-o",
    rf"(?:meta l4proto|ip protocol|ip6 nexthdr) (?P<not>!= )?{_NFT_VALUE}": "-p",
    rf"(?:tcp|udp|sctp|dccp|th) dport (?P<not>!= )?{_NFT_VALUE}": "--dport",
    rf"meta mark (?:& \S+ )?(?:== )?(?P<not>!= )?{_NFT_VALUE}": "--mark",
    rf"fib saddr type (?P<not>!= )?{_NFT_VALUE}": "--src-type",
    rf"fib daddr type (?P<not>!= )?{_NFT_VALUE}": "--dst-type",
    rf"meta nfproto (?P<not>!= )?{_NFT_VALUE}": "--nfproto",
    r"(?P<not>)(?P<value>counter)(?: packets \d+ bytes \d+)?": "",
}
"""Matches of nft, and the words of iptables for the same."""
_NFT_MATCH = [(re.compile(rf"\s*{pattern}(?=\s|$)"), word) for pattern, word in _NFT_MATCHES.items()]
_ADDRESS_TYPES = ("--src-type", "--dst-type")  # in capitals in iptables


class Owners:
    """Tells the owners of the rules of a host, of which some are known by what stands near them."""

    def __init__(self, rules: Iterable[SnatRule] = (), chains: Collection[ChainKey] = ()) -> None:
        """``rules``: all SNAT rules of the host; ``chains``: all its chains, also those without any."""
        self._texts = {(rule.chain.key, rule.index): rule.text for rule in rules}
        self._chains = frozenset(f"{table} {chain}" for _, table, chain in chains)

    def owner_of(self, rule: SnatRule) -> RuleOwner:
        """Return who wrote a rule, as far as can be told."""
        chain = (rule.chain.family, rule.chain.table, rule.chain.chain)
        if not _marks_of(*chain):
            return RuleOwner.unknown
        matches, to = _shape(rule)
        likely = _fitting(chain, tuple(map(_without_address, matches)), to, rule.comment)
        return next(
            (owner for owner, mark in likely if self._has_companions(rule, mark)), RuleOwner.unknown
        )

    def _has_companions(self, rule: SnatRule, mark: Mark) -> bool:
        """Whether that stands near a rule without which its own words prove nothing."""
        if mark.with_chain and mark.with_chain not in self._chains:
            return False
        if not mark.next_to:
            return True
        neighbours = (self._next(rule, step) for step in (-1, 1))
        return any(re.fullmatch(mark.next_to, f"{rule.text}\n{text}") for text in neighbours)

    def _next(self, rule: SnatRule, step: int) -> str:
        """Return the SNAT rule behind one, or before it; "" if there is none next to it or to its next."""
        texts = self._texts
        at = rule.chain.key, rule.index + step
        return texts.get(at) or texts.get((at[0], at[1] + step), "")


def owner_of(rule: SnatRule) -> RuleOwner:
    """Return who wrote a rule, as far as it says so itself."""
    return Owners().owner_of(rule)


@lru_cache(maxsize=_SHAPES_AT_ONCE)
def _fitting(
    chain: ChainKey, matches: tuple[str, ...], to: str, comment: str
) -> list[tuple[RuleOwner, Mark]]:
    return [(owner, mark) for owner, mark in _marks_of(*chain) if mark.fits(matches, to, comment)]


def _without_address(match: str) -> str:
    """Return a match without its address, unless some program is known by it: the rules of a host differ in
    little else.
    """
    shape = _ADDRESS.fullmatch(match)
    return f"{shape[1]} ADDRESS" if shape and not _KNOWN_ADDRESS.fullmatch(match) else match


@lru_cache(maxsize=_CHAINS_AT_ONCE)
def _marks_of(family: str, table: str, chain: str) -> list[tuple[RuleOwner, Mark]]:
    """Return the marks of those who may write into a chain."""
    return [
        (owner, mark) for owner, mark in _marks_in(f"{family} {table}") if re.fullmatch(mark.chain, chain)
    ]


@lru_cache
def _marks_in(table: str) -> list[tuple[RuleOwner, Mark]]:
    return [
        (owner, mark) for owner, marks in MARKS.items() for mark in marks if re.fullmatch(mark.table, table)
    ]


def _shape(rule: SnatRule) -> tuple[list[str], str]:
    """Return the matches of a rule in the words of iptables, and what it translates to, "" for any."""
    shape = _IPTABLES.fullmatch(rule.text)
    if not shape:
        return _nft_shape(rule.text)
    to = _IPTABLES_TO.search(shape["to"])
    return list(_iptables_matches(shape["matches"])), to[1] if to else ""


def _iptables_matches(text: str) -> Iterable[str]:
    """Yield each match with its values, negated ones behind ``! ``; no comment, and no module's name."""
    match: list[str] = []
    for word in _IPTABLES_WORD.findall(text):
        begins = word == "!" or (word.startswith("-") and match[-1:] not in (["!"], ["--comment"]))
        if begins and match and match[0] not in ("-m", "--comment"):
            yield " ".join(match)
        match = [word] if begins else [*match, word]
    if match and match[0] not in ("-m", "--comment"):
        yield " ".join(match)


def _nft_shape(text: str) -> tuple[list[str], str]:
    shape = _NFT.fullmatch(text)
    if not shape:
        return [text], ""
    matches = []
    rest = shape["matches"].strip()
    while rest:
        word, known = next(
            ((word, known) for pattern, word in _NFT_MATCH if (known := pattern.match(rest))), ("", None)
        )
        if not known:
            matches.append(rest)
            break
        rest = rest[known.end() :].strip()
        if word:
            value = known["value"].strip('"')
            value = value.upper() if word in _ADDRESS_TYPES else value
            matches.append(f"{'! ' if known['not'] else ''}{word} {value}")
    to = _NFT_TO.search(shape["to"])
    return matches, to[1].removeprefix(":") if to else ""
