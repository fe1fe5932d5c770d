"""The settings of each run that is no lab: plain data.

The command line makes them from options and checks them there; whoever else makes them must keep to the
ranges given. ``--help`` imports this module, so it stays light.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

MOST_WORKERS = 4096  # processes of one run; also of all containers of a lab together
LONGEST_TIMEOUT_MS = 1_000_000  # a sample's latency has 40 bits of ns


class Mode(StrEnum):
    """How workers choose instant and source port."""

    rendezvous = "rendezvous"
    independent = "independent"


class Close(StrEnum):
    """How a dial ends: RST leaves no TIME_WAIT, FIN is the ancestor's way."""

    rst = "rst"
    fin = "fin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Settings of ``client``."""

    remote_addr: str  # HOST:PORT to dial; a name is looked up once, before the run
    workers: int  # worker processes, 1 to MOST_WORKERS; by default one for each usable CPU
    local_ips: tuple[str, ...]  # source addresses, taken in turn by the workers; empty: the kernel's choice
    timeout_ms: int  # a dial fails after this many ms, 1 to LONGEST_TIMEOUT_MS; default 500
    dial_interval_us: int  # us from one dial of a worker to its next; 0: flat out, in independent mode only
    summary_interval_sec: int  # seconds that a period lasts, at least 1; default 5
    mode: Mode  # rendezvous (default): slots of the shared clock; independent: a ticker for each worker
    source_ports: tuple[int, int]  # that rendezvous meets on, inclusive; at least as many as lanes
    lanes: int  # ports used in a slot; all parties must agree; at least workers per local address
    close: Close  # how a dial ends; default rst
    duration_s: float | None  # the run ends after this many seconds; None: on a signal, or by count
    count: int | None  # the run ends after this many dials; None: not limited
    warmup_s: float | None  # seconds dialled before the run, which are not counted; None: none
    pin: bool  # each worker stays on one CPU; default True
    watch_netns: tuple[str, ...] = ()  # namespaces whose counters are read meanwhile; default none

    def spec(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """Settings of ``watch``."""

    netns: str | None  # the namespace to read, by any name people have for it; None: our own
    interval_s: float  # seconds between two periods, 0.01 to 86,400; default 1
    duration_s: float | None  # the watch ends after this many seconds; None: on a signal

    def spec(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """Settings of ``trace``."""

    netns: str | None  # the namespace to trace, by any name people have for it; None: our own
    to: tuple[str, int] | None  # only SYNs for this address and port, 0 for any, are counted; None: all
    interval_s: float  # seconds between two periods, 0.1 to 86,400; default 1
    duration_s: float | None  # the trace ends after this many seconds; None: on a signal, or by count
    count: int | None  # the trace ends after this many SYNs that lost the race; None: not limited
    ring_mib: int  # MiB of memory for sightings that nobody has read yet, 1 to 1,024; default 32

    def spec(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Settings of ``server``."""

    local_addr: str  # HOST:PORT, or HOST:LOW-HIGH, to listen on; default 0.0.0.0:8080
    workers: int  # acceptor processes, 1 to MOST_WORKERS; by default one for each usable CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastSettings:
    """Settings of ``forecast``: a race window, and the traffic that meets it."""

    window_ns: float  # ns that two SYNs may lie apart and still race; above 0
    window_ns_ci95: tuple[float, float] | None  # its 95 % interval, in ns; None: it is not known
    containers: int  # clients behind one NAT address, 2 or more
    rate_per_container: float  # new connections a second of each client, above 0
    destinations: int  # different address:port, dialled equally often; default 1
    ports: int  # ephemeral ports of each client, 1 to 65,535; by default this machine's
    cpus: int  # CPUs that the clients are spread over; 0 (default): so many that no two share one

    def spec(self) -> dict[str, Any]:
        """Return the settings as JSON has them."""
        return asdict(self)
