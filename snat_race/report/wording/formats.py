"""Numbers and times as people read them: one form for each, whoever prints it."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from math import floor, log10
from string import Formatter
from typing import Any


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


def plural(count: float, noun: str) -> str:
    """Return a count with its noun: ``1 worker``, ``2 workers``, ``3 entries``, ``4 losses``."""
    number = f"{int(count):,}" if count == int(count) else f"{count:,g}"
    if count == 1:
        return f"{number} {noun}"
    if noun.endswith("s"):
        return f"{number} {noun}es"
    return f"{number} {noun.removesuffix('y')}ies" if noun.endswith("ry") else f"{number} {noun}s"


class _Counting(Formatter):
    """As str.format(), but a noun may stand for the form of a number: ``{lost:dial}``."""

    def format_field(self, value: Any, format_spec: str) -> str:  # noqa: ANN401 - as its base has it
        if re.fullmatch(r"[A-Za-z][A-Za-z ]+", format_spec):
            return plural(value, format_spec)
        formatted: str = super().format_field(value, format_spec)
        return formatted


def filled(template: str, values: Mapping[str, Any]) -> str:
    """Put values in the braces of a template. ``{lost:dial}`` is a count with its noun."""
    return _Counting().vformat(template, (), values)


def filled_or_listed(template: str, values: Mapping[str, Any]) -> str:
    """Return the same; of a file that lacks some of the values, those that it has, by name."""
    return filled_if_known(template, values) or ", ".join(
        f"{name} {value}" for name, value in values.items()
    )


def filled_if_known(template: str, values: Mapping[str, Any]) -> str:
    """Return the same, or nothing if a value is missing, or is not of the kind that the template shows.

    Settings in a file may be those of another version, or edited by hand.
    """
    try:
        return filled(template, values)
    except (KeyError, TypeError, ValueError):
        return ""


def namespace(name: str) -> str:
    """Return what a network namespace is called: one that was named by a process is that process's."""
    return f"the namespace of process {name}" if name.isdecimal() else name


def significant(value: float) -> str:
    """Return a number with three significant digits, as ``12,300``, ``1.23`` or ``0.00123``."""
    if not value:
        return "0"
    decimals = 2 - floor(log10(abs(value)))
    rounded = round(value, decimals)
    if decimals <= 0:
        return f"{rounded:,.0f}"
    return f"{rounded:,.{decimals}f}".rstrip("0").rstrip(".")
