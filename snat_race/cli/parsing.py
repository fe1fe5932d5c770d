"""What people type, as values: durations, counts, shares, ports, CPUs, network namespaces.

A parser takes the text of an option and returns its value. It raises ValueError in words that say what is
wrong, then what to write; the command line puts the option's name in front (see ``mistakes.py``).
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, NewType

from snat_race.errors import EnvironmentLacks, UsageError

if TYPE_CHECKING:
    from snat_race.kernel.netns import Namespace

PortRange = NewType("PortRange", tuple[int, int])  # both ends inclusive
CpuList = NewType("CpuList", tuple[int, ...])
Destination = NewType("Destination", tuple[str, int])  # an address, and a port; 0: any

_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
    "d": 86_400 * 1_000_000_000,
}
_LONGEST_SHOWN = 60
_LONGEST_NS = 10_000_000 * _NS["s"]  # 115 days
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_PART = re.compile(rf"({_NUMBER})(ns|us|µs|ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_COUNT = re.compile(r"([0-9]{1,18})([kKmM]?)")
_TIMES = {"": 1, "k": 1_000, "m": 1_000_000}
_PORTS = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")
_DESTINATION = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::([0-9]{1,5}))?|([0-9a-fA-F:.]*:[0-9a-fA-F:.]*)")
_CPUS = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


def quoted(text: str) -> str:
    """Return a text of the user's in quotes, short enough for one line."""
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Put the option's name in front of what a lower floor says of its value.

    The floors below know no command line: they say "no such host", this makes it
    "--remote-addr: no such host". A message that starts with the option's name already stays as it is.
    """
    try:
        yield
    except (UsageError, EnvironmentLacks) as failed:
        message = str(failed)
        if message.startswith(f"{option}:"):
            raise
        raise type(failed)(f"{option}: {message}") from failed


class Seconds(float):
    """A duration in seconds that prints as people write it: ``Seconds(90)`` is ``1m30s``."""

    def __str__(self) -> str:
        left_ns = round(self * _NS["s"])
        parts = []
        for unit in ("h", "m", "s", "ms", "us", "ns"):
            count, left_ns = divmod(left_ns, _NS[unit])
            if count:
                parts.append(f"{count}{unit}")
        return "".join(parts) or "0s"


def duration_ns(text: str) -> int:
    """Parse ``10s``, ``1m30s``, ``1.5h``, ``500us``; a plain number is seconds. Return nanoseconds."""
    trimmed = text.strip().removeprefix("+")
    if re.fullmatch(_NUMBER, trimmed):
        trimmed += "s"
    total_ns = 0
    if _DURATION.fullmatch(trimmed):
        for number, unit in _PART.findall(trimmed):
            whole, _, decimals = number.partition(".")
            total_ns += int(whole) * _NS[unit] + int(decimals or 0) * _NS[unit] // 10 ** len(decimals)
    if total_ns > _LONGEST_NS:
        raise ValueError(f"{quoted(text)} is longer than {_LONGEST_NS // _NS['d']} days; write less")
    if not total_ns:
        raise ValueError(f"{quoted(text)} is no duration above 0; write 10s, 1m30s or 500ms")
    return total_ns


def duration_s(text: str) -> Seconds:
    """Parse a duration as :func:`duration_ns` does; return seconds."""
    return Seconds(duration_ns(str(text)) / _NS["s"])


def count(text: str) -> int:
    """Parse ``1000``, ``50k`` or ``2M``."""
    shape = _COUNT.fullmatch(text.strip())
    number = int(shape[1]) * _TIMES[shape[2].lower()] if shape else 0
    if not 0 < number < 1 << 62:
        raise ValueError(f"{quoted(text)} is no count above 0; write 1000, 50k or 2M")
    return number


def _number(text: str) -> float:
    """Return a number; NaN, of which every comparison is false, for what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def share(text: str) -> float:
    """Parse ``0.1%`` or ``0.001``; return a share of 1."""
    trimmed = text.strip()
    value = _number(trimmed.removesuffix("%"))
    if trimmed.endswith("%"):
        value /= 100
    if 0 <= value <= 1:
        return value
    raise ValueError(f"{quoted(text)} is no share from 0 to 1; write 0.1% or 0.001")


def port_range(text: str) -> PortRange:
    """Parse ``LOW-HIGH``, both inclusive."""
    shape = _PORTS.fullmatch(text.strip())
    if not shape:
        raise ValueError(f"{quoted(text)} is not LOW-HIGH; write 20000-29999")
    low, high = int(shape[1]), int(shape[2])
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"{quoted(text)} must rise and lie within 1-65535")
    return PortRange((low, high))


def destination(text: str) -> Destination:
    """Parse ``ADDR``, ``ADDR:PORT`` or ``[V6]:PORT``: numbers, because packets hold no names."""
    shape = _DESTINATION.fullmatch(text.strip())
    address = (shape[1] or shape[2] or shape[4] or "") if shape else ""
    port = int(shape[3]) if shape and shape[3] else 0
    try:
        parsed = ip_address(address)
    except ValueError:
        raise ValueError(
            f"{quoted(text)} is no address; write 10.0.0.1, 10.0.0.1:80 or [fd00::1]:80"
        ) from None
    if shape and shape[3] and not 1 <= port <= 65535:
        raise ValueError(f"{quoted(text)}: a port is 1 to 65535")
    return Destination((str(parsed), port))


def cpu_list(text: str) -> CpuList:
    """Parse ``0,2-5``; return the CPUs' numbers, in the order given."""
    cpus: list[int] = []
    for part in text.split(","):
        shape = _CPUS.fullmatch(part.strip())
        if not shape:
            raise ValueError(f"{quoted(text)} is no list of CPUs; write 0,2-5")
        cpus += range(int(shape[1]), int(shape[2] or shape[1]) + 1)
    if not cpus or len(set(cpus)) < len(cpus):
        raise ValueError(f"{quoted(text)} names no CPU, or one twice; write 0,2-5")
    return CpuList(tuple(cpus))


def above_zero(text: str) -> float:
    """Parse a number above 0 and below 1e9."""
    number = _number(str(text))
    if not 0 < number < 1e9:
        raise ValueError(f"{quoted(text)} is no number above 0 and below 1,000,000,000")
    return number


def namespace(netns: str | None) -> "Namespace":
    """Return the network namespace that ``--netns`` names; our own if it names none.

    Raises:
        UsageError: there is no such namespace.
        EnvironmentLacks: it cannot be entered, or Docker cannot be asked.

    """
    from snat_race.kernel import netns_lookup

    with naming("--netns"):
        return netns_lookup.here() if netns is None else netns_lookup.find(netns)
