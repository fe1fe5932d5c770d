"""When to dial and from which port: pure arithmetic that two processes agree on without talking.

All containers of a host share CLOCK_REALTIME. Slot ``k`` starts at ``k * interval``; in it, lane
``j`` dials from port ``low + (k * lanes + j) mod span``. Two workers of the same lane, in two
containers, therefore use the same port at the same instant, slot after slot, while the lanes of
one container never share a port. A port returns only after the whole range has been used.
"""

from dataclasses import dataclass

_MASK64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The appointments of one worker."""

    interval_ns: int  # length of a slot
    low: int  # lowest source port
    high: int  # highest source port, inclusive
    lanes: int  # ports used in each slot; at most high - low + 1; all who shall meet must agree on it
    lane: int  # this worker's lane, from 0; workers of one address have different ones
    seed: int = 0  # differs between workers that share a lane, so that their dither differs
    dither_ns: int = 0  # each dial is moved by up to this much to either side; not in a round that sweeps
    by_round: bool = (
        False  # slots are numbered within a round, so that a run can be repeated; else by the clock
    )
    sweeps: bool = False  # this worker is the one of its lane that moves when a round sweeps

    def first_slot(self, after_ns: int) -> int:
        """Return the first slot that starts at or after ``after_ns``."""
        return -(-after_ns // self.interval_ns)

    def slot_at(self, instant_ns: int) -> int:
        """Return the slot that ``instant_ns`` lies in."""
        return instant_ns // self.interval_ns

    def start_ns(self, slot: int) -> int:
        """Return the CLOCK_REALTIME instant at which ``slot`` starts."""
        return slot * self.interval_ns

    def shift(self, origin_ns: int, round_number: int) -> int:
        """Return what to add to the slots of a round before asking for their port or offset.

        ``origin_ns``: CLOCK_REALTIME at the round's begin, the same for all workers.
        """
        return (round_number << 32) - self.first_slot(origin_ns) if self.by_round else 0

    def source_port(self, slot: int) -> int:
        """Return the source port of this lane in ``slot``."""
        return self.low + (slot * self.lanes + self.lane) % (self.high - self.low + 1)

    def offset_ns(self, slot: int, sweep_ns: int = 0) -> int:
        """Return how far ``slot`` is moved: repeatable, spread evenly over +-``dither_ns``.

        A constant skew between two workers would otherwise decide the yield of a whole run. In
        a sweep one worker of each lane moves over +-``sweep_ns``, and the others stay.
        """
        reach_ns = (sweep_ns if self.sweeps else 0) if sweep_ns else self.dither_ns
        if not reach_ns:
            return 0
        return _mix((slot * 0x9E3779B97F4A7C15 + self.seed) & _MASK64) % (2 * reach_ns + 1) - reach_ns

    def lane_of(self, port: int, round_number: int) -> int:
        """Return the lane that dialled from ``port`` in a round; exact as :meth:`swept_ns` is."""
        origin = self.source_port(round_number << 32) - self.lane
        return (port - origin) % (self.high - self.low + 1) % self.lanes

    def swept_ns(self, port: int, round_number: int, sweep_ns: int) -> int:
        """Return the offset of the slot of a round in which ``port`` was dialled.

        Exact while a round has no more slots than there are ports to each lane.
        """
        span, first = self.high - self.low + 1, round_number << 32
        ports_since_first = (port - self.source_port(first)) % span
        return self.offset_ns(first + ports_since_first // self.lanes, sweep_ns)


def _mix(value: int) -> int:
    """Scatter an integer over 64 bits: SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK64
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK64
    return value ^ value >> 31
