"""Confidence intervals for proportions: what a count of losses lets us say.

Symbols in the comments: k losses in n trials, the proportion p = k / n, and z = 1.96, the normal
deviate of a two-sided 95 % interval. Losses and trials need not be whole: divided by a dispersion,
they say less than their number.
"""

from collections.abc import Iterable, Sequence
from math import erfc, exp, lgamma, log, sqrt

Z95 = 1.959963984540054
FEW_LOSSES = 20  # with fewer in all its rounds, a group does not show how far rounds vary
_MANY = 1e6  # expected events, too many to add up one by one

Interval = tuple[float, float]  # the lower and the upper end
Proportion = tuple[float, float]  # (losses, trials)


def wilson(losses: float, trials: float) -> Interval:
    """Return the 95 % score interval of a proportion, within 0 and 1; (0, 1) without trials.

    E. B. Wilson, "Probable inference", J. Amer. Statist. Assoc. 22 (1927) 209-212::

        (p + z^2 / 2n  +-  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    if not trials:
        return 0.0, 1.0
    z2 = Z95 * Z95
    p = losses / trials
    shrink = 1 + z2 / trials
    centre = (p + z2 / (2 * trials)) / shrink
    half = Z95 * sqrt(p * (1 - p) / trials + z2 / (4 * trials * trials)) / shrink
    lower = max(0.0, centre - half) if losses else 0.0
    upper = min(1.0, centre + half) if losses < trials else 1.0
    return lower, upper


def newcombe(base: Proportion, other: Proportion) -> Interval:
    """Return the 95 % interval of the difference of two proportions, ``other`` minus ``base``.

    It lies within -1 and 1, and is (-1, 1) if either has no trials. The hybrid score method:
    R. G. Newcombe, "Interval estimation for the difference between independent proportions",
    Statist. Med. 17 (1998) 873-890, method 10. Each end combines the distances from both
    proportions to the ends of their Wilson intervals that lie on its side.
    """
    if not base[1] or not other[1]:
        return -1.0, 1.0
    p = base[0] / base[1]
    q = other[0] / other[1]
    p_low, p_high = wilson(*base)
    q_low, q_high = wilson(*other)
    lower = q - p - sqrt((q - q_low) ** 2 + (p_high - p) ** 2)
    upper = q - p + sqrt((q_high - q) ** 2 + (p - p_low) ** 2)
    return lower, upper


def reduction(base: Proportion, other: Proportion) -> tuple[float, Interval] | None:
    """Return the part of the loss rate of ``base`` that is gone in ``other``, with its 95 % interval.

    1: no loss is left; 0: no change; negative: more losses. None if ``base`` has no losses or
    ``other`` no trials. It is 1 - q / p, where p is the rate of ``base`` and q that of ``other``.
    The interval of q / p combines the Wilson intervals of both by the method MOVER-R: A. Donner,
    G. Zou, "Closed-form confidence intervals for functions of the normal mean and standard
    deviation", Stat. Methods Med. Res. 21 (2012) 347-359.
    """
    if not base[0] or not other[1]:
        return None
    p = base[0] / base[1]
    q = other[0] / other[1]
    p_low, p_high = wilson(*base)
    q_low, q_high = wilson(*other)
    lowest_ratio = _ratio_limit(p=p, q=q, p_limit=p_high, q_limit=q_low, sign=-1)
    highest_ratio = _ratio_limit(p=p, q=q, p_limit=p_low, q_limit=q_high, sign=+1)
    return 1 - q / p, (1 - highest_ratio, 1 - lowest_ratio)


def _ratio_limit(*, p: float, q: float, p_limit: float, q_limit: float, sign: int) -> float:
    """Return one limit of the ratio q / p.

    It is a root of the equation (q - ratio p)^2 = (q - q_limit)^2 + ratio^2 (p - p_limit)^2: the
    limit of the difference q - ratio p is 0 there. ``sign`` -1 is the lower root, +1 the upper.
    """
    discriminant = (p * q) ** 2 - q_limit * p_limit * (2 * q - q_limit) * (2 * p - p_limit)
    root = sqrt(max(0.0, discriminant))
    return (p * q + sign * root) / (p_limit * (2 * p - p_limit))


def dispersion(groups: Iterable[Sequence[tuple[int, int]]]) -> float:
    """Return the variance between rounds over that of a binomial; at least 1.

    Each group holds the (losses, trials) of rounds that measured the same thing. A machine drifts
    from round to round, so losses vary by more than chance has it, and dials are not independent.
    Losses and trials divided by this number give intervals that allow for it. Groups with fewer
    than :data:`FEW_LOSSES` do not count.

    The estimate is Pearson's chi square over its degrees of freedom, pooled over the groups:
    P. McCullagh, J. A. Nelder, "Generalized Linear Models", 2nd ed. (1989), section 4.5.
    """
    return dispersion_and_freedom(groups)[0]


def dispersion_and_freedom(groups: Iterable[Sequence[tuple[int, int]]]) -> tuple[float, int]:
    """Return :func:`dispersion`, and the degrees of freedom of the estimate; (1, 0) without any."""
    chi_square = 0.0
    freedom = 0
    for group in groups:
        rounds = [(losses, trials) for losses, trials in group if trials]
        lost = sum(losses for losses, _ in rounds)
        tried = sum(trials for _, trials in rounds)
        if lost < FEW_LOSSES or lost == tried:
            continue
        p = lost / tried
        chi_square += sum((k - n * p) ** 2 / (n * p * (1 - p)) for k, n in rounds)
        freedom += len(rounds) - 1
    if not freedom:
        return 1.0, 0
    return max(1.0, chi_square / freedom), freedom


def counts_divisor(dispersion: float, freedom: int) -> float:
    """Return by what losses and trials are divided, so that their interval allows for a dispersion.

    The dispersion is itself an estimate, of ``freedom`` degrees of freedom. So the interval is also
    as much longer as Student's is than the normal one. Its length goes with the square root of 1 / n.
    """
    return dispersion * student_widening(freedom) ** 2


def student_widening(freedom: int) -> float:
    """Return how many times as long Student's 95 % interval is as the normal one; above 1.

    Cornish-Fisher expansion in 1 / v, where v is ``freedom``, the degrees of freedom: M. Abramowitz,
    I. Stegun, "Handbook of Mathematical Functions" (1964), 26.7.5. It is exact to 1 % from v = 4 on;
    v < 1 counts as 1.
    """
    z = Z95
    v = max(1, freedom)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return 1 + (first / v + second / v**2 + third / v**3) / z


def poisson_at_least(losses: int, expected: float) -> float:
    """Return the probability of ``losses`` or more where ``expected`` are, by chance (Poisson).

    It takes a moment however many they are. Only numbers so near to ``expected`` that they come to more
    than nothing are added up; where these are too many, E. B. Wilson, M. M. Hilferty, "The distribution of
    chi-square", Proc. Natl. Acad. Sci. 17 (1931) 684-688, is exact to 1e-4.
    """
    if not expected or not losses:
        return 0.0 if losses else 1.0
    if expected > _MANY:
        deviate = 3 * sqrt(losses) * ((expected / losses) ** (1 / 3) - 1 + 1 / (9 * losses))
        return erfc(-deviate / sqrt(2)) / 2
    reach = 40 * (sqrt(expected) + 1)
    if losses > expected + reach:
        return 0.0
    first = max(0, int(expected - reach))
    fewer = sum(exp(k * log(expected) - expected - lgamma(k + 1)) for k in range(first, losses))
    return max(0.0, 1 - fewer)
