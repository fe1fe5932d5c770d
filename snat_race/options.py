"""Frozen, validated settings of each command. No I/O: what needs a look at the machine is
checked where it is used.
"""

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from snat_race.errors import UsageError
from snat_race.kernel.choices import Backend, Caches, Wiring

MOST_WORKERS = 4096
LONGEST_TIMEOUT_MS = 1_000_000  # a sample's latency has 40 bits of ns
MOST_CONTAINERS = 64

_DURATION = re.compile(r"^([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)?$")
_SECONDS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}
_COUNT = re.compile(r"^([0-9]{1,18})([kKmM]?)$")
_PORTS = re.compile(r"^([0-9]{1,5})-([0-9]{1,5})$")
_CPUS = re.compile(r"^([0-9]{1,4})(?:-([0-9]{1,4}))?$")
_TIMES = {"": 1, "k": 1000, "m": 1_000_000}


class Mode(StrEnum):
    """How workers choose instant and source port."""

    rendezvous = "rendezvous"
    independent = "independent"


class Close(StrEnum):
    """How a dial ends: RST leaves no TIME_WAIT, FIN is the ancestor's way."""

    rst = "rst"
    fin = "fin"


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Settings of ``client``. None: not limited, or the machine's default."""

    remote_addr: str
    workers: int
    local_ips: tuple[str, ...]
    timeout_ms: int
    dial_interval_us: int
    summary_interval_sec: int
    mode: Mode
    source_ports: tuple[int, int]
    lanes: int
    close: Close
    duration_s: float | None
    count: int | None
    warmup_s: float | None
    pin: bool
    watch_netns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _within("--workers", self.workers, 1, MOST_WORKERS)
        _within("--timeout-ms", self.timeout_ms, 1, LONGEST_TIMEOUT_MS)
        _within("--dial-interval-us", self.dial_interval_us, 0, 3_600_000_000)
        _within("--summary-interval-sec", self.summary_interval_sec, 1, 86_400)
        _within("--lanes", self.lanes, 1, 65535)
        if len(set(self.local_ips)) < len(self.local_ips):
            raise UsageError("--local-ip: the same address twice; give each only once")
        if len(self.local_ips) > self.workers:
            raise UsageError(
                f"--workers: {self.workers} cannot dial from {len(self.local_ips)} addresses; "
                f"give at least {len(self.local_ips)}"
            )
        if self.mode is Mode.rendezvous:
            self._check_rendezvous()

    def _check_rendezvous(self) -> None:
        low, high = self.source_ports
        needed = -(-self.workers // max(1, len(self.local_ips)))
        if not self.dial_interval_us:
            raise UsageError(
                "--dial-interval-us: 0 (flat out) has no slots to meet in; add --mode independent"
            )
        if self.lanes < needed:
            raise UsageError(f"--lanes: {self.workers} workers need at least {needed} lanes")
        if high - low + 1 < self.lanes:
            raise UsageError(
                f"--source-ports: {low}-{high} has fewer ports than the {self.lanes} lanes; widen it"
            )

    def spec(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """Settings of ``watch``. ``netns`` None: this process's own; ``duration_s`` None: for ever."""

    netns: str | None
    interval_s: float
    duration_s: float | None

    def __post_init__(self) -> None:
        if not 0.01 <= self.interval_s <= 86_400:
            raise UsageError("--interval: give 10ms to 24h")

    def spec(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Settings of ``server``."""

    local_addr: str
    workers: int

    def __post_init__(self) -> None:
        _within("--workers", self.workers, 1, MOST_WORKERS)


@dataclass(frozen=True, slots=True)
class LabOptions:
    """Settings of ``lab``; ``workers`` per container, ``duration_s`` per variant.

    ``cpus`` empty: all that may be used. ``window_s`` 0: the window is not measured.
    """

    scenario: str
    variants: tuple[str, ...]
    containers: int
    workers: int
    topology: Wiring
    backend: Backend
    cpus: tuple[int, ...]
    duration_s: float
    interval_us: int
    timeout_ms: int
    window_s: float
    caches: Caches
    seed: int

    def __post_init__(self) -> None:
        fewest = 1 if self.scenario == "dns" else 2
        _within("--containers", self.containers, fewest, MOST_CONTAINERS)
        _within("--workers", self.workers, 1, MOST_WORKERS // self.containers)
        _within("--interval-us", self.interval_us, 100, 60_000_000)
        _within("--timeout-ms", self.timeout_ms, 1, 900)
        _within("--seed", self.seed, 0, (1 << 32) - 1)
        if not 0.1 <= self.duration_s <= 3600:
            raise UsageError("--duration: give 100ms to 1h")
        if self.duration_s * 1e6 < 2 * self.interval_us:
            raise UsageError("--duration: shorter than two intervals; raise it or lower --interval-us")
        if self.window_s and self.containers != 2:
            raise UsageError("--window: is measured between two containers; drop --containers")

    def spec(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ForecastOptions:
    """Settings of ``forecast``. ``cpus`` 0: many."""

    window_ns: float
    window_ns_ci95: tuple[float, float]
    containers: int
    rate_per_container: float
    destinations: int
    ports: int
    cpus: int

    def __post_init__(self) -> None:
        _within("--containers", self.containers, 2, 1_000_000)
        _within("--destinations", self.destinations, 1, 1_000_000_000)
        _within("--ports", self.ports, 1, 65535)
        _within("--cpus", self.cpus, 0, 1_000_000)
        if not 0 < self.rate_per_container < 1e9:
            raise UsageError("--rate-per-container: give connects a second, above 0")
        if not 0 < self.window_ns < 1e9:
            raise UsageError("--window-ns: give nanoseconds, above 0")

    def spec(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self)


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


def _within(option: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"{option}: {value} is out of range; give {low} to {high}")
