"""Which SYNs came in and never left, and to whom they lost the race: pure, on arrays of sightings.

A SYN's journey is all sightings of one identity, in the order of time::

    veth1 in    172.17.0.2:40012   -> 10.18.10.137:8080
    docker0 in  172.17.0.2:40012   -> 10.18.10.137:8080     the last arrival
                                                            NAT: choose a port ... confirm the entry
    eth0 out    10.18.10.136:40012 -> 10.18.10.137:8080     left

It left if any device sent it. If none did within ``WINDOW_NS``, it vanished: in the race, or for any other
reason, or because it was for this host.

A vanished SYN V lost the race to W if W's entry took the place of V's. V had chosen its port when W's entry
was not yet there, and W's was there when V's was to be confirmed (``__nf_conntrack_confirm()``). So

1. W left for the same destination, from the port that V had: a NAT that loses the race keeps ports;
2. W was translated, or this host sent it: else the two entries would not have been the same;
3. V arrived before W left, because W leaves after its entry is confirmed;
4. both lie within ``APART_NS``, many times what was measured: 0.1 to 2 us, at most 42 us under load.

A NAT that draws ports hides which port V drew. A loss that it suffers by chance has no winner here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snat_race.packets.syn import ENDPOINT, SIGHTING, Sightings

WINDOW_NS = 50_000_000
"""After so long without a sighting a journey is over. Retransmits come after a second, or 200 ms."""
APART_NS = 5_000_000
"""A winner leaves at most this long after its victim's arrival."""
LONGEST_NS = 1_000_000_000
"""SYNs of one identity that go on for so long cannot be told apart: a scanner sends them all alike."""
MOST_DEVICES = 6
"""Devices of a vanished SYN's path that are kept."""

Journeys = NDArray[Any]
"""An array of :data:`JOURNEY`."""

JOURNEY = np.dtype(
    [
        ("identity", "u8"),
        ("began_ns", "i8"),  # the first sighting, CLOCK_REALTIME
        ("arrived_ns", "i8"),  # the last sighting on the way in; 0: this host sent it
        ("left_ns", "i8"),  # the first on the way out; 0: it vanished
        ("source", ENDPOINT),  # as it came
        ("destination", ENDPOINT),
        ("last_source", ENDPOINT),  # as it was seen last: translated, if it left
        ("last_destination", ENDPOINT),
        ("passing", "?"),  # its last sighting was at the port of a bridge, for another host
        ("devices", "i4", (MOST_DEVICES,)),  # of a vanished SYN, in order, then zeros
    ]
)
"""The way of one SYN through this host."""

