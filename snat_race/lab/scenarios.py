"""What the lab can set up: who dials what, and which cause its losses should have."""

import difflib
from dataclasses import dataclass, field
from enum import StrEnum

from snat_race.errors import UsageError
from snat_race.load.dialer_config import Exchange


class Serving(StrEnum):
    """What the destination does with connections or datagrams."""

    # Accepts some 50 times a second, so that the dialers have the CPUs to themselves meanwhile.
    accept_in_batches = "accept in batches"
    # Accepts each connection as it comes, and closes it.
    accept_at_once = "accept at once"
    # Listens with a short queue and never accepts, so that the queue fills.
    never_accept = "never accept"
    # Answers each datagram.
    answer_datagrams = "answer datagrams"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """One situation in which SYNs, or datagrams, are lost. The defaults are those of the race itself."""

    # What users call it.
    name: str
    # One line for people who choose; no full stop.
    description: str
    # The variants that are measured unless others are asked for; the first is the baseline.
    variants: tuple[str, ...] = ("masquerade", "masquerade fully-random")
    # What a dial exchanges with the server, and who ends it.
    exchange: Exchange = Exchange.tcp_rst
    # What the server does; it must fit the exchange.
    serving: Serving = Serving.accept_in_batches
    # Whether the dialers of a lane meet in slots, from the same source port at the same instant.
    # Otherwise each dials for itself, by its own clock, from a port that the kernel chooses.
    rendezvous: bool = True
    # Whether the NAT's conntrack table is flushed before each round.
    flush_before_round: bool = True
    # Whether all of it goes over IPv6.
    ipv6: bool = False
    # Whether the dialers of a container share one socket for each port, as a resolver's A and AAAA
    # queries do, and ask a service address that stands for two backends. Needs connection tracking.
    shared_sockets: bool = False
    # How many containers dial, unless the user says.
    containers: int = 2
    # Dialers of each container, unless the user says; None: as many as there are CPUs for it.
    workers: int | None = None
    # The source ports that slots go through, first and last. Without slots they are the kernel's own.
    source_ports: tuple[int, int] = (20000, 59999)
    # From one dial of a dialer to its next, in microseconds, unless the user says.
    interval_us: int = 1000
    # When a dial is taken for lost, in milliseconds, unless the user says.
    timeout_ms: int = 4
    # Settings of the source host: key below /proc/sys/net -> value.
    sysctls: dict[str, int] = field(default_factory=dict)

    @property
    def sweepable(self) -> bool:
        """Whether two dialers meet that can be moved apart."""
        return self.rendezvous and not self.shared_sockets

    @property
    def protocol(self) -> str:
        """The transport protocol, as nftables and iptables write it."""
        return "udp" if self.exchange is Exchange.udp else "tcp"


_TABLE = (
    Scenario(
        name="tcp-snat",
        description="two TCP connects at once from the same source port: the race itself",
    ),
    Scenario(
        name="udp-snat",
        description="the same with a UDP request and its response",
        exchange=Exchange.udp,
        serving=Serving.answer_datagrams,
        timeout_ms=8,
    ),
    Scenario(
        name="ipv6",
        description="tcp-snat over IPv6",
        ipv6=True,
    ),
    Scenario(
        name="dns",
        description="A and AAAA at once from one socket, to a service address with two backends, "
        "as kube-dns has",
        variants=("no nat", "masquerade", "masquerade fully-random"),
        exchange=Exchange.udp,
        serving=Serving.answer_datagrams,
        shared_sockets=True,
        containers=1,
        workers=2,
        source_ports=(20000, 20511),  # few, because each takes an open file
        timeout_ms=8,
    ),
    Scenario(
        name="exhaustion",
        description="more connections than the NAT has ports",
        variants=("masquerade to-ports 20000-20255",),
        exchange=Exchange.tcp_held,
        rendezvous=False,
        flush_before_round=False,
    ),
    Scenario(
        name="backlog",
        description="a server that does not accept",
        variants=("masquerade",),
        serving=Serving.never_accept,
        rendezvous=False,
    ),
    Scenario(
        name="time-wait",
        description="connections closed by FIN whose ports come back while the server is in TIME_WAIT",
        variants=("masquerade to-ports 20000-20255",),
        exchange=Exchange.tcp_fin_after_server,
        serving=Serving.accept_at_once,
        rendezvous=False,
        # So that the NAT forgets a connection long before the server does, which takes 60 s.
        sysctls={"netfilter/nf_conntrack_tcp_timeout_time_wait": 0},
    ),
)
SCENARIOS = {scenario.name: scenario for scenario in _TABLE}


def scenario_named(name: str) -> Scenario:
    """Return a scenario.

    Raises:
        UsageError: there is none of this name.

    """
    if name in SCENARIOS:
        return SCENARIOS[name]
    near = difflib.get_close_matches(name, SCENARIOS, n=2)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(SCENARIOS)}"
    raise UsageError(f"unknown scenario {name!r}; {hint}")
