"""What is known of the NAT that dials pass: its ports, and how it chooses one."""

from functools import cache
from typing import Annotated, Self

from pydantic import Field

from snat_race.results import kernels
from snat_race.results.model import Amount, Count, Model

# nf_nat_l4proto_unique_tuple() in net/netfilter/nf_nat_core.c searches a NAT's ports in turns. Without a
# range of its own, a rule has 1024 to 65535 for clients with a port above 1023.
EVERY_PORT = 64512
"""How many ports a NAT has for one destination, if its rule names none."""

# NF_NAT_MAX_ATTEMPTS, then half as many in each further turn, as long as 16 or more were tried.
_FIRST_TURN = 128
_FURTHER_TURNS = (64, 32, 16, 8)
# NF_NAT_HARDER_THRESH: the last tries of each turn, which may evict an entry, since 6.5 (4589725502871).
_EVICTING_TRIES = 32


class Nat(Model):
    """What is known of a NAT."""

    ports: Annotated[Count, Field(ge=1)] = EVERY_PORT
    """How many ports it has for one destination."""
    same_draws: Amount = 0.0
    """How many simultaneous SYNs are expected to draw the same port; 0: it draws none."""
    evicts: bool = True
    """Whether a search may evict a TCP entry that is closing: kernels of 6.5 and newer."""
    known: bool = True
    """Whether somebody read all rules, so that these are its ports."""
    drawn: bool = False
    """Whether it draws ports at random."""
    absent: bool = False
    """Whether all rules were read, and none translates these dials."""
    clashes_raise_drop: bool = True
    """Whether a clash raises drop besides insert_failed: kernels of 4.7 and newer."""
    udp_clashes: bool = False
    """Whether two packets of one UDP socket may clash there and count as the race does: kernels before 4.7,
    and before 5.6 where DNAT sends DNS to several hosts."""

    def on(self, release: str) -> Self:
        """Return it as it is on a kernel, because older versions of this program did not look.

        ``release``: as ``uname -r`` has it; "" if it is not known.
        """
        version = kernels.version_of(release)
        known = {
            "clashes_raise_drop": self.clashes_raise_drop and kernels.clashes_raise_drop(version),
            "udp_clashes": self.udp_clashes or kernels.udp_clash_loses(version, servers=0),
        }
        return type(self)(**(self.model_dump() | known))

    @property
    def found_per_exhausted(self) -> int:
        """By how much ``found`` rises when a search ends without a free port.

        Measured on 6.18, TCP: 0 up to 32 ports, 32 of 64, 96 of 128, 128 of 256, 1,000 and 3,000; UDP:
        16 of 16, 248 of 1,000. One more if the client's own port was tried first.
        """
        return sum(_found_per_turn(self.ports, evicts=self.evicts))

    def expected_exhausted(self, found: int, clashes: int, entries: int) -> float:
        """Return how many searches found no port, at the most, if all entries were in their way.

        No more searches than ``found`` can pay for had a first turn in vain. Each later turn is in vain
        where all its ports are taken. The places where that is so are at most entries / ports of all,
        however the entries lie. Four later turns make that to the fourth.
        Measured with half of 1,000 ports held in a block: 0.5 to 4 % of all searches were in vain.
        """
        if self.ports <= _FIRST_TURN:
            return float(max(found, clashes)) if entries >= self.ports else 0.0
        filled = min(1.0, entries / self.ports)
        return found / _found_per_turn(self.ports, evicts=self.evicts)[0] * filled ** len(_FURTHER_TURNS)


@cache  # a stream of a watch asks for each of its periods
def _found_per_turn(ports: int, *, evicts: bool) -> tuple[int, ...]:
    """Return by how much ``found`` rises in each turn of a search that ends without a free port.

    Each turn tries ports in a row from a random one on. If the first tries all ports, it is the only
    one. A try that may evict a TCP entry does not count the port as found.
    """
    tries = [min(ports, _FIRST_TURN)]
    if ports > _FIRST_TURN:
        tries += _FURTHER_TURNS
    uncounted = _EVICTING_TRIES if evicts else 0
    return tuple(max(0, turn - uncounted) for turn in tries)
