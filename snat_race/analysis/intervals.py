"""Confidence intervals for proportions: what a count of losses lets us say."""

from collections.abc import Iterable, Sequence
from math import exp, lgamma, log, sqrt

Z95 = 1.959963984540054
FEW_LOSSES = 20
Interval = tuple[float, float]


def wilson(losses: float, trials: float) -> Interval:
    """Return the 95 % score interval of a proportion; (0, 1) without trials.

    E. B. Wilson, "Probable inference", J. Amer. Statist. Assoc. 22 (1927) 209-212.
    """
    if not trials:
        return 0.0, 1.0
    z2, p = Z95 * Z95, losses / trials
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 * sqrt(p * (1 - p) / trials + z2 / (4 * trials * trials)) / (1 + z2 / trials)
    return (max(0.0, centre - half) if losses else 0.0, min(1.0, centre + half) if losses < trials else 1.0)


def newcombe(base: tuple[float, float], other: tuple[float, float]) -> Interval:
    """Return the 95 % interval of the difference of two proportions, ``other`` minus ``base``.

    Both are (losses, trials); the hybrid score method: R. G. Newcombe, "Interval estimation for the
    difference between independent proportions", Statist. Med. 17 (1998) 873-890, method 10.
    """
    if not base[1] or not other[1]:
        return -1.0, 1.0
    p, q = base[0] / base[1], other[0] / other[1]
    (p_low, p_high), (q_low, q_high) = wilson(*base), wilson(*other)
    lower = q - p - sqrt((q - q_low) ** 2 + (p_high - p) ** 2)
    upper = q - p + sqrt((q_high - q) ** 2 + (p - p_low) ** 2)
    return lower, upper


def dispersion(groups: Iterable[Sequence[tuple[int, int]]]) -> float:
    """Return the variance between rounds over that of a binomial; at least 1.

    Each group holds the (losses, trials) of rounds of the same kind. A machine drifts from round
    to round by more than a coin would, so dials are not independent; losses and trials divided by
    this give intervals that allow for it. Groups with next to no losses do not
    show it. Pearson's chi square over its degrees of freedom, pooled: P. McCullagh, J. A. Nelder,
    "Generalized Linear Models", 2nd ed. (1989), section 4.5.
    """
    return dispersion_and_freedom(groups)[0]


def dispersion_and_freedom(groups: Iterable[Sequence[tuple[int, int]]]) -> tuple[float, int]:
    """Return the same, and the degrees of freedom that it was estimated from; 1.0 and 0 without any."""
    chi2, freedom = 0.0, 0
    for group in groups:
        rounds = [(losses, trials) for losses, trials in group if trials]
        total = sum(trials for _, trials in rounds)
        lost = sum(losses for losses, _ in rounds)
        share = lost / total if total else 0.0
        if lost >= FEW_LOSSES and share < 1:
            chi2 += sum((k - n * share) ** 2 / (n * share * (1 - share)) for k, n in rounds)
            freedom += len(rounds) - 1
    return (max(1.0, chi2 / freedom) if freedom else 1.0), freedom


def by_chance(losses: int, expected: float) -> float:
    """Return the probability of so many losses or more where ``expected`` are (Poisson)."""
    if not expected:
        return 0.0 if losses else 1.0
    fewer = sum(exp(k * log(expected) - expected - lgamma(k + 1)) for k in range(losses))
    return max(0.0, 1 - fewer)


def student_widening(freedom: int) -> float:
    """Return how much longer Student's 95 % interval is than the normal one.

    Cornish-Fisher expansion: M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions" (1964),
    26.7.5; exact to 1 % from 4 degrees of freedom on.
    """
    z, v = Z95, max(1, freedom)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return 1 + (first / v + second / v**2 + third / v**3) / z


def reduction(base: tuple[float, float], other: tuple[float, float]) -> tuple[float, Interval] | None:
    """Return by which share ``other`` lowers the loss rate of ``base``, with its 95 % interval.

    Both are (losses, trials). 1.0: no loss is left; 0.0: no change; negative: more losses. None
    where the ratio of the rates cannot be computed. The interval combines the two Wilson
    intervals by the MOVER-R method: A. Donner, G. Zou, "Closed-form confidence intervals for
    functions of the normal mean and standard deviation", Stat. Methods Med. Res. 21 (2012)
    347-359.
    """
    if not base[0] or not other[1]:
        return None
    p, q = base[0] / base[1], other[0] / other[1]
    (p_low, p_high), (q_low, q_high) = wilson(*base), wilson(*other)
    lowest = _ratio_limit(p, q, p_high, q_low, -1)
    highest = _ratio_limit(p, q, p_low, q_high, +1)
    return 1 - q / p, (1 - highest, 1 - lowest)


def _ratio_limit(p: float, q: float, p_limit: float, q_limit: float, sign: int) -> float:
    inner = (p * q) ** 2 - q_limit * p_limit * (2 * q - q_limit) * (2 * p - p_limit)
    return (p * q + sign * sqrt(max(0.0, inner))) / (p_limit * (2 * p - p_limit))