NO_JOURNEYS: Journeys = np.zeros(0, JOURNEY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Journeys that are over."""

    # Those that left.
    left: Journeys
    # Those that came in and did not leave. The host may have kept one for itself: that is not known here.
    vanished: Journeys
    # To whom each of those lost the race, in the same order; where nobody is known, all fields are 0.
    winners: Journeys
    # SYNs of which nothing can be said, because sightings are missing, or too many were alike.
    unknown: int

    @property
    def raced(self) -> NDArray[np.bool_]:
        """Which of the vanished have a winner."""
        return np.asarray(self.winners["left_ns"] > 0)


class Matcher:
    """Judges sightings, drain by drain; holds those whose journeys may go on."""

    def __init__(self) -> None:
        self._held: Sightings = np.zeros(0, SIGHTING)
        self._missing: list[tuple[int, int]] = []

    @property
    def held(self) -> int:
        """How many sightings are held."""
        return len(self._held)

    def miss(self, since_ns: int, until_ns: int) -> None:
        """Note that sightings of this time are missing: nobody who vanished then can be blamed."""
        self._missing.append((since_ns, until_ns))

    def forget(self) -> int:
        """Drop all that is held, as after a step of the clock; return how many journeys that were."""
        _, starts = _grouped(self._held)
        self._held = self._held[:0]
        return len(starts)

    def judge(self, seen: Sightings, now_ns: int) -> Judged:
        """Return the journeys that are over.

        A winner's last sighting is never older than its victim's, so it is among the sightings that are at
        hand when the victim is judged: nothing has to be remembered but what is held.

        Args:
            seen: sightings since the last call, in any order.
            now_ns: CLOCK_REALTIME when the drain began: all sightings until then are at hand.

        """
        ordered, starts = _grouped(np.concatenate([self._held, seen]))
        if not len(starts):
            return Judged(left=NO_JOURNEYS, vanished=NO_JOURNEYS, winners=NO_JOURNEYS, unknown=0)
        ends = np.append(starts[1:], len(ordered))
        cutoff_ns = now_ns - WINDOW_NS
        over = ordered["time_ns"][ends - 1] <= cutoff_ns
        endless = ~over & (ordered["time_ns"][starts] <= cutoff_ns - LONGEST_NS)
        self._held = ordered[np.repeat(~over & ~endless, ends - starts)]
        unknown = int(endless.sum())

        ordered, starts, over = _one_source_each(ordered, starts, over)
        journeys = _journeys(ordered, starts)
        left = journeys["left_ns"] > 0
        vanished = over & ~left
        missed = vanished & self._is_missed(journeys)
        self._missing = [span for span in self._missing if span[1] >= cutoff_ns - WINDOW_NS]
        judged = journeys[vanished & ~missed]
        judged["devices"] = _devices(ordered, starts, np.flatnonzero(vanished & ~missed))
        return Judged(
            left=journeys[over & left],
            vanished=judged,
            winners=winners_of(judged, journeys[left]),
            unknown=unknown + int(missed.sum()),
        )

    def _is_missed(self, journeys: Journeys) -> NDArray[np.bool_]:
        """Return which journeys may have sightings that nobody has."""
        missed = np.zeros(len(journeys), bool)
        for since_ns, until_ns in self._missing:
            missed |= (journeys["began_ns"] <= until_ns) & (journeys["arrived_ns"] + WINDOW_NS >= since_ns)
        return missed


def winners_of(vanished: Journeys, left: Journeys) -> Journeys:
    """Return for each vanished SYN the one that it lost to; zeros where there is none.

    A DNAT may have changed the destination of either, so both of both are compared.
    """
    winners = np.zeros(len(vanished), JOURNEY)
    changed = (hashed(left["source"]) != hashed(left["last_source"])) | (left["arrived_ns"] == 0)
    rivals = left[changed]
    if not len(vanished) or not len(rivals):
        return winners
    keys = np.concatenate(
        [_clash(rivals["last_source"], rivals[end]) for end in ("destination", "last_destination")]
    )
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    rows = order % len(rivals)
    for end in ("last_destination", "destination"):
        sought = _clash(vanished["last_source"], vanished[end])
        low, high = np.searchsorted(keys, sought, "left"), np.searchsorted(keys, sought, "right")
        for index in np.flatnonzero((high > low) & (winners["left_ns"] == 0)).tolist():
            winner = _nearest(vanished[index], rivals[rows[low[index] : high[index]]])
            if winner is not None:
                winners[index] = winner
    return winners


def _nearest(vanished: Any, rivals: Journeys) -> Any | None:  # noqa: ANN401 - one of JOURNEY
    """Return the rival that arrived nearest to a vanished SYN, of those that it may have lost to."""
    late_ns = rivals["left_ns"] - vanished["arrived_ns"]
    possible = (late_ns >= 0) & (late_ns <= APART_NS) & (rivals["source"] != vanished["source"])
    if not possible.any():
        return None
    rivals = rivals[possible]
    return rivals[np.argmin(np.abs(apart_ns(np.broadcast_to(vanished, rivals.shape), rivals)))]


def apart_ns(vanished: Journeys, winners: Journeys) -> NDArray[np.int64]:
    """Return by how much later than its winner each vanished SYN arrived, in ns."""
    ours = winners["arrived_ns"] == 0  # what this host sends does not arrive
    return np.asarray(vanished["arrived_ns"] - np.where(ours, winners["left_ns"], winners["arrived_ns"]))


def hashed(endpoints: NDArray[Any]) -> NDArray[np.uint64]:
    """Return a number of 64 bits for each endpoint, so that many can be compared and sorted fast."""
    mixed = endpoints["high"] * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= endpoints["low"]
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(32)
    mixed += endpoints["port"]
    mixed *= np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(29)
    return np.asarray(mixed)


def distinct(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return a row of each key that there is, how many rows have it, and of each row which one it has.

    ``np.unique()`` does the same, but imports a third of numpy when it is called first.
    """
    order = np.argsort(keys, kind="stable")
    begins = np.ones(len(keys), bool)
    begins[1:] = np.diff(keys[order]) != 0
    starts = np.flatnonzero(begins)
    numbers = np.empty(len(keys), np.int64)
    numbers[order] = np.cumsum(begins) - 1
    return order[starts], np.diff(np.append(starts, len(keys))), numbers


def _clash(source: NDArray[Any], destination: NDArray[Any]) -> NDArray[np.uint64]:
    """Return what is the same for two SYNs whose entries may clash: destination, and port of the source."""
    return hashed(destination) ^ (source["port"].astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93))


