"""Frozen, validated settings of each command. No I/O: what needs a look at the machine is
checked where it is used.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from snat_race.errors import UsageError
from snat_race.lab.settings import MOST_WORKERS, within

LONGEST_TIMEOUT_MS = 1_000_000  # a sample's latency has 40 bits of ns


class Mode(StrEnum):
    """How workers choose instant and source port."""

    rendezvous = "rendezvous"
    independent = "independent"


class Close(StrEnum):
    """How a dial ends: RST leaves no TIME_WAIT, FIN is the ancestor's way."""

    rst = "rst"
    fin = "fin"


@dataclass(frozen=True, slots=True)
class ClientSettings:
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
        within("--workers", self.workers, 1, MOST_WORKERS)
        within("--timeout-ms", self.timeout_ms, 1, LONGEST_TIMEOUT_MS)
        within("--dial-interval-us", self.dial_interval_us, 0, 3_600_000_000)
        within("--summary-interval-sec", self.summary_interval_sec, 1, 86_400)
        within("--lanes", self.lanes, 1, 65535)
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
class WatchSettings:
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
class ServerSettings:
    """Settings of ``server``."""

    local_addr: str
    workers: int

    def __post_init__(self) -> None:
        within("--workers", self.workers, 1, MOST_WORKERS)


@dataclass(frozen=True, slots=True)
class ForecastSettings:
    """Settings of ``forecast``. ``cpus`` 0: many."""

    window_ns: float
    window_ns_ci95: tuple[float, float]
    containers: int
    rate_per_container: float
    destinations: int
    ports: int
    cpus: int

    def __post_init__(self) -> None:
        within("--containers", self.containers, 2, 1_000_000)
        within("--destinations", self.destinations, 1, 1_000_000_000)
        within("--ports", self.ports, 1, 65535)
        within("--cpus", self.cpus, 0, 1_000_000)
        if not 0 < self.rate_per_container < 1e9:
            raise UsageError("--rate-per-container: give connects a second, above 0")
        if not 0 < self.window_ns < 1e9:
            raise UsageError("--window-ns: give nanoseconds, above 0")

    def spec(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self)
