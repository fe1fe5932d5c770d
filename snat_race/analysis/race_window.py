"""The race window, measured: how long a SYN can collide with another of the same tuple.

Two SYNs that reach the NAT ``d`` ns apart collide with a probability p(d). The integral of p
over all d is the window W: the mean time from the check for a free port to the insertion, of
the one SYN and of the other, added up. Traffic whose SYNs meet by chance, at any offset alike,
collides W times as often as its pairs come per ns, so W is all that a forecast needs.

Offsets are drawn evenly from [-s, +s], so W = 2 s * E[collision], a Monte Carlo integral. A
constant skew between the two dialers moves p sideways, and jitter blurs it; neither changes its
area, as long as s reaches beyond both, which the tails show.
"""

import numpy as np
from numpy.typing import NDArray

from snat_race.analysis.intervals import dispersion, student_widening, wilson
from snat_race.results.schema import CacheState, Window, WindowPoint

_BINS = 40


class Sweep:
    """The pairs of a sweep over +-``sweep_ns``, round by round."""

    def __init__(self, sweep_ns: int) -> None:
        self._sweep_ns = sweep_ns
        self._rounds: list[tuple[NDArray[np.int64], NDArray[np.bool_]]] = []

    def add(self, offsets_ns: NDArray[np.int64], collided: NDArray[np.bool_]) -> None:
        """Add a round: the offset of each pair, and whether it collided."""
        self._rounds.append((offsets_ns, collided))

    def window(self, variant: str, caches: CacheState, unexplained: int) -> Window | None:
        """Derive the window; None without pairs. ``unexplained``: losses that are not the race.

        The interval is Wilson's for the share of collisions, widened by the dispersion between
        rounds.
        """
        rounds = [(int(collided.sum()), len(collided)) for _, collided in self._rounds]
        lost, total = sum(each for each, _ in rounds), sum(pairs for _, pairs in rounds)
        if not total:
            return None
        spread, width_ns = dispersion([rounds]), 2 * self._sweep_ns
        # The dispersion is itself estimated, from so many rounds only.
        weight = spread * student_widening(len(rounds) - 1) ** 2
        low, high = wilson(lost / weight, total / weight)
        offsets_ns = np.concatenate([offsets for offsets, _ in self._rounds])
        collided = np.concatenate([each for _, each in self._rounds])
        tail = np.abs(offsets_ns) > 0.9 * self._sweep_ns
        return Window(
            variant=variant,
            caches=caches,
            sweep_ns=self._sweep_ns,
            paired=total,
            collisions=lost,
            unexplained=unexplained,
            window_ns=round(width_ns * lost / total, 1),
            window_ns_ci95=(round(width_ns * low, 1), round(width_ns * high, 1)),
            dispersion=round(spread, 3),
            tail_rate=float(collided[tail].mean()) if tail.any() else 0.0,
            curve=self._curve(offsets_ns, collided),
        )

    def _curve(self, offsets_ns: NDArray[np.int64], collided: NDArray[np.bool_]) -> list[WindowPoint]:
        edges = np.linspace(-self._sweep_ns, self._sweep_ns, _BINS + 1).round().astype(int)
        paired, _ = np.histogram(offsets_ns, edges)
        lost, _ = np.histogram(offsets_ns[collided], edges)
        return [
            WindowPoint(low_ns=low, high_ns=high, paired=n, collisions=k)
            for low, high, n, k in zip(
                edges[:-1].tolist(), edges[1:].tolist(), paired.tolist(), lost.tolist(), strict=True
            )
        ]


def too_short(window: Window) -> bool:
    """Whether the window reaches beyond the sweep: a tenth of it or more may lie there."""
    return window.tail_rate * 2 * window.sweep_ns > 0.1 * window.window_ns
