"""The settings of a lab run; apart from what they stand for, so that ``--help`` imports no netlink."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from snat_race.errors import UsageError

MOST_WORKERS = 4096
MOST_CONTAINERS = 64


class Wiring(StrEnum):
    """How the containers reach the source."""

    bridge = "bridge"
    routed = "routed"
    ipvlan = "ipvlan"
    macvlan = "macvlan"


class Backend(StrEnum):
    """What loads a variant's rule."""

    netlink = "netlink"
    nft = "nft"
    iptables = "iptables"
    iptables_legacy = "iptables-legacy"


class Caches(StrEnum):
    """How recently the way through the NAT was used when a dial takes it."""

    hot = "hot"
    warm = "warm"
    cold = "cold"


class Expect(StrEnum):
    """What every variant measured must show, or the lab exits with 3."""

    race = "race"
    no_race = "no-race"


@dataclass(frozen=True, slots=True)
class LabSettings:
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
        within("--containers", self.containers, fewest, MOST_CONTAINERS)
        within("--workers", self.workers, 1, MOST_WORKERS // self.containers)
        within("--interval-us", self.interval_us, 100, 60_000_000)
        within("--timeout-ms", self.timeout_ms, 1, 900)
        within("--seed", self.seed, 0, (1 << 32) - 1)
        if not 0.1 <= self.duration_s <= 3600:
            raise UsageError("--duration: give 100ms to 1h")
        if self.duration_s * 1e6 < 2 * self.interval_us:
            raise UsageError("--duration: shorter than two intervals; raise it or lower --interval-us")
        if self.window_s and self.containers != 2:
            raise UsageError("--window: is measured between two containers; drop --containers")

    def spec(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self)


def within(option: str, value: int, low: int, high: int) -> None:
    """Check that an option's value is in its range."""
    if not low <= value <= high:
        raise UsageError(f"{option}: {value} is out of range; give {low} to {high}")
