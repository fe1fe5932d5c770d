"""What the lab can stage: who dials what, and which cause its losses should have."""

import difflib
from dataclasses import dataclass, field
from enum import StrEnum

from snat_race.errors import UsageError
from snat_race.load.dialer_config import Exchange


class Serving(StrEnum):
    """What the destination does."""

    in_batches = "accepts in batches, so as to leave the dialers in peace"
    at_once = "accepts and closes at once"
    never = "listens with a short queue and never accepts"
    answering = "answers datagrams"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One stage. ``meets``: dialers of a lane meet in slots; otherwise each dials for itself.

    ``forgets``: the NAT's memory is erased before each round.

    ``sysctls`` are set in the source. ``workers``
    None: as many as there are CPUs for each container.
    """

    name: str
    about: str
    variants: tuple[str, ...] = ("masquerade", "masquerade fully-random")
    exchange: Exchange = Exchange.tcp_rst
    serving: Serving = Serving.in_batches
    meets: bool = True
    forgets: bool = True
    ipv6: bool = False
    resolver: bool = False
    containers: int = 2
    workers: int | None = None
    source_ports: tuple[int, int] = (20000, 59999)
    interval_us: int = 1000
    timeout_ms: int = 4
    sysctls: dict[str, int] = field(default_factory=dict)

    @property
    def sweepable(self) -> bool:
        """Whether two dialers meet that can be moved apart."""
        return self.meets and not self.resolver

    @property
    def protocol(self) -> str:
        """The transport protocol."""
        return "udp" if self.exchange is Exchange.udp else "tcp"


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("tcp-snat", "two TCP connects at once from the same source port: the race itself"),
        Scenario(
            "udp-snat",
            "the same with a UDP request and its response",
            exchange=Exchange.udp,
            serving=Serving.answering,
            timeout_ms=8,
        ),
        Scenario("ipv6", "tcp-snat over IPv6", ipv6=True),
        Scenario(
            "dns",
            "A and AAAA at once from one socket, to a service address with two backends, as kube-dns has",
            variants=("no nat", "masquerade", "masquerade fully-random"),
            exchange=Exchange.udp,
            serving=Serving.answering,
            resolver=True,
            containers=1,
            workers=2,
            source_ports=(20000, 20511),  # an open file each
            timeout_ms=8,
        ),
        Scenario(
            "exhaustion",
            "more connections than the NAT has ports",
            variants=("masquerade to-ports 20000-20255",),
            exchange=Exchange.tcp_held,
            meets=False,
            forgets=False,
        ),
        Scenario(
            "backlog",
            "a server that does not accept",
            variants=("masquerade",),
            serving=Serving.never,
            meets=False,
        ),
        Scenario(
            "time-wait",
            "connections closed by FIN whose ports come back while the server is in TIME_WAIT",
            variants=("masquerade to-ports 20000-20255",),
            exchange=Exchange.tcp_fin_after_server,
            serving=Serving.at_once,
            meets=False,
            # The NAT forgets a connection long before the server does (60 s).
            sysctls={"netfilter/nf_conntrack_tcp_timeout_time_wait": 0},
        ),
    )
}


def scenario_named(name: str) -> Scenario:
    """Return a scenario.

    Raises:
        UsageError: there is none of this name.

    """
    if name in SCENARIOS:
        return SCENARIOS[name]
    near = difflib.get_close_matches(name, SCENARIOS, n=2)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(SCENARIOS)}"
    raise UsageError(f"--scenario: unknown scenario {name!r}; {hint}")
