"""Numbers and times as people read them: one form for each, whoever prints it."""

from datetime import UTC, datetime
from math import floor, log10


def percent(share: float) -> str:
    """Return a share of 1 as a percentage.

    It has more digits where it is close to 0 % or to 100 %, but is neither.
    """
    if 0 < share < 0.01:
        return f"{share * 100:.2g}%"
    if 0.999 <= share < 1:
        return f"{share:.3%}"
    return f"{share:.1%}"


def percent_interval(interval: tuple[float, float]) -> str:
    """Return the two ends of an interval of shares of 1: ``8.9% to 18.5%``."""
    low, high = interval
    return f"{percent(low)} to {percent(high)}"


def duration(duration_ns: float) -> str:
    """Return a duration in ns with three digits and the unit that fits: ``67.9us``."""
    value = float(duration_ns)
    unit = "ns"
    for larger_unit in ("us", "ms", "s"):
        if value < 999.5:
            break
        value /= 1000
        unit = larger_unit
    return f"{value:.0f}{unit}" if value >= 999.5 else f"{value:.3g}{unit}"


def ancestor_stamp(instant_ns: int) -> str:
    """Return an instant of CLOCK_REALTIME as the Go tool prints it: local time, to the ms, no zone."""
    return _local(instant_ns).replace(tzinfo=None).isoformat(timespec="milliseconds")


def stamp(instant_ns: int) -> str:
    """Return an instant of CLOCK_REALTIME as local time with its zone, to the ms."""
    return _local(instant_ns).isoformat(timespec="milliseconds")


def _local(instant_ns: int) -> datetime:
    return datetime.fromtimestamp(instant_ns / 1e9, UTC).astimezone()


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 worker``, ``2 workers``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def significant(value: float) -> str:
    """Return a number with three significant digits, as ``12,300``, ``1.23`` or ``0.00123``."""
    if not value:
        return "0"
    decimals = 2 - floor(log10(abs(value)))
    rounded = round(value, decimals)
    if decimals <= 0:
        return f"{rounded:,.0f}"
    return f"{rounded:,.{decimals}f}".rstrip("0").rstrip(".")
