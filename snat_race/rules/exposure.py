"""Which SNAT rules of a host are exposed to the race, and why the others are not. Pure.

A rule is exposed if the kernel tries to keep its clients' source ports, and may so give two of them the
same translated tuple: same protocol, address, port and destination. get_unique_tuple() in
net/netfilter/nf_nat_core.c keeps a port that the rule's range holds, unless NF_NAT_RANGE_PROTO_RANDOM_ALL
is set. A range of one port it gives without a search, so there is nothing to lose and nothing to draw.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from snat_race.results.findings import ChainAddress, NotExposed, Unchangeable
from snat_race.rules.clashes import Parts, clashing, sharing
from snat_race.rules.traffic import (
    ANY_ADDRESS,
    ANY_DEVICE,
    ANY_END,
    ANY_PORT,
    ANY_PROTOCOL,
    TCP,
    UDP,
    V4,
    V6,
    WITH_PORTS,
    Devices,
    Intervals,
    Traffic,
    covers,
    join,
    meet,
    versions_of,
    without,
)

RANDOM = frozenset({"random", "fully-random"})
ONE_PORT: Intervals = ((0, 0),)  # stands for a port that is computed of something else
_MASQUERADE = {V4[0]: 1 << 130, V6[0]: 1 << 131}  # stands for the address that a masquerade chooses
_MOST_COMPARISONS = 100_000  # of rules' traffic; beyond, none is said to be taken by another


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTraits:
    """What decides about a rule besides its own words."""

    # Whether --random is as good as --random-fully: since 5.0. An older kernel hands out a range of few
    # ports in order, and racing clients get the same one.
    random_is_full: bool = True
    # From which ports clients connect: those of this host, and those of its containers.
    client_ports: tuple[int, int] = (32768, 60999)
    # The addresses of its devices, one of which a masquerade gives; None: not known.
    addresses: Intervals | None = None


class Translation(NamedTuple):
    """What a rule gives to some of its packets; a map gives different things to different clients."""

    traffic: Traffic
    to: Intervals | None = None  # the addresses; None is that of the device: masquerade
    ports: Intervals | None = None  # None: any


@dataclass(frozen=True, slots=True, kw_only=True)
class SnatRule:
    """One rule that translates sources."""

    chain: ChainAddress
    index: int  # in its chain, counted from 0
    text: str  # as its tool prints it, without handle and without the counts in front
    to_address: str = ""  # what it translates to; "" for masquerade
    flags: frozenset[str] = frozenset()  # random, fully-random, persistent, netmap
    ports: tuple[int, int] | None = None  # that it may give to clients, both inclusive; None is any
    source_network: str = ""  # that it asks for; "" is any, or several
    comment: str = ""
    reachable: bool = True  # whether a packet can come to its chain
    translations: tuple[
        Translation, ...
    ] = ()  # none: no packet can come to the rule, as others are before it
    asks_for_tcp: bool = True  # by its own words, whether any comes to it or not
    loops_back: bool = (
        False  # whether it is kube-proxy's for clients that reach themselves, by its set's name
    )
    unchangeable: Unchangeable | None = None  # why no other program can change it
    not_exposed: NotExposed | None = None  # see :func:`judged`

    @property
    def exposed(self) -> bool:
        """Whether its clients can lose SYNs to the race."""
        return self.not_exposed is None

    @property
    def gets_tcp(self) -> bool:
        """Whether connections of TCP can come to it."""
        return any(meet(given.traffic.protocols, TCP) for given in self.translations)

    @property
    def gets_udp(self) -> bool:
        """Whether packets of UDP can come to it."""
        return any(meet(given.traffic.protocols, UDP) for given in self.translations)


def judged(rules: Iterable[SnatRule], traits: HostTraits) -> list[SnatRule]:
    """Return the rules of a whole host, each with the reason why it is not exposed, if there is one.

    A rule that gives several clients the same is exposed by itself. A rule that gives something to single
    clients is exposed only if a rule, in whichever tool, may give another single client the same. It
    does not race with rules that draw ports; so it is not exposed because of a rule for many clients, which
    is exposed by itself and draws ports as soon as it is cured. If nobody can cure that, it is.
    """
    listed = list(rules)
    drawn = _TcpDrawn(listed, traits)
    looked_at = [_alone(rule, traits, drawn) for rule in listed]
    singles: list[tuple[int, Translation]] = []
    lasting: list[tuple[int, Translation]] = []  # of rules for many clients, which stay as they are
    for index, (reason, kept) in enumerate(looked_at):
        if reason is None and all(translation.traffic.one_client for translation in kept):
            singles += [(index, translation) for translation in kept]
        elif reason is None and listed[index].unchangeable:
            lasting += [(index, translation) for translation in kept]
    racing = _racing(singles, lasting, traits)
    apart = {index for index, _ in singles} - racing
    return [
        replace(rule, not_exposed=_apart(kept) if index in apart else reason)
        if reason or index in apart
        else rule
        for index, (rule, (reason, kept)) in enumerate(zip(listed, looked_at, strict=True))
    ]


def _draws(rule: SnatRule, traits: HostTraits) -> bool:
    return "fully-random" in rule.flags or (traits.random_is_full and "random" in rule.flags)


class _TcpDrawn:
    """Whose TCP goes through rules that draw ports."""

    def __init__(self, rules: Iterable[SnatRule], traits: HostTraits) -> None:
        self._by_chain: dict[ChainAddress, dict[Traffic, int]] = {}  # each with its rule's index
        self._comparisons_left = _MOST_COMPARISONS
        for rule in rules:
            if rule.gets_tcp and _draws(rule, traits):
                drawn = self._by_chain.setdefault(rule.chain, {})
                for given in rule.translations:
                    drawn.setdefault(_of_any_protocol(given), rule.index)

    def takes(self, rule: SnatRule, translation: Translation) -> bool:
        """Whether such a rule in front of another would take all of this, if it were TCP."""
        drawn, traffic = self._by_chain.get(rule.chain, {}), _of_any_protocol(translation)
        if drawn.get(traffic, rule.index) < rule.index:
            return True
        self._comparisons_left -= len(drawn)
        return self._comparisons_left >= 0 and any(
            index < rule.index and covers(wider, traffic) for wider, index in drawn.items()
        )


def _of_any_protocol(translation: Translation) -> Traffic:
    return translation.traffic._replace(protocols=ANY_PROTOCOL)


def _alone(
    rule: SnatRule, traits: HostTraits, drawn: _TcpDrawn
) -> tuple[NotExposed | None, list[Translation]]:
    """Return why a rule is not exposed, and what of it may be.

    ``drawn``: whose TCP goes through a rule that draws ports. Where it does not come here too, that rule
    is in front of this one.
    """
    of_its_words = {
        NotExposed.random_ports: _draws(rule, traits),
        NotExposed.unreachable_chain: not rule.reachable,
        NotExposed.loop_back_set: rule.loops_back,
        NotExposed.address_per_client: "netmap" in rule.flags,
    }
    for reason, holds in of_its_words.items():
        if holds:
            return reason, []
    left = list(rule.translations)
    for reason, harmless in _HARMLESS.items():
        if not left:
            break
        left = [translation for translation in left if not harmless(translation, traits)]
        if not left:
            return reason, []
    if not left:
        return NotExposed.behind_another, []
    tcp_is_drawn = (
        rule.asks_for_tcp and not rule.gets_tcp and all(drawn.takes(rule, given) for given in left)
    )
    return (NotExposed.tcp_draws_ports, []) if tcp_is_drawn else (None, left)


def _has_no_ports(translation: Translation, _: HostTraits) -> bool:
    return not meet(translation.traffic.protocols, WITH_PORTS)


def _reaches_itself(translation: Translation, _: HostTraits) -> bool:
    return translation.traffic.to_itself


def _gives_one_port(translation: Translation, _: HostTraits) -> bool:
    ports = translation.ports
    return ports is not None and all(low == high for low, high in ports)


def _keeps_none(translation: Translation, traits: HostTraits) -> bool:
    """Whether a client's own port is never among those that are given, so that another is drawn."""
    return not _given(translation, traits)


