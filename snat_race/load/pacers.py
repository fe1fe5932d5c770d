"""When a worker dials. A pacer yields the source port to bind, ``wait()`` returns at the instant to
connect, and ``done()`` hears what became of the dial.

One slot of a rendezvous, from the end of the last dial to the SYN's arrival at the NAT::

        nap              spin            probes          bind      spin      the SYN travels
    |-----------|.....................|==|==|==|==|--------------|.......|~~~~~~~~~~~~~~~~~~~|
    now         nap_end      probes_begin         probes_end             connect             start + offset

    needed       = probes + syn + sweep + MARGIN
    number       = the first slot that starts at now + needed or later, but not the last one again
    start        = number * interval
    nap_end      = start - max(spin, needed)
    probes_end   = start - syn - sweep - BIND
    probes_begin = probes_end - probes
    connect      = start + offset - syn - lag

    now, start, nap_end ...   instants of CLOCK_REALTIME in ns; all who share the clock share the starts
    interval, spin            settings in ns; a worker is awake for ``spin`` at the least
    probes                    length of all warm-up probes together, in ns, as this worker measured it
    syn                       a SYN's way to the first router, in ns, as the probes measured it
    lag                       what this worker is late by, in ns, judging by how often it loses
    offset                    moves the dial on purpose, in ns: within +-dither; in a sweep +-sweep
    BIND                      time to make a socket, bind it, and be early
    MARGIN                    BIND, and some time to spare

Why probes: a worker that slept, or that only spun, reaches the NAT with cold caches, some 5 us late and
spread over as much (measured on 6.18). A probe warms the very path that the SYN takes.

A slot that passes while a dial is in flight, or that is too close to prepare for, is not dialled but
counted as late. A ticker, like Go's, makes up for the last tick it missed.

Whatever waits, waits by CLOCK_MONOTONIC, so that setting the clock moves no wait. Only which slot is next
is asked of CLOCK_REALTIME. When that is set, the worker joins the slots of the new time at the next one.
Those that the clock skips are not late, because nobody could have dialled them; those that come again
are dialled again. Late is what passed in the time that it really took.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median_low
from typing import Protocol

from snat_race.load.dialer_config import Preparation
from snat_race.load.round_control import Round, RoundControl
from snat_race.load.schedule import Schedule
from snat_race.load.worker_state import WorkerState
from snat_race.results.sample import TIMED_OUT

BIND_NS = 30_000
MARGIN_NS = 60_000
_FIRST_PROBE_NS = 30_000.0  # taken for a probe's length before one was measured
_PROBES_REMEMBERED = 31
_PROBE_SMOOTHING = 16  # a probe's length is averaged over about this many
_NUDGE_NS = 100.0  # after a loss, connect this much earlier ...
_NUDGE_MEMORY = 64  # ... and forget it over about this many dials


class Pacer(Protocol):
    """What the dialer asks of a pacer."""

    def slots(self) -> Iterator[int]:
        """Yield a source port for each dial of the present round, 0 for the kernel's choice."""

    def wait(self) -> None:
        """Return at the instant to connect."""

    def done(self, error: int) -> None:
        """Hear what became of the dial: 0, or its errno."""


class FlatOutPacer:
    """Dial again as soon as the last dial is done."""

    def __init__(self, rounds: RoundControl) -> None:
        self._rounds = rounds

    def slots(self) -> Iterator[int]:
        """See :class:`Pacer`."""
        orders, now = self._rounds.orders, time.monotonic_ns
        self._rounds.sleep_until(orders.begin_ns)
        while now() < orders.end_ns:
            yield 0

    def wait(self) -> None:
        """Return at once."""

    def done(self, error: int) -> None:
        """Do nothing: the next dial does not depend on it."""


