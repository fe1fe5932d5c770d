"""Where a client dials, from where, and which of its workers is on which CPU."""

import random
import socket
from dataclasses import dataclass

from snat_race.errors import UsageError
from snat_race.kernel import host
from snat_race.load.dialer_config import UNPREPARED, DialerConfig, Exchange, Preparation
from snat_race.load.dialer_pool import Placement
from snat_race.load.endpoint import (
    Endpoint,
    SocketAddress,
    answers,
    behind_router,
    local_address,
    resolve,
    source_ip,
)
from snat_race.load.schedule import Schedule
from snat_race.runs.settings import ClientSettings, Close, Mode

_LONGEST_SPIN_NS = 2_000_000
_SPIN_PART = 4  # the workers of a CPU spin for at most a quarter of its time
_DITHER_NS = 1000
_PROBES = 4
_QUARTERS = 64  # of a second; then the CPUs come again
_LONGEST_TRIAL_S = 1.0  # for each address of a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The server that the client dials."""

    family: int  # AF_INET or AF_INET6
    address: SocketAddress
    text: str  # the address as people write it: 10.0.0.1:8080 or [::1]:8080
    routed: bool  # a router, and so perhaps a NAT, lies between this host and it; IPv4 only


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the client dials, from where, on which CPUs."""

    remote: Remote
    source_ips: tuple[str, ...]  # worker by worker, in turn; "*": not known, because there is no route
    cpus: tuple[int, ...]  # those that this process may use


def find_remote(text: str, timeout_ms: int) -> Remote:
    """Resolve ``HOST:PORT``.

    Of a name's several addresses the first that answers within ``timeout_ms`` is taken, as the Go tool's
    dials did each time; if none does, the first. Nothing is sent where there is one address only.

    Raises:
        UsageError: it is no such address, or the host is unknown.

    """
    endpoint = Endpoint.parse(text, "127.0.0.1")
    if endpoint.high > endpoint.low:
        raise UsageError(f"{endpoint} is a range; dial one port")
    addresses = resolve(endpoint)
    family, address = addresses[0]
    if len(addresses) > 1:
        timeout_s = min(timeout_ms / 1000, _LONGEST_TRIAL_S)
        answering = (known for known in addresses if answers(*known, timeout_s))
        family, address = next(answering, addresses[0])
    return Remote(
        family=family,
        address=address,
        text=str(Endpoint(address[0], address[1], address[1])),
        routed=behind_router(family, address),
    )


def find_target(settings: ClientSettings, remote: Remote) -> Target:
    """Check the addresses to dial from.

    Raises:
        UsageError: one is not an address of this machine, or of another family than the remote, or twice.

    """
    local_ips = tuple(local_address(text, remote.family) for text in settings.local_ips)
    if len(set(local_ips)) < len(local_ips):
        raise UsageError("the same address twice; give each only once")
    return Target(
        remote=remote,
        source_ips=local_ips or (source_ip(remote.family, remote.address),),
        cpus=tuple(host.usable_cpus()),
    )


def placements(settings: ClientSettings, target: Target) -> list[Placement]:
    """Return each worker's address and lane, its CPU, and how long it stays awake for a slot.

    Worker *i* gets the *i*-th usable CPU, counted from :func:`first_cpus` if there is a router.
    """
    cpus, remote = target.cpus, target.remote
    firsts = first_cpus(_number(remote.family, target.source_ips[0])) if remote.routed else [0]
    return [
        Placement(
            config=_config(settings, target, worker),
            cpus=tuple(cpus[(first + worker) % len(cpus)] for first in firsts) if settings.pin else (),
        )
        for worker in range(settings.workers)
    ]


def first_cpus(address: int) -> list[int]:
    """Return at which CPU a container begins to count, for one quarter of a second after the other.

    Two dials cannot be simultaneous on one CPU. So two containers must not have the workers of one lane
    on the same CPU for ever. In even quarters the address itself decides, because the neighbouring
    addresses that Docker gives then differ. Two addresses that are equal modulo the number of CPUs
    always agree there, so in odd quarters a draw decides, whose seed is the address.
    """
    draw = random.Random(address)  # noqa: S311 - not a secret: the same in every run
    return [address if quarter % 2 == 0 else draw.getrandbits(16) for quarter in range(_QUARTERS)]


def _config(settings: ClientSettings, target: Target, worker: int) -> DialerConfig:
    rendezvous = settings.mode is Mode.rendezvous
    return DialerConfig(
        family=target.remote.family,
        remote=target.remote.address,
        local_ip=target.source_ips[worker % len(target.source_ips)] if settings.local_ips else None,
        timeout_ms=settings.timeout_ms,
        exchange=Exchange.tcp_rst if settings.close is Close.rst else Exchange.tcp_fin,
        interval_us=settings.dial_interval_us,
        schedule=_schedule(settings, target, worker) if rendezvous else None,
        preparation=_preparation(settings, target) if rendezvous else UNPREPARED,
    )


def _schedule(settings: ClientSettings, target: Target, worker: int) -> Schedule:
    """Return a worker's appointments: workers of one address have lanes of their own."""
    address, lane = worker % len(target.source_ips), worker // len(target.source_ips)
    low, high = settings.source_ports
    return Schedule(
        interval_ns=settings.dial_interval_us * 1000,
        low=low,
        high=high,
        lanes=settings.lanes,
        lane=lane,
        seed=_number(target.remote.family, target.source_ips[address]) + (lane << 32),
        dither_ns=_DITHER_NS,
    )


def _preparation(settings: ClientSettings, target: Target) -> Preparation:
    """Return how workers get ready: those that share a CPU do less, so as not to hinder each other."""
    workers_a_cpu = -(-settings.workers // len(target.cpus))
    probes = _PROBES if workers_a_cpu == 1 else 1
    return Preparation(
        spin_ns=min(_LONGEST_SPIN_NS, settings.dial_interval_us * 1000 // (_SPIN_PART * workers_a_cpu)),
        probes=probes if target.remote.routed else 0,
        balances=True,
    )


def _number(family: int, ip: str) -> int:
    """Return the source address as a number: what tells two containers apart."""
    return 0 if ip == "*" else int.from_bytes(socket.inet_pton(family, ip))