_HARMLESS = {
    NotExposed.no_ports: _has_no_ports,
    NotExposed.client_reaches_itself: _reaches_itself,
    NotExposed.single_port: _gives_one_port,
    NotExposed.ports_apart: _keeps_none,
}


def _given(translation: Translation, traits: HostTraits) -> Intervals:
    """Return the ports that two clients may be given alike: those that are kept, or drawn in order.

    A rule that asks for source ports gets clients that connect from these.
    """
    ports = translation.ports or ANY_PORT
    if not traits.random_is_full:
        return ports
    from_ports = translation.traffic.source_ports
    return meet(ports, (traits.client_ports,) if from_ports == ANY_PORT else from_ports)


def _size(numbers: Intervals) -> int:
    return sum(high - low + 1 for low, high in numbers)


def _disjoint(given: list[Intervals]) -> bool:
    return _size(join(ends for numbers in given for ends in numbers)) == sum(map(_size, given))


def _apart(translations: list[Translation]) -> NotExposed:
    """Return why rules for single clients that do not clash are harmless."""
    clients = {translation.traffic.sources for translation in translations}
    if len(clients) == 1:
        return NotExposed.single_client
    addresses = {translation.traffic.sources: translation.to or ANY_ADDRESS for translation in translations}
    if _disjoint(list(addresses.values())):
        return NotExposed.address_per_client
    return NotExposed.tuples_apart


