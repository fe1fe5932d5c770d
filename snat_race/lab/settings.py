"""The settings of a lab: plain data, apart from what they stand for, so that ``--help`` imports no netlink.

The command line makes them from options and checks them there; whoever else makes them must keep to the
ranges given.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSettings:
    """Settings of ``lab``."""

    scenario: str  # the name of what is staged; default tcp-snat
    variants: tuple[str, ...]  # the names of the rules measured, the baseline first
    containers: int  # clients behind the NAT, 2 to MOST_CONTAINERS (1 with the scenario dns); default 2
    workers: int  # worker processes per container; by default the CPUs are shared out
    topology: Wiring  # how the containers reach the NAT; default bridge
    backend: Backend  # what loads the rules; default netlink
    cpus: tuple[int, ...]  # CPUs that workers are pinned to; empty (default): all that may be used
    duration_s: float  # seconds of measurement per variant, 0.1 to 3,600, two intervals or more; default 2
    interval_us: int  # us from one dial of a worker to its next, 100 to 60,000,000; default 1000
    timeout_ms: int  # ms after which a dial counts as lost, 1 to 900; default 4, or 8 for UDP
    window_s: float  # seconds spent on the race window, of two containers only; 0 (default): not measured
    caches: Caches  # what precedes each dial; default warm
    trace: bool = False  # whether losses are also proven by their packets; of TCP only
    seed: int  # repeats source ports and offsets, 0 to 2**32 - 1; by default drawn anew

    def spec(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self)
