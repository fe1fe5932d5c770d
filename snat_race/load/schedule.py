"""When to dial and from which port: pure arithmetic that two processes agree on without talking.

All containers of a host share CLOCK_REALTIME. Slot ``k`` starts at ``k * interval``; in it, lane
``j`` dials from port ``low + (k * lanes + j) mod span``. Two workers of the same lane, in two
containers, therefore use the same port at the same instant, slot after slot, while the lanes of
one container never share a port. A port returns only after the whole range has been used.
"""

from dataclasses import dataclass

_KNUTH = 2654435761  # multiplicative hashing: The Art of Computer Programming, vol. 3, 6.4


@dataclass(frozen=True, slots=True)
class Schedule:
    """The appointments of one worker.

    ``low`` and ``high`` bound the source ports, both inclusive. ``seed`` tells workers apart
    that share a lane, so that their dither differs.
    """

    interval_ns: int
    low: int
    high: int
    lanes: int
    lane: int
    seed: int = 0
    dither_ns: int = 0

    def first_slot(self, after_ns: int) -> int:
        """Return the first slot that starts at or after ``after_ns``."""
        return -(-after_ns // self.interval_ns)

    def start_ns(self, slot: int) -> int:
        """Return the CLOCK_REALTIME instant at which ``slot`` starts."""
        return slot * self.interval_ns

    def source_port(self, slot: int) -> int:
        """Return the source port of this lane in ``slot``."""
        return self.low + (slot * self.lanes + self.lane) % (self.high - self.low + 1)

    def offset_ns(self, slot: int) -> int:
        """Return the dither of ``slot``: repeatable, spread evenly over +-``dither_ns``.

        A constant skew between two workers would otherwise decide the yield of a whole run.
        """
        if not self.dither_ns:
            return 0
        mixed = ((slot << 12 ^ self.seed) + 1) * _KNUTH & 0xFFFFFFFF
        return (mixed >> 8) % (2 * self.dither_ns + 1) - self.dither_ns