def _racing(
    singles: Sequence[tuple[int, Translation]],
    lasting: Sequence[tuple[int, Translation]],
    traits: HostTraits,
) -> set[int]:
    """Return which rules may give a single client the same as another, or as a rule that stays as it is
    gives one of many.
    """
    claims = _claims([translation for _, translation in (*singles, *lasting)], traits)
    own = claims[: len(singles)]
    clients = [translation.traffic.sources[0][0] for _, translation in singles]
    clashes = clashing(zip(clients, own, strict=True))
    racing = {index for (index, _), clash in zip(singles, clashes, strict=True) if clash}
    left = [(index, parts) for (index, _), parts in zip(singles, own, strict=True) if index not in racing]
    shares = sharing([parts for _, parts in left], claims[len(singles) :])
    return racing.union(index for (index, _), shared in zip(left, shares, strict=True) if shared)


def _claims(translations: Sequence[Translation], traits: HostTraits) -> list[Parts]:
    """Return all that each translation may give."""
    numbers = _numbers([translation.traffic.devices for translation in translations])
    return [
        (
            _addresses(translation, traits),
            _given(translation, traits),
            translation.traffic.destinations,
            translation.traffic.destination_ports,
            meet(translation.traffic.protocols, WITH_PORTS),
            numbers[translation.traffic.devices],
        )
        for translation in translations
    ]


def _addresses(translation: Translation, traits: HostTraits) -> Intervals:
    """Return the addresses that may be given; a masquerade's are those of the host, as far as known."""
    if translation.to is not None:
        return translation.to
    versions = versions_of(translation.traffic.sources)
    mine = versions if traits.addresses is None else meet(versions, traits.addresses)
    return (*mine, *((_MASQUERADE[version],) * 2 for version in versions))


def _numbers(devices: list[Devices]) -> dict[Devices, Intervals]:
    """Return numbers for sets of devices, so that two that share one share a number; 0 is any other one."""
    kinds = set(devices)
    names = sorted({name for kind in kinds for name in kind.names if not name.endswith(ANY_END)})
    number = {name: at for at, name in enumerate(names, 1)}
    every: Intervals = ((0, len(names)),)
    numbers = {ANY_DEVICE: every}
    for kind in kinds - {ANY_DEVICE}:
        patterns = [name[:-1] for name in kind.names if name.endswith(ANY_END)]
        matching = [number[name] for name in kind.names if name in number]
        if patterns:
            matching += [at for name, at in number.items() if name.startswith(tuple(patterns))]
        listed = join((at, at) for at in matching)
        if kind.excluded:
            numbers[kind] = without(every, listed)
        else:
            numbers[kind] = join([*listed, (0, 0)]) if patterns else listed
    return numbers