def next_tick(now_ns: int, last_ns: int, interval_ns: int, end_ns: int) -> tuple[int, int]:
    """Return how many ticks were missed since the tick ``last_ns``, and the next one to dial at.

    That is the latest tick up to ``now_ns``, if one has passed, else the one to come.
    """
    tick_ns = last_ns + interval_ns
    missed = max(0, (min(now_ns, end_ns) - tick_ns) // interval_ns)
    return missed, tick_ns + missed * interval_ns


class TickerPacer:
    """One dial each interval, counted from the round's begin, as a Go ticker would."""

    def __init__(self, rounds: RoundControl, state: WorkerState, interval_ns: int) -> None:
        self._rounds = rounds
        self._state = state
        self._interval_ns = interval_ns

    def slots(self) -> Iterator[int]:
        """See :class:`Pacer`."""
        tick_ns = self._rounds.orders.begin_ns
        while self._rounds.sleep_until(tick_ns):
            yield 0
            missed, tick_ns = next_tick(
                time.monotonic_ns(), tick_ns, self._interval_ns, self._rounds.orders.end_ns
            )
            self._state.late += missed

    def wait(self) -> None:
        """Return at once: the tick itself was the wait."""

    def done(self, error: int) -> None:
        """Do nothing: a tick does not depend on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """How long the steps before a slot take one worker, in ns; see the drawing above."""

    spin_ns: int = 0  # it is awake this long before the slot, at the least
    probes_ns: int = 0  # all of its warm-up probes together
    syn_ns: int = 0  # a SYN's way to the first router
    lag_ns: int = 0  # by how much it is late, judging by its losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One slot, worked out: which, and when to begin each step, in ns of CLOCK_REALTIME."""

    number: int  # counted by the clock
    missed: int  # slots since the last one dialled, or since the round's begin, that cannot be dialled
    start_ns: int
    nap_end_ns: int
    probes_begin_ns: int
    probes_end_ns: int
    connect_ns: int
    source_port: int


def next_slot(now_ns: int, last: int | None, schedule: Schedule, window: Round, lead: Lead) -> Slot:
    """Return the next slot that can be prepared for; it may start after the round's end.

    ``last``: number of the slot dialled before; None at the round's begin. All is on CLOCK_REALTIME.
    """
    sweep_ns = window.sweep_ns
    needed_ns = lead.probes_ns + lead.syn_ns + sweep_ns + MARGIN_NS
    reachable = schedule.first_slot(now_ns + needed_ns)
    expected = schedule.first_slot(window.begin_ns) if last is None else last + 1
    number = max(expected, reachable)
    start_ns = schedule.start_ns(number)
    probes_end_ns = start_ns - lead.syn_ns - sweep_ns - BIND_NS
    shifted = number + schedule.shift(window.origin_ns, window.number)
    return Slot(
        number=number,
        missed=max(0, min(number, schedule.first_slot(window.end_ns)) - expected),
        start_ns=start_ns,
        nap_end_ns=start_ns - max(lead.spin_ns, needed_ns),
        probes_begin_ns=probes_end_ns - lead.probes_ns,
        probes_end_ns=probes_end_ns,
        connect_ns=start_ns + schedule.offset_ns(shifted, sweep_ns) - lead.syn_ns - lead.lag_ns,
        source_port=schedule.source_port(shifted),
    )


class RendezvousPacer:
    """Dial in each slot of a schedule so that the SYN meets the NAT as the slot starts."""

    def __init__(
        self,
        rounds: RoundControl,
        state: WorkerState,
        schedule: Schedule,
        preparation: Preparation,
        probe: Callable[[], int],
    ) -> None:
        self._rounds = rounds
        self._state = state
        self._schedule = schedule
        self._preparation = preparation
        self._probe = probe
        self._syns_ns: deque[int] = deque(maxlen=_PROBES_REMEMBERED)  # the last probe's, slot by slot
        self._probe_ns = _FIRST_PROBE_NS
        self._lag_ns = 0.0
        # Of the slot that is dialled now: when to connect, by CLOCK_MONOTONIC, and whether the
        # distance of two dials is being varied on purpose.
        self._connect_ns = 0
        self._sweeping = False

    def slots(self) -> Iterator[int]:
        """See :class:`Pacer`."""
        schedule, rounds, clock = self._schedule, self._rounds, self._rounds.clock
        last = None
        while True:
            step_ns, offset_ns = clock.update(), clock.offset_ns
            if step_ns and last is not None:
                last = schedule.slot_at(schedule.start_ns(last) + step_ns)
            now_ns, window = time.monotonic_ns() + offset_ns, rounds.present.on_realtime(offset_ns)
            slot = next_slot(now_ns, last, schedule, window, self._lead())
            self._state.late += slot.missed
            if slot.start_ns >= window.end_ns or not rounds.sleep_until(slot.nap_end_ns - offset_ns):
                return
            _spin_until(slot.probes_begin_ns - offset_ns)
            self._warm_up(slot.probes_end_ns - offset_ns)
            self._connect_ns = slot.connect_ns - offset_ns
            self._sweeping = window.sweep_ns > 0
            yield slot.source_port
            last = slot.number

    def wait(self) -> None:
        """Spin until the SYN, sent now, would meet the NAT at the slot's start."""
        _spin_until(self._connect_ns)

    def done(self, error: int) -> None:
        """Move earlier after a loss.

        Of two SYNs that collide the later one is lost, so whoever loses more often is late. Both
        move earlier after a loss, and so, without talking, towards each other.
        """
        self._lag_ns -= self._lag_ns / _NUDGE_MEMORY
        if error == TIMED_OUT and self._preparation.balances and not self._sweeping:
            self._lag_ns += _NUDGE_NS

    def _lead(self) -> Lead:
        return Lead(
            spin_ns=self._preparation.spin_ns,
            probes_ns=int(self._preparation.probes * self._probe_ns),
            syn_ns=median_low(self._syns_ns) if self._syns_ns else 0,
            lag_ns=int(self._lag_ns),
        )

    def _warm_up(self, end_ns: int) -> None:
        """Send the probes; remember how long a SYN took. Ends by ``end_ns``, or a little later."""
        now, syn_ns = time.monotonic_ns, 0
        for _ in range(self._preparation.probes):
            began_ns = now()
            if began_ns + self._probe_ns > end_ns + BIND_NS / 2:
                break
            try:
                syn_ns = self._probe()
            except OSError:  # out of files or memory: the dial itself will say so
                return
            self._probe_ns += (now() - began_ns - self._probe_ns) / _PROBE_SMOOTHING
        if syn_ns:
            self._syns_ns.append(syn_ns)


def _spin_until(instant_ns: int) -> None:
    """Spin until CLOCK_MONOTONIC reaches ``instant_ns``."""
    now = time.monotonic_ns
    while now() < instant_ns:
        pass
