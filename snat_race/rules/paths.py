"""Which packets come to which rule of a tool's chains: on the way, and past the rules before it. Pure.

Chains are left for others by jumps, and packets leave them for good by verdicts. What comes to a rule is
never fewer than in truth, so where a way is too winding to follow, all packets count as coming.
"""

from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from snat_race.rules.traffic import (
    ANY_ADDRESS,
    ANY_END,
    ANY_PROTOCOL,
    WITH_PORTS,
    Devices,
    Intervals,
    Traffic,
    both,
    covers,
    join,
    meet,
    without,
)

Name = TypeVar("Name", bound=Hashable)
_MOST_WAYS = 16  # into a chain that are told apart
_MOST_ALIKE = 32  # earlier rules for the same addresses that a rule is compared with


class Step(NamedTuple, Generic[Name]):
    """One rule of a chain, as far as the way of packets is concerned."""

    traffic: tuple[Traffic, ...]  # what it is for: any of these
    ends: bool = False  # whether a packet that matches sees no later rule of the chain
    # Whether that stays so: it is a verdict, or the rule draws ports. Of two copies of a rule
    # that does neither, the first may be taken away.
    settled: bool = False
    jumps: tuple[tuple[tuple[Traffic, ...], Name], ...] = ()  # to which chains, and what of its packets
    wanted: bool = False  # whether it is asked what comes to it
    alters: bool = False  # whether it changes what later rules may ask of the same packet: its mark, say


Came = tuple[tuple[Traffic, int], ...]
"""What comes to a rule, each with the number of the alternative that it is of."""


def arriving(
    chains: Mapping[Name, Sequence[Step[Name]]], roots: Mapping[Name, Traffic]
) -> dict[tuple[Name, int], Came]:
    """Return what comes to each wanted rule, by chain and index; ``roots``: where packets come from."""
    ways: dict[Name, list[Traffic]] = {chain: [traffic] for chain, traffic in roots.items()}
    came: dict[tuple[Name, int], Came] = {}
    order = list(_in_order(chains, roots))
    altering: set[Name] = set()
    for chain in reversed(order):
        if any(_alters(step, altering) for step in chains.get(chain, ())):
            altering.add(chain)
    for chain in order:
        entries = ways.get(chain, [])
        before, settled = _Before(), _Before()
        for index, step in enumerate(chains.get(chain, ())):
            if step.wanted:
                came[chain, index] = tuple(
                    (common, number)
                    for number, traffic in enumerate(step.traffic)
                    if not settled.takes(traffic)
                    for common in _each_of_both(entries, [_left(traffic, before, settled)])
                )
            for traffic, target in step.jumps:
                left = [_left(one, before, settled) for one in traffic if not settled.takes(one)]
                _enter(ways.setdefault(target, []), _each_of_both(entries, left))
            if step.ends:
                before.add(step.traffic)
            if step.settled:
                settled.add(step.traffic)
            if _alters(step, altering):
                before.forget_conditions()
                settled.forget_conditions()
    return came


def _alters(step: Step[Name], altering: Container[Name]) -> bool:
    return step.alters or any(target in altering for _, target in step.jumps)


def _in_order(chains: Mapping[Name, Sequence[Step[Name]]], roots: Iterable[Name]) -> Iterator[Name]:
    """Return the chains that packets come to, each behind all that lead to it."""
    finished: dict[Name, None] = {}
    seen: set[Name] = set()
    waiting = [(root, False) for root in roots]
    while waiting:
        chain, done = waiting.pop()
        if done:
            finished[chain] = None
        elif chain not in seen:
            seen.add(chain)
            waiting.append((chain, True))
            waiting += [(target, False) for step in chains.get(chain, ()) for _, target in step.jumps]
    return reversed(finished)


def _each_of_both(some: Iterable[Traffic], others: Sequence[Traffic]) -> Iterator[Traffic]:
    return (common for one in some for other in others if (common := both(one, other)))


def _enter(ways: list[Traffic], more: Iterable[Traffic]) -> None:
    """Add ways into a chain; too many become one that leaves everything open."""
    for way in more:
        if ways == [Traffic()]:
            return
        if way not in ways:
            ways.append(way)
        if len(ways) > _MOST_WAYS:
            ways[:] = [Traffic()]


