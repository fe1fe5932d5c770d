"""What ordinary traffic loses to the race, predicted from the window."""

from dataclasses import dataclass

from snat_race.results.schema import Forecast

DRAWN_PORTS = 64512  # get_unique_tuple() in nf_nat_core.c searches 1024 to 65535
_SECONDS_AN_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Traffic:
    """Containers behind one address, each with ``rate_per_s`` new connections a second.

    ``ports``: how many there are in ip_local_port_range; ``cpus`` 0: no two share one.
    """

    containers: int
    rate_per_s: float
    destinations: int = 1
    ports: int = 28232
    cpus: int = 0

    @property
    def same_ephemeral_port(self) -> float:
        """The probability that two containers' next connects use the same source port.

        connect() walks its range in steps of two and takes ports of one parity as long as any is
        free (``__inet_hash_connect()``, since 4.2; measured: all of 1,000), so half of them count.
        """
        return 1 / max(1, self.ports // 2)


def lost_per_s(window_ns: float, traffic: Traffic, same_port: float) -> float:
    """Return the SYNs a second that the containers lose among them.

    ``containers * (containers - 1) / 2`` pairs of independent Poisson streams of ``rate_per_s``
    each: the SYNs of two of them fall within a time t of each other ``rate_per_s ** 2 * 2 t``
    times a second, so weighing each offset with its probability of a collision leaves
    ``rate_per_s ** 2 * window``. Of these, ``1 / destinations`` go to the same one, and
    ``same_port`` of those ask for the same port. With ``cpus`` given, ``1 / cpus`` of the pairs
    share a CPU, where one SYN is through before the next begins.

    It assumes that the streams are independent and steady (bursts that a timer sets off together
    lose more), and that the port is free: one that another container holds is not kept, but drawn.
    """
    pairs = traffic.containers * (traffic.containers - 1) / 2
    apart = 1 - 1 / traffic.cpus if traffic.cpus else 1.0
    meetings_per_s = pairs * traffic.rate_per_s**2 * window_ns * 1e-9
    return meetings_per_s * same_port * apart / traffic.destinations


def forecast(window_ns: float, window_ns_ci95: tuple[float, float], traffic: Traffic) -> Forecast:
    """Return the losses an hour, with the ports kept and with ports drawn by the NAT."""

    def an_hour(window: float, same_port: float) -> float:
        return _SECONDS_AN_HOUR * lost_per_s(window, traffic, same_port)

    (low, high), kept, drawn = window_ns_ci95, traffic.same_ephemeral_port, 1 / DRAWN_PORTS
    return Forecast(
        kept_ports=an_hour(window_ns, kept),
        kept_ports_ci95=(an_hour(low, kept), an_hour(high, kept)),
        drawn_ports=an_hour(window_ns, drawn),
        drawn_ports_ci95=(an_hour(low, drawn), an_hour(high, drawn)),
    )