def _grouped(seen: Sightings) -> tuple[Sightings, NDArray[np.int64]]:
    """Return sightings by identity and time, and where each journey begins."""
    ordered = seen[np.lexsort((seen["time_ns"], seen["identity"]))]
    begins = np.ones(len(ordered), bool)
    begins[1:] = (np.diff(ordered["identity"]) != 0) | (np.diff(ordered["time_ns"]) > WINDOW_NS)
    return ordered, np.flatnonzero(begins)


def _one_source_each(
    ordered: Sightings, starts: NDArray[np.int64], over: NDArray[np.bool_]
) -> tuple[Sightings, NDArray[np.int64], NDArray[np.bool_]]:
    """Part journeys of several sources: their SYNs are alike by chance, or because a scanner wants it."""
    numbers = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(ordered))))
    rows = np.arange(len(ordered))
    first_in = np.minimum.reduceat(np.where(ordered["outgoing"], len(ordered) - 1, rows), starts)
    sources = hashed(ordered["source"])
    differs = ~ordered["outgoing"] & (sources != sources[first_in[numbers]])
    if not differs.any():
        return ordered, starts, over
    mixed = np.unique(numbers[differs])
    ends = np.append(starts[1:], len(ordered))
    pieces = [ordered[~np.isin(numbers, mixed)]]
    lengths = [np.delete(ends - starts, mixed)]
    still_over = [np.delete(over, mixed)]
    for number in mixed.tolist():
        for part in _parted(ordered[starts[number] : ends[number]]):
            pieces.append(part)
            lengths.append(np.array([len(part)]))
            still_over.append(over[[number]])
    all_lengths = np.concatenate(lengths)
    return np.concatenate(pieces), np.cumsum(all_lengths) - all_lengths, np.concatenate(still_over)


def _parted(alike: Sightings) -> Iterator[Sightings]:
    """Yield the sightings of each source. What left counts for all sources that it may have come from."""
    arrivals: dict[tuple[Any, ...], list[int]] = {}
    by_destination: dict[tuple[Any, ...], set[tuple[Any, ...]]] = {}
    for row in np.flatnonzero(~alike["outgoing"]).tolist():
        source = alike["source"][row].item()
        arrivals.setdefault(source, []).append(row)
        by_destination.setdefault(alike["destination"][row].item(), set()).add(source)
    for row in np.flatnonzero(alike["outgoing"]).tolist():
        source = alike["source"][row].item()
        candidates = {source} & arrivals.keys()
        candidates = candidates or by_destination.get(alike["destination"][row].item(), set())
        candidates = candidates or set(arrivals)  # a DNAT has changed the destination
        same_port = {candidate for candidate in candidates if candidate[2] == source[2]}
        for candidate in same_port or candidates:
            arrivals[candidate].append(row)
    for rows in arrivals.values():
        yield alike[sorted(rows)]


def _journeys(ordered: Sightings, starts: NDArray[np.int64]) -> Journeys:
    """Return the journey of each group of sightings."""
    journeys = np.zeros(len(starts), JOURNEY)
    ends = np.append(starts[1:], len(ordered))
    first, last = ordered[starts], ordered[ends - 1]
    never = np.iinfo(np.int64).max
    journeys["identity"] = first["identity"]
    journeys["began_ns"] = first["time_ns"]
    in_ns = np.where(ordered["outgoing"], 0, ordered["time_ns"])
    out_ns = np.where(ordered["outgoing"], ordered["time_ns"], never)
    journeys["arrived_ns"] = np.maximum.reduceat(in_ns, starts)
    left_ns = np.minimum.reduceat(out_ns, starts)
    journeys["left_ns"] = np.where(left_ns == never, 0, left_ns)
    for end in ("source", "destination"):
        journeys[end] = first[end]
        journeys[f"last_{end}"] = last[end]
    journeys["passing"] = last["passing"] & ~last["outgoing"]
    return journeys


def _devices(
    ordered: Sightings, starts: NDArray[np.int64], numbers: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Return the first devices of some journeys, in order."""
    ends = np.append(starts[1:], len(ordered))
    at = starts[numbers][:, None] + np.arange(MOST_DEVICES)
    inside = at < ends[numbers][:, None]
    return np.where(inside, ordered["device"][np.minimum(at, max(0, len(ordered) - 1))], 0).astype(np.int32)
