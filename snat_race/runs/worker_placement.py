"""The plan of a client's run: where it dials, from where, and which worker sits on which CPU."""

import random
import socket
from dataclasses import dataclass

from snat_race.errors import UsageError
from snat_race.kernel import host
from snat_race.load.dialer_pool import Placement
from snat_race.load.endpoint import (
    Endpoint,
    SocketAddress,
    behind_router,
    require_local,
    resolve,
    source_ip,
)
from snat_race.load.pacers import UNPREPARED, Preparation
from snat_race.load.schedule import Schedule
from snat_race.load.sockets import DialerConfig, Exchange
from snat_race.runs.settings import ClientSettings, Close, Mode

_LONGEST_SPIN_NS = 2_000_000
_SPIN_SHARE = 4  # workers that share a CPU spin for at most a quarter of its time
_DITHER_NS = 1000
_REHEARSALS = 4
_TURNS = 64


@dataclass(frozen=True, slots=True)
class Target:
    """Where the client dials, from where, on which CPUs."""

    family: int
    remote: SocketAddress
    remote_text: str
    source_ips: tuple[str, ...]
    cpus: tuple[int, ...]
    routed: bool


def locate(settings: ClientSettings) -> Target:
    """Resolve and check the addresses.

    Raises:
        UsageError: unknown host, or a local IP that is not ours.

    """
    endpoint = Endpoint.parse(settings.remote_addr, "--remote-addr", "127.0.0.1")
    if endpoint.high > endpoint.low:
        raise UsageError(f"--remote-addr: {endpoint} is a range; dial one port")
    family, remote = resolve(endpoint, "--remote-addr")
    for ip in settings.local_ips:
        require_local(ip, family, "--local-ip")
    return Target(
        family=family,
        remote=remote,
        remote_text=str(Endpoint(remote[0], remote[1], remote[1])),
        source_ips=settings.local_ips or (source_ip(family, remote),),
        cpus=tuple(host.usable_cpus()),
        routed=behind_router(family, remote),
    )


def placements(settings: ClientSettings, target: Target) -> list[Placement]:
    """Plan every worker: its address and lane, its CPU, how long it stays awake for a slot.

    Worker *i* gets the *i*-th usable CPU, counted from :func:`first_cpus` if there is a router.
    """
    cpus = target.cpus
    firsts = first_cpus(_number(target.family, target.source_ips[0])) if target.routed else [0]
    return [
        Placement(
            _config(settings, target, i),
            tuple(cpus[(first + i) % len(cpus)] for first in firsts) if settings.pin else (),
        )
        for i in range(settings.workers)
    ]


def first_cpus(address: int) -> list[int]:
    """Return where a container begins to count CPUs, turn by turn of the shared clock.

    The dials of one lane cannot be simultaneous in two containers that have it on one CPU.
    Neighbouring addresses, as Docker gives them, never do so in the even turns; any two that
    always did there, do not in some of the odd ones.
    """
    draw = random.Random(address)  # noqa: S311 - not a secret: the same in every run
    return [address if turn % 2 == 0 else draw.getrandbits(16) for turn in range(_TURNS)]


def _config(settings: ClientSettings, target: Target, worker: int) -> DialerConfig:
    interval_ns = settings.dial_interval_us * 1000
    sharing = -(-settings.workers // len(target.cpus))
    schedule, readiness = None, UNPREPARED
    if settings.mode is Mode.rendezvous:
        ip = target.source_ips[worker % len(target.source_ips)]
        lane = worker // len(target.source_ips)
        seed = _number(target.family, ip) + (lane << 32)
        low, high = settings.source_ports
        schedule = Schedule(interval_ns, low, high, settings.lanes, lane, seed, _DITHER_NS)
        rehearsals = (_REHEARSALS if sharing == 1 else 1) if target.routed else 0
        spin_ns = min(_LONGEST_SPIN_NS, interval_ns // (_SPIN_SHARE * sharing))
        readiness = Preparation(spin_ns, rehearsals, settings.timeout_ms * 1_000_000)
    return DialerConfig(
        family=target.family,
        remote=target.remote,
        local_ip=settings.local_ips[worker % len(settings.local_ips)] if settings.local_ips else None,
        timeout_ms=settings.timeout_ms,
        exchange=Exchange.tcp_rst if settings.close is Close.rst else Exchange.tcp_fin,
        interval_us=settings.dial_interval_us,
        schedule=schedule,
        readiness=readiness,
    )


def _number(family: int, ip: str) -> int:
    """Return the source address as a number: what tells two containers apart."""
    return 0 if ip == "*" else int.from_bytes(socket.inet_pton(family, ip))
