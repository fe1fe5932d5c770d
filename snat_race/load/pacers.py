"""How a worker waits for its next dial. A pace yields the source port to bind (0: the kernel's
choice), and ``wait()`` then returns at the instant to connect.

A slot that passes while a dial is in flight, or is too close to prepare for, is not dialled but
counted as late. A ticker, like Go's, makes up for the last one it missed.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median_low
from typing import Protocol

from snat_race.load.ring import LATE, Ring
from snat_race.load.round_control import RoundControl
from snat_race.load.schedule import Schedule

_BIND_NS = 30_000  # from the last rehearsal to the slot: make a socket, bind it, be early
_MARGIN_NS = 60_000  # a slot closer than this cannot be prepared for
_NUDGE_NS = 100.0  # after a loss, connect this much earlier ...
_MEMORY = 64  # ... and forget it over so many dials


class Pacer(Protocol):
    """What the dialer asks of a pace."""

    def slots(self, begin_ns: int) -> Iterator[int]:
        """Yield source ports, one a dial, from ``begin_ns`` until the round ends."""

    def wait(self) -> None:
        """Return at the instant to connect."""


class FlatOutPacer:
    """Dial again as soon as the last dial is done."""

    def __init__(self, rounds: RoundControl) -> None:
        self._rounds = rounds

    def slots(self, begin_ns: int) -> Iterator[int]:
        """See :class:`Pacer`."""
        rounds, now = self._rounds, time.time_ns
        rounds.sleep_until(begin_ns)
        while now() < rounds.end_ns:
            yield 0

    def wait(self) -> None:
        """Return at once."""


class TickerPacer:
    """One dial each interval, counted from the round's begin, as a Go ticker would."""

    def __init__(self, rounds: RoundControl, ring: Ring, interval_ns: int) -> None:
        self._rounds, self._ring, self._interval_ns = rounds, ring, interval_ns

    def slots(self, begin_ns: int) -> Iterator[int]:
        """See :class:`Pacer`."""
        tick_ns = begin_ns
        while self._rounds.sleep_until(tick_ns):
            yield 0
            tick_ns += self._interval_ns
            missed = (min(time.time_ns(), self._rounds.end_ns) - tick_ns) // self._interval_ns
            if missed > 0:
                self._ring.count(LATE, missed)
                tick_ns += missed * self._interval_ns

    def wait(self) -> None:
        """Return at once: the tick itself was the wait."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a worker gets ready for a slot: how long it stays awake before, at the most, how many
    rehearsals it holds, and when it takes a dial for lost.
    """

    spin_ns: int = 0
    rehearsals: int = 0
    lost_after_ns: int = 1 << 62


UNPREPARED = Preparation()


class RendezvousPacer:
    """Dial in each slot of a schedule so that the SYN meets the NAT as the slot starts.

    A worker that slept, or that only spun, reaches the NAT with cold caches: some 5 us late and
    spread over as much. So it rehearses just before each slot, with SYNs that die at the first
    router: they warm the very path, and the time they take is how much earlier to connect.
    """

    def __init__(
        self,
        rounds: RoundControl,
        ring: Ring,
        schedule: Schedule,
        readiness: Preparation,
        rehearse: Callable[[], int],
    ) -> None:
        self._rounds, self._ring, self._schedule = rounds, ring, schedule
        self._spin_ns, self._rehearsals = readiness.spin_ns, readiness.rehearsals
        self._rehearse, self._lost_after_ns = rehearse, readiness.lost_after_ns
        self._observed: deque[int] = deque(maxlen=31)
        self._syn_ns = 0  # a SYN's way to the router: the median of those observed
        self._rehearsal_ns = 30_000.0  # the whole of one rehearsal
        self._target_ns = 0
        self._reach_ns = 0  # how much earlier than its slot a dial may be
        self._lag_ns = 0.0  # what this worker is late by, judging by how often it loses

    def slots(self, begin_ns: int) -> Iterator[int]:
        """See :class:`Pacer`."""
        schedule, rounds = self._schedule, self._rounds
        slot, self._reach_ns = schedule.first_slot(begin_ns), rounds.sweep_ns
        shift = schedule.shift(begin_ns, rounds.number)
        while True:
            if self._observed:
                self._syn_ns = median_low(self._observed)
            reachable = schedule.first_slot(time.time_ns() + self._preparation_ns())
            if reachable > slot:
                missed = min(reachable, schedule.first_slot(rounds.end_ns)) - slot
                self._ring.count(LATE, max(0, missed))
                slot = reachable
            start_ns = schedule.start_ns(slot)
            nap_end_ns = start_ns - max(self._spin_ns, self._preparation_ns())
            if start_ns >= rounds.end_ns or not rounds.sleep_until(nap_end_ns):
                return
            self._warm_up(start_ns)
            offset_ns = schedule.offset_ns(slot + shift, self._reach_ns)
            self._target_ns = start_ns + offset_ns - self._syn_ns - int(self._lag_ns)
            yield schedule.source_port(slot + shift)
            self._balance()
            slot += 1

    def wait(self) -> None:
        """Spin until the SYN, sent now, would meet the NAT at the slot's start."""
        now, target_ns = time.time_ns, self._target_ns
        while now() < target_ns:
            pass

    def _balance(self) -> None:
        """Of two SYNs that collide the later one is lost, so whoever loses more often is late.

        Both move earlier after a loss, and so, without talking, towards each other.
        """
        self._lag_ns -= self._lag_ns / _MEMORY
        lost = time.time_ns() - self._target_ns > self._lost_after_ns
        if lost and not self._reach_ns:
            self._lag_ns += _NUDGE_NS

    def _preparation_ns(self) -> int:
        return int(self._rehearsals * self._rehearsal_ns) + self._syn_ns + self._reach_ns + _MARGIN_NS

    def _warm_up(self, start_ns: int) -> None:
        now, last_ns = time.time_ns, start_ns - self._syn_ns - self._reach_ns - _BIND_NS
        first_ns = last_ns - int(self._rehearsals * self._rehearsal_ns)
        while now() < first_ns:
            pass
        syn_ns = 0
        for _ in range(self._rehearsals):
            began_ns = now()
            if began_ns + self._rehearsal_ns > last_ns + _BIND_NS / 2:
                break
            try:
                syn_ns = self._rehearse()
            except OSError:  # out of files or memory: the dial itself will say so
                return
            self._rehearsal_ns += (now() - began_ns - self._rehearsal_ns) / 16
        if syn_ns:
            self._observed.append(syn_ns)
