"""What the kernel's own list of nftables' rules says, without their words: which chains have to be looked
into. Pure.

To have nft print 10,000 rules twice, as text and as JSON, and to parse that, takes a second. Nearly all
rules of a large ruleset have nothing to do with the translation of sources: they choose a service's
endpoint, say. The kernel's list takes a tenth of that. It tells which chains a packet can come to where
sources are translated, and which rules translate them. What is not certain here is looked into.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from snat_race.kernel.netlink import attribute, attributes, text_of
from snat_race.kernel.nftables import EXPRESSIONS, KernelChain, KernelRule
from snat_race.rules.ruleset import ChainKey, KernelRules, reached

_NAME, _DATA = 1, 2  # of an expression
_TRANSLATES = (b"masq\0", b"MASQUERADE\0", b"SNAT\0")  # in a rule: nftables' own, and iptables' targets
_NAT = attribute(_NAME, b"nat\0")
_TO_DESTINATION = attribute(1, b"\0\0\0\1")  # NFTA_NAT_TYPE, which is said first: nft_nat_dump()
_NESTED_HEADER = 4  # bytes in front of what an expression says
_TO_VERDICT = b"\0\0\0\0"  # NFT_REG_VERDICT, the register
_LOOKUP_RESULT = 3  # NFTA_LOOKUP_DREG
# Expressions that lead to a chain, and those that do not; another may.
_LEADING = ("immediate", "lookup")
_LEADING_NOWHERE = frozenset(
    {
        *("bitwise", "byteorder", "cmp", "connlimit", "counter", "ct", "dup", "dynset", "exthdr", "fib"),
        *("fwd", "hash", "inner", "last", "limit", "log", "masq", "match", "meta", "nat", "notrack"),
        *("numgen", "objref", "osf", "payload", "queue", "quota", "range", "redir", "reject", "rt"),
        *("secmark", "socket", "synproxy", "target", "tproxy", "tunnel", "xfrm"),
    }
)


class Unclear(Exception):
    """The chains of interest are too many, or cannot be told: a rule leads to chains that are not named in
    it, or is not understood.
    """


def by_chain(rules: Iterable[KernelRule]) -> dict[ChainKey, list[KernelRule]]:
    """Return rules by their chain, in order."""
    chains: dict[ChainKey, list[KernelRule]] = {}
    for rule in rules:
        chains.setdefault((rule.family, rule.table, rule.chain), []).append(rule)
    return chains


@dataclass(frozen=True, slots=True)
class KernelList:
    """The chains of tables of families ``ip``, ``ip6`` and ``inet``, and their rules."""

    chains: Sequence[KernelChain]
    rules: KernelRules

    @property
    def keys(self) -> list[ChainKey]:
        """The chains, as others name them."""
        return [_key(chain) for chain in self.chains]

    @property
    def count(self) -> int:
        """How many rules there are."""
        return sum(map(len, self.rules.values()))

    def whole_tables(self, printed: Mapping[ChainKey, Sequence[object]]) -> set[tuple[str, str]]:
        """Return family and name of the tables of which each chain was ``printed``, with as many rules as
        the kernel has.
        """
        whole: dict[tuple[str, str], bool] = {}
        for key in self.keys:
            alike = key in printed and len(printed[key]) == len(self.rules.get(key, ()))
            whole[key[:2]] = whole.get(key[:2], True) and alike
        return {table for table, is_whole in whole.items() if is_whole}

    def without(self, tables: Collection[tuple[str, str]]) -> "KernelList":
        """Return the same without these tables."""
        return KernelList([chain for chain in self.chains if _key(chain)[:2] not in tables], self.rules)

    def of_interest(self, most: int) -> list[ChainKey]:
        """Return the chains that a packet can come to where sources are translated, and those with rules
        that may translate sources.

        ``most``: how many rules they may have together.

        Raises:
            Unclear: they have more, or are not to be told.

        """
        left = most

        def counted(key: ChainKey) -> Sequence[KernelRule]:
            nonlocal left
            here = self.rules.get(key, ())
            left -= len(here)
            if left < 0:
                raise Unclear
            return here

        roots = [_key(chain) for chain in self.chains if chain.translates]
        try:
            wanted = reached(roots, lambda key: _targets(key, counted(key)))
        except OSError:  # what the kernel says is cut off
            raise Unclear from None
        for key in self.keys:
            if key not in wanted and any(map(_may_translate, self.rules.get(key, ()))):
                counted(key)
                wanted.add(key)
        return [key for key in self.keys if key in wanted]


def _key(chain: KernelChain) -> ChainKey:
    return chain.family, chain.table, chain.name


def _may_translate(rule: KernelRule) -> bool:
    body = rule.body
    if any(word in body for word in _TRANSLATES):
        return True
    at = body.find(_NAT)
    while at >= 0:
        at += len(_NAT) + _NESTED_HEADER
        if not body.startswith(_TO_DESTINATION, at):
            return True
        at = body.find(_NAT, at)
    return False


def _targets(key: ChainKey, rules: Iterable[KernelRule]) -> Iterator[ChainKey]:
    """Yield the chains that the rules of one jump or go to."""
    for rule in rules:
        for _, expression in attributes(rule.attributes.get(EXPRESSIONS, b"")):
            said = dict(attributes(expression))
            name = text_of(said.get(_NAME, b""))
            if name in _LEADING:
                data = dict(attributes(said.get(_DATA, b"")))
                if name == "lookup" and data.get(_LOOKUP_RESULT) == _TO_VERDICT:
                    raise Unclear
                if name == "immediate" and (chain := _chain_of(data)):
                    yield (*key[:2], chain)
            elif name not in _LEADING_NOWHERE:
                raise Unclear


def _chain_of(immediate: dict[int, bytes]) -> str:
    """Return the chain of a verdict; "" if this is none, or one without a chain (NFTA_VERDICT_CHAIN)."""
    verdict = (
        dict(attributes(immediate.get(2, b""))).get(2, b"") if immediate.get(1) == _TO_VERDICT else b""
    )
    return text_of(dict(attributes(verdict)).get(2, b""))
