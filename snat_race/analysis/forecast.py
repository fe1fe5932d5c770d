"""What ordinary traffic loses to the race, predicted from the window."""

from dataclasses import dataclass
from math import expm1

from snat_race.results.nat import EVERY_PORT
from snat_race.results.schema import Forecast

_SECONDS_PER_HOUR = 3600
_PORTS_BY_DEFAULT = 28232  # ip_local_port_range 32768 60999


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Containers behind one address, which open connections independently and steadily."""

    containers: int  # 2 or more: one alone meets nobody
    rate_per_s: float  # new connections a second of each container
    destinations: int = 1  # that they connect to, each as often as any other
    ports: int = _PORTS_BY_DEFAULT  # in ip_local_port_range of each container
    cpus: int = 0  # that their SYNs are spread over; 0: so many that no two share one

    @property
    def same_ephemeral_port(self) -> float:
        """The probability that the next connects of two containers use the same source port.

        connect() walks its range in steps of two and takes ports of one parity as long as any is
        free (``__inet_hash_connect()``, since 4.2; measured: all of 1,000). So half of them count.
        """
        return 1 / max(1, self.ports // 2)


def lost_per_s(window_ns: float, traffic: Traffic, same_port: float) -> float:
    """Return the SYNs a second that all containers lose together.

    A SYN is lost if another of the same tuple is ahead of it by less than the window allows. Of such
    SYNs there are x on average, and by Poisson none with the probability exp(-x). So n r (1 - exp(-x)) are
    lost a second, which is never more than are sent. For small x that is n r x. There
    x = (n - 1) r (W / 2) (1 - 1/c) s / d, where

    - n is the number of ``containers``, and r is ``rate_per_s`` of each;
    - W is the window, here in s: the integral of the probability of a collision over all offsets. Half of
      it is of offsets at which the other SYN is ahead;
    - c is ``cpus``, if it is given: 1/c of the others share a CPU, and there one SYN is through
      before the next begins;
    - s is ``same_port``, the probability that both ask for the same port;
    - d is ``destinations``: 1/d of the others go to the same one.

    Two things are assumed. Streams are independent and steady: bursts that a timer sets off together
    lose more. And the port is free: one that another container holds is not kept but drawn.
    """
    on_two_cpus = 1 - 1 / traffic.cpus if traffic.cpus else 1.0
    alike = on_two_cpus * same_port / traffic.destinations
    half_window_s = window_ns * 1e-9 / 2
    ahead = (traffic.containers - 1) * traffic.rate_per_s * half_window_s * alike
    return traffic.containers * traffic.rate_per_s * -expm1(-ahead)


def forecast(window_ns: float, window_ns_ci95: tuple[float, float] | None, traffic: Traffic) -> Forecast:
    """Return the SYNs lost an hour, with the ports kept and with ports drawn by the NAT.

    The interval is that of the window, if one is known: how far the assumptions are off is not in it.
    """

    def per_hour(window_ns: float, same_port: float) -> float:
        return _SECONDS_PER_HOUR * lost_per_s(window_ns, traffic, same_port)

    def interval(same_port: float) -> tuple[float, float] | None:
        if window_ns_ci95 is None:
            return None
        low_ns, high_ns = window_ns_ci95
        return per_hour(low_ns, same_port), per_hour(high_ns, same_port)

    kept = traffic.same_ephemeral_port
    drawn = 1 / EVERY_PORT
    return Forecast(
        kept_ports=per_hour(window_ns, kept),
        kept_ports_ci95=interval(kept),
        drawn_ports=per_hour(window_ns, drawn),
        drawn_ports_ci95=interval(drawn),
    )
