"""What one worker dials, and how: settings only, read by its pacer, its sockets and its warm-up probes."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from snat_race.load.endpoint import SocketAddress
from snat_race.load.schedule import Schedule
from snat_race.load.udp_sockets import SharedUdpSocket


class Exchange(StrEnum):
    """What is exchanged with the server, and who ends it."""

    tcp_rst = "TCP, reset by the client"
    tcp_fin = "TCP, closed by the client"
    tcp_fin_after_server = "TCP, closed by the server, then by the client"
    tcp_held = "TCP, held open while the client opens more"
    udp = "UDP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How a worker gets ready for a slot. Only rendezvous mode has slots."""

    spin_ns: int = 0  # it is awake this long before the slot, or longer where its probes need that
    probes: int = 0  # warm-up probes before each dial
    balances: bool = False  # it connects earlier after a loss, so that two workers lose equally often


UNPREPARED = Preparation()


@dataclass(frozen=True, slots=True, kw_only=True)
class DialerConfig:
    """Settings of one worker."""

    family: int  # AF_INET or AF_INET6
    remote: SocketAddress  # the server
    local_ip: str | None = None  # the address to dial from; None: the kernel chooses
    timeout_ms: int  # a dial that takes longer has failed; the kernel rounds up to a tick of 1 to 10 ms
    exchange: Exchange = Exchange.tcp_rst
    interval_us: int = 0  # from one dial to the next; 0: flat out; of no account with a schedule
    schedule: Schedule | None = None  # slots to dial in (rendezvous mode); None: each worker for itself
    preparation: Preparation = UNPREPARED  # of no account without a schedule

    # Sockets to ask on, one a source port, if another worker uses them too; UDP only.
    shared_sockets: Sequence[SharedUdpSocket] = ()
    # Source ports of this worker's warm-up probes, which then pass the NAT. (): they die before it.
    probe_ports: Sequence[int] = ()
