"""What people type, as values: durations, counts, shares, ports, CPUs."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from snat_race.errors import EnvironmentLacks, UsageError

Value = TypeVar("Value")

_DURATION = re.compile(r"^([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)?$")
_SECONDS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}
_COUNT = re.compile(r"^([0-9]{1,18})([kKmM]?)$")
_PORTS = re.compile(r"^([0-9]{1,5})-([0-9]{1,5})$")
_CPUS = re.compile(r"^([0-9]{1,4})(?:-([0-9]{1,4}))?$")
_TIMES = {"": 1, "k": 1000, "m": 1_000_000}


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


def parsed(parse: Callable[[str, str], Value], text: str | None, option: str) -> Value | None:
    """Parse an option that may be absent."""
    return None if text is None else parse(text, option)


def first(*choices: int | None) -> int:
    """Return the first that is given."""
    return next(choice for choice in choices if choice is not None)


def parse_duration_s(text: str, option: str) -> float:
    """Parse ``10s``, ``2m``, ``500ms``, ``1h`` or plain seconds."""
    shape = _DURATION.match(text.strip())
    seconds = float(shape[1]) * _SECONDS[shape[2]] if shape else 0.0
    if not 0 < seconds < 1e7:
        raise UsageError(f"{option}: {text!r} is no duration above 0; write 10s, 2m or 500ms")
    return seconds


def parse_count(text: str, option: str) -> int:
    """Parse ``1000``, ``50k`` or ``2m``."""
    shape = _COUNT.match(text.strip())
    count = int(shape[1]) * _TIMES[shape[2].lower()] if shape else 0
    if not 0 < count < 1 << 62:
        raise UsageError(f"{option}: {text!r} is no count above 0; write 1000 or 50k")
    return count


def parse_rate(text: str, option: str) -> float:
    """Parse ``0.1%`` or ``0.001`` to a share of 1."""
    digits = text.strip().removesuffix("%")
    try:
        rate = float(digits) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise UsageError(f"{option}: {text!r} is not a share; write 0.1% or 0.001")
    return rate


def parse_ports(text: str, option: str) -> tuple[int, int]:
    """Parse ``LOW-HIGH``, both inclusive."""
    shape = _PORTS.match(text.strip())
    if not shape:
        raise UsageError(f"{option}: {text!r} is not LOW-HIGH; write 20000-29999")
    low, high = int(shape[1]), int(shape[2])
    if not 1 <= low <= high <= 65535:
        raise UsageError(f"{option}: {text!r} must rise and lie within 1-65535")
    return low, high


def parse_cpus(text: str, option: str) -> tuple[int, ...]:
    """Parse ``0,2-5`` to the CPUs' numbers, in the order given."""
    found: list[int] = []
    for part in text.split(","):
        shape = _CPUS.match(part.strip())
        if not shape:
            raise UsageError(f"{option}: {text!r} is no list of CPUs; write 0,2-5")
        found += range(int(shape[1]), int(shape[2] or shape[1]) + 1)
    if not found or len(set(found)) < len(found):
        raise UsageError(f"{option}: {text!r} names no CPU, or one twice; write 0,2-5")
    return tuple(found)
