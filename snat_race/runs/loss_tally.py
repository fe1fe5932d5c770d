"""What the journeys of a trace add up to: by victim, destination and pair, in bounded memory."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snat_race.packets.matching import Journeys, Judged, apart_ns, distinct, hashed
from snat_race.packets.syn import address
from snat_race.results.trace import (
    MOST_LOSSES,
    MOST_ROWS,
    GapBin,
    Loss,
    RacingPair,
    SentAgain,
    TracedDestination,
    Victim,
)

_MOST_KEYS = 20_000  # addresses, destinations and pairs that are counted apart
_MOST_AWAITED = 20_000  # lost SYNs whose retransmits are waited for
_SHORTEST_GAP_NS, _BINS = 128, 17  # the bins double: the last ends at 8.4 ms
OTHERS = "others"
"""The name under which everybody is counted who came when there were too many already."""


class LossTally:
    """Takes in what was judged, and says what is new about losses.

    Args:
        device_name: what the device of an ifindex is called.
        destination: count only SYNs for this address, and this port unless it is 0; None: all.

    Attributes:
        syns: SYNs that came in and are over.
        sent: SYNs that this host sent.
        lost: SYNs that lost the race.
        vanished: SYNs that did not leave, and lost to nobody who is known.
        unsure: those of them that look like the race, of which conntrack counted fewer at that time.

    """

    def __init__(
        self, device_name: Callable[[int], str], destination: tuple[str, int] | None = None
    ) -> None:
        self._device_name = device_name
        self._destination = destination
        self.syns = self.sent = self.lost = self.vanished = self.unsure = 0
        self._clashes_used = 0
        self._syns_by_source: dict[int, int] = {}
        self._lost_by: dict[str, Counter[str]] = {"victim": Counter(), "destination": Counter()}
        self._vanished_by: dict[str, Counter[str]] = {"victim": Counter(), "destination": Counter()}
        self._sources: dict[str, int] = {}
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._apart = [0] * _BINS
        self._waited: Counter[str] = Counter()
        self._awaited: dict[tuple[int, int, int], int] = {}
        self.losses: deque[Loss] = deque(maxlen=MOST_LOSSES)

    def add(
        self,
        judged: Judged,
        since_ns: int,
        until_ns: int,
        clashes: Callable[[], int | None] = lambda: None,
    ) -> Iterator[Loss | SentAgain]:
        """Count journeys that began in a span of time; yield each loss, then each that was sent again.

        Args:
            judged: journeys that are over.
            since_ns: when the span began, CLOCK_REALTIME.
            until_ns: when it ended.
            clashes: asked where losses seem to be the race: how many entries conntrack could not insert
                since then, ``insert_failed``; None: that is not known.

        """
        left = judged.left[self._counts(judged.left, since_ns, until_ns)]
        counting = np.flatnonzero(self._counts(judged.vanished, since_ns, until_ns))
        in_time = counting[np.argsort(judged.vanished["arrived_ns"][counting], kind="stable")]
        vanished, winners = judged.vanished[in_time], judged.winners[in_time]
        received = left["arrived_ns"] > 0
        self.sent += int((~received).sum())
        self.syns += int(received.sum()) + len(vanished)
        self._count_sources(np.concatenate([left["source"][received], vanished["source"]]))
        raced = self._counted(winners, clashes)
        self._count_vanished(vanished[~raced])
        gaps_ns = apart_ns(vanished[raced], winners[raced])
        for victim, winner, gap_ns in zip(vanished[raced], winners[raced], gaps_ns.tolist(), strict=True):
            yield self._loss(victim, winner, gap_ns)
        yield from self._sent_again(left[received])

    def victims(self) -> list[Victim]:
        """Return the addresses whose SYNs did not leave, most losses first."""
        lost, vanished = self._lost_by["victim"], self._vanished_by["victim"]
        rows = []
        for name in _most(lost, vanished):
            syns = self._syns_by_source.get(self._sources.get(name, 0), 0)
            mine = (lost[name], vanished[name])
            rows.append(Victim(address=name, syns=max(syns, sum(mine)), lost=mine[0], vanished=mine[1]))
        return rows

    def destinations(self) -> list[TracedDestination]:
        """Return where the SYNs were to go that did not leave, most losses first."""
        lost, vanished = self._lost_by["destination"], self._vanished_by["destination"]
        return [
            TracedDestination(destination=name, lost=lost[name], vanished=vanished[name])
            for name in _most(lost, vanished)
        ]

    def pairs(self) -> list[RacingPair]:
        """Return who lost to whom, most losses first."""
        most = self._pairs.most_common(MOST_ROWS)
        return [RacingPair(victim=victim, winner=winner, lost=lost) for (victim, winner), lost in most]

    def apart(self) -> list[GapBin]:
        """Return how far apart losers and winners arrived; without the empty bins at the end."""
        bins = [
            GapBin(below_ns=_SHORTEST_GAP_NS << number, count=count)
            for number, count in enumerate(self._apart)
        ]
        while bins and not bins[-1].count:
            bins.pop()
        return bins

    def waited(self) -> dict[str, int]:
        """Return how many lost SYNs were sent again and left, by whole seconds."""
        return dict(sorted(self._waited.items(), key=lambda item: int(item[0])))

    def _counts(self, journeys: Journeys, since_ns: int, until_ns: int) -> NDArray[np.bool_]:
        wanted = (journeys["began_ns"] >= since_ns) & (journeys["began_ns"] <= until_ns)
        if not self._destination:
            return np.asarray(wanted)
        parsed = ip_address(self._destination[0])
        number = int(parsed) if parsed.version == 6 else 0xFFFF << 32 | int(parsed)
        port = self._destination[1]
        bound_for = np.zeros(len(journeys), bool)
        for end in ("destination", "last_destination"):
            there = (journeys[end]["high"] == number >> 64) & (
                journeys[end]["low"] == number & (1 << 64) - 1
            )
            bound_for |= there & ((journeys[end]["port"] == port) | (port == 0))
        return np.asarray(wanted & bound_for)

    def _counted(self, winners: Journeys, clashes: Callable[[], int | None]) -> NDArray[np.bool_]:
        """Return which have lost the race: all that look so, or none.

        A firewall may drop a SYN while another leaves from the same port. Conntrack counts every race. So
        where more look like the race than it counted, some of them are no race, and nobody knows which.
        """
        raced = np.asarray(winners["left_ns"] > 0)
        most = clashes() if raced.any() else None
        if most is None:
            return raced
        alike = int(raced.sum())
        if alike <= most - self._clashes_used:
            self._clashes_used += alike
        else:
            self._clashes_used = most
            self.unsure += alike
            raced[:] = False
        return raced

    def _count_sources(self, sources: NDArray[Any]) -> None:
        keys = _address_keys(sources)
        first, counts, _ = distinct(keys)
        for key, count in zip(keys[first].tolist(), counts.tolist(), strict=True):
            known = key in self._syns_by_source or len(self._syns_by_source) < _MOST_KEYS
            number = key if known else 0
            self._syns_by_source[number] = self._syns_by_source.get(number, 0) + count

    def _count_vanished(self, vanished: Journeys) -> None:
        self.vanished += len(vanished)
        for end, by in (("source", "victim"), ("destination", "destination")):
            keys = _address_keys(vanished[end]) if by == "victim" else hashed(vanished[end])
            first, counts, _ = distinct(keys)
            for row, count in zip(first.tolist(), counts.tolist(), strict=True):
                endpoint = vanished[end][row]
                name = self._victim(endpoint) if by == "victim" else _written(endpoint)
                _count(self._vanished_by[by], name, count)

    def _loss(self, victim: Any, winner: Any, gap_ns: int) -> Loss:  # noqa: ANN401 - of JOURNEY
        loss = Loss(
            at=_instant(victim["arrived_ns"]),
            source=_written(victim["source"]),
            destination=_written(victim["destination"]),
            devices=[self._device_name(device) for device in victim["devices"].tolist() if device],
            winner=_written(winner["source"]),
            translated=_written(winner["last_source"]),
            apart_ns=gap_ns,
        )
        self.lost += 1
        self.losses.append(loss)
        _count(self._lost_by["victim"], self._victim(victim["source"]), 1)
        _count(self._lost_by["destination"], loss.destination, 1)
        pair = (address(victim["source"]), address(winner["source"]))
        known = pair in self._pairs or len(self._pairs) < _MOST_KEYS
        self._pairs[pair if known else (OTHERS, OTHERS)] += 1
        self._apart[min(_BINS - 1, (abs(gap_ns) // _SHORTEST_GAP_NS).bit_length())] += 1
        if len(self._awaited) >= _MOST_AWAITED:
            del self._awaited[next(iter(self._awaited))]
        self._awaited.setdefault(_flow(victim), int(victim["arrived_ns"]))
        return loss

    def _sent_again(self, left: Journeys) -> Iterator[SentAgain]:
        if not self._awaited:
            return
        sequences = np.array([sequence for sequence, *_ in self._awaited], np.uint64)
        for row in np.flatnonzero(np.isin(left["identity"] >> np.uint64(32), sequences)).tolist():
            journey = left[row]
            lost_ns = self._awaited.get(_flow(journey))
            if lost_ns is None or journey["arrived_ns"] <= lost_ns:
                continue
            del self._awaited[_flow(journey)]
            waited_ns = int(journey["left_ns"]) - lost_ns
            self._waited[str(round(waited_ns / 1e9))] += 1
            yield SentAgain(
                at=_instant(journey["left_ns"]),
                source=_written(journey["source"]),
                destination=_written(journey["destination"]),
                waited_ns=waited_ns,
            )

    def _victim(self, source: Any) -> str:  # noqa: ANN401 - of ENDPOINT
        name = address(source)
        if len(self._sources) < _MOST_KEYS:
            self._sources.setdefault(name, _address_keys(np.array([source], source.dtype))[0].item())
        return name


def _count(counter: Counter[str], name: str, count: int) -> None:
    counter[name if name in counter or len(counter) < _MOST_KEYS else OTHERS] += count


def _most(lost: Counter[str], vanished: Counter[str]) -> list[str]:
    names = {*lost, *vanished}
    return sorted(names, key=lambda name: (-lost[name], -vanished[name], name))[:MOST_ROWS]


def _address_keys(endpoints: NDArray[Any]) -> NDArray[np.uint64]:
    """Return a number for each address, without its port."""
    bare = endpoints.copy()
    bare["port"] = 0
    return hashed(bare)


def _flow(journey: Any) -> tuple[int, int, int]:  # noqa: ANN401 - of JOURNEY
    """Return what a SYN and its retransmits share: the sequence number and the source."""
    source = journey["source"]
    return (
        int(journey["identity"]) >> 32,
        int(source["high"]) << 64 | int(source["low"]),
        int(source["port"]),
    )


def _written(endpoint: Any) -> str:  # noqa: ANN401 - of ENDPOINT
    name = address(endpoint)
    return f"[{name}]:{endpoint['port']}" if ":" in name else f"{name}:{endpoint['port']}"


def _instant(time_ns: Any) -> str:  # noqa: ANN401 - of numpy
    """Return a time of CLOCK_REALTIME as results have it, to the us."""
    seconds, ns = divmod(int(time_ns), 1_000_000_000)
    return (
        datetime.fromtimestamp(seconds, UTC)
        .replace(microsecond=ns // 1000)
        .isoformat(timespec="microseconds")
    )
