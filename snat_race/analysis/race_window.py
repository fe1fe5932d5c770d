"""The race window, measured: how long a SYN can collide with another of the same tuple.

Let p(d) be the probability that two SYNs collide that reach the NAT d ns apart. The window W is
the integral of p over all d, in ns. It is the mean time from the check for a free port to the
insertion of the entry, of the one SYN and of the other, added up. In ordinary traffic two SYNs
meet at any offset alike, so they collide W times as often as their pairs come per ns. A forecast
needs to know no more than W.

A sweep draws the offset of each pair evenly from [-s, +s]. So W = 2 s E[collision], which is a
Monte Carlo integral. A constant skew between the two dialers moves p sideways, and jitter blurs
it. Neither changes its area, as long as s reaches beyond both. The ends of the sweep show whether
it does.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from snat_race.analysis.intervals import counts_divisor, dispersion, wilson
from snat_race.errors import UsageError
from snat_race.results.schema import CacheState, LabResult, Window, WindowPoint

_POINTS = 40  # of the curve
_TAIL_FROM = 0.9  # of the sweep: pairs further apart are its ends
_MOST_BEYOND = 0.1  # of the window may lie beyond a sweep that is wide enough


class _Round(NamedTuple):
    """The pairs of one round."""

    offsets_ns: NDArray[np.int64]  # by how much the second SYN was sent later; negative: earlier
    collided: NDArray[np.bool_]  # whether that pair did


class Sweep:
    """The pairs of a sweep over offsets of +-``sweep_ns``, round by round."""

    def __init__(self, sweep_ns: int) -> None:
        self._sweep_ns = sweep_ns
        self._rounds: list[_Round] = []

    def add(self, offsets_ns: NDArray[np.int64], collided: NDArray[np.bool_]) -> None:
        """Add a round: the offset of each pair in ns, and whether it collided."""
        self._rounds.append(_Round(offsets_ns, collided))

    def window(self, variant: str, caches: CacheState, unexplained: int) -> Window | None:
        """Derive the window; None without pairs.

        The interval is Wilson's for the part of the pairs that collided. It is widened by the
        dispersion between rounds.

        Args:
            variant: the name of the rule that was swept.
            caches: how recently the way through the NAT was used before each pair.
            unexplained: losses during the sweep that are not the race.

        """
        counts = [(int(pairs.collided.sum()), len(pairs.collided)) for pairs in self._rounds]
        collisions = sum(collided for collided, _ in counts)
        paired = sum(pairs for _, pairs in counts)
        if not paired:
            return None
        width_ns = 2 * self._sweep_ns
        spread = dispersion([counts])
        divisor = counts_divisor(spread, freedom=len(counts) - 1)
        low, high = wilson(collisions / divisor, paired / divisor)
        offsets_ns = np.concatenate([pairs.offsets_ns for pairs in self._rounds])
        collided = np.concatenate([pairs.collided for pairs in self._rounds])
        tail = np.abs(offsets_ns) > _TAIL_FROM * self._sweep_ns
        return Window(
            variant=variant,
            caches=caches,
            sweep_ns=self._sweep_ns,
            paired=paired,
            collisions=collisions,
            unexplained=unexplained,
            window_ns=round(width_ns * collisions / paired, 1),
            window_ns_ci95=(round(width_ns * low, 1), round(width_ns * high, 1)),
            dispersion=round(spread, 3),
            tail_rate=float(collided[tail].mean()) if tail.any() else 0.0,
            curve=self._curve(offsets_ns, collided),
        )

    def _curve(self, offsets_ns: NDArray[np.int64], collided: NDArray[np.bool_]) -> list[WindowPoint]:
        """Count pairs and collisions in :data:`_POINTS` ranges of the offset, all of one width."""
        edges = np.linspace(-self._sweep_ns, self._sweep_ns, _POINTS + 1).round().astype(int)
        paired, _ = np.histogram(offsets_ns, edges)
        collisions, _ = np.histogram(offsets_ns[collided], edges)
        columns = edges[:-1].tolist(), edges[1:].tolist(), paired.tolist(), collisions.tolist()
        return [
            WindowPoint(low_ns=low_ns, high_ns=high_ns, paired=pairs, collisions=collided_pairs)
            for low_ns, high_ns, pairs, collided_pairs in zip(*columns, strict=True)
        ]


def exceeds_sweep(window: Window) -> bool:
    """Whether a tenth of the window or more may lie beyond the sweep: then it is longer than measured.

    The part beyond is taken to be as wide as the sweep, and as many pairs to collide as at its ends.
    """
    return window.tail_rate * 2 * window.sweep_ns > _MOST_BEYOND * window.window_ns


def window_for_forecast(result: LabResult) -> Window:
    """Return the window of a lab run, if ordinary traffic can be predicted from it.

    Raises:
        UsageError: it was not measured, nothing collided, or the rule draws its ports.

    """
    window = result.window
    if not window:
        raise UsageError("it holds no race window; let the lab measure one")
    drawing = {variant.name for variant in result.variants if variant.drawn_ports}
    if window.variant in drawing or not window.collisions:
        raise UsageError(
            f"its window is of '{window.variant}', which does not keep source ports or never collided; "
            "measure that of 'masquerade'"
        )
    return window