def _left(traffic: Traffic, before: "_Before", settled: "_Before") -> Traffic:
    """Return what is left by the rules before one.

    A copy of a rule gets its packets as soon as the first is gone. So where nothing is left, only what
    stays so is taken away.
    """
    return before.left_of(traffic) or settled.left_of(traffic) or traffic


class _Before:
    """The rules of a chain that let no packet of theirs pass.

    A rule's packets are taken whole by another that asks for the same addresses or for networks around
    them. So they are kept by their addresses, and only networks of sizes that are there are looked for. A
    rule for one device takes none of another's, so those are kept apart, too.
    """

    def __init__(self) -> None:
        # What is taken of all that is the same but for its protocol. Of one such traffic, there may be many
        # rules for the same addresses.
        self._taken: dict[Traffic, Intervals] = {}
        self._by_addresses: dict[tuple[Intervals, Intervals, Devices | None], list[Traffic]] = {}
        self._conditional: list[tuple[list[Traffic], Traffic]] = []  # each in its list
        self._source_sizes: set[int] = set()
        self._destination_sizes: set[int] = set()

    def add(self, alternatives: Sequence[Traffic]) -> None:
        for traffic in alternatives:
            if not traffic.lasting:
                continue
            key = traffic._replace(protocols=ANY_PROTOCOL)
            self._taken[key] = join([*self._taken.get(key, ()), *traffic.protocols])
            alike = self._by_addresses.setdefault(
                (traffic.sources, traffic.destinations, _single(traffic.devices)), []
            )
            if len(alike) < _MOST_ALIKE:
                alike.append(traffic)
                if traffic.others:
                    self._conditional.append((alike, traffic))
                self._source_sizes.add(_size(traffic.sources))
                self._destination_sizes.add(_size(traffic.destinations))

    def forget_conditions(self) -> None:
        """Forget the rules that asked for what may be otherwise by now."""
        for alike, traffic in self._conditional:
            alike.remove(traffic)
        self._conditional = []
        self._taken = {
            traffic: protocols for traffic, protocols in self._taken.items() if not traffic.others
        }

    def takes(self, traffic: Traffic) -> bool:
        """Whether none of these packets can be left."""
        return self._left_of_alike(traffic) == () or any(
            covers(earlier, traffic) for earlier in self._for_addresses_of(traffic)
        )

    def left_of(self, traffic: Traffic) -> Traffic | None:
        """Return these packets without the protocols of which none can be left; None if these are all that
        have ports.
        """
        protocols = self._left_of_alike(traffic)
        for earlier in self._for_addresses_of(traffic):
            if covers(earlier._replace(protocols=traffic.protocols), traffic):
                protocols = without(protocols, earlier.protocols)
        if not meet(protocols, WITH_PORTS):
            return None
        return traffic if protocols == traffic.protocols else traffic._replace(protocols=protocols)

    def _left_of_alike(self, traffic: Traffic) -> Intervals:
        """Return the protocols that are left by rules for the same packets."""
        taken = self._taken.get(traffic._replace(protocols=ANY_PROTOCOL)) if self._taken else None
        return without(traffic.protocols, taken) if taken else traffic.protocols

    def _for_addresses_of(self, traffic: Traffic) -> Iterator[Traffic]:
        """Yield the rules that ask for no other addresses."""
        if self._by_addresses:
            destinations = _around(traffic.destinations, self._destination_sizes)
            kinds = {None, _single(traffic.devices)}
            for source in _around(traffic.sources, self._source_sizes):
                for destination in destinations:
                    for devices in kinds:
                        yield from self._by_addresses.get((source, destination, devices), ())


def _single(devices: Devices) -> Devices | None:
    """Return a device that is alone; None for several, for patterns, and for all but some."""
    if devices.excluded or len(devices.names) != 1:
        return None
    return None if next(iter(devices.names)).endswith(ANY_END) else devices


def _size(numbers: Intervals) -> int:
    """Return how many addresses a network has; 0 if it is none, so that there are few sizes."""
    size = numbers[0][1] - numbers[0][0] + 1 if len(numbers) == 1 else 0
    return 0 if size & (size - 1) else size


def _around(numbers: Intervals, sizes: Iterable[int]) -> set[Intervals]:
    """Return the ranges that these may be known by, if they are taken: themselves, and networks of these
    sizes around them.
    """
    around = {numbers, ANY_ADDRESS}
    first, last = numbers[0][0], numbers[-1][1]
    for size in sizes:
        if size > last - first:
            low = first // size * size
            around.add(((low, low + size - 1),))
    return around
