"""What is known of the NAT that dials pass: its ports, and how it chooses one."""

from snat_race.results.model import Model

# get_unique_tuple() in nf_nat_core.c: from a port above 1023, it searches 1024 to 65535
EVERY_PORT = 64512


class Nat(Model):
    """What is known of a NAT."""

    ports: int = EVERY_PORT
    """How many ports it has for one destination."""
    same_draws: float = 0.0
    """How many simultaneous SYNs are expected to draw the same port; 0: it draws none."""
    evicts: bool = True
    """Whether a search may evict a TCP entry that is closing: kernels of 6.5 and newer."""
    known: bool = True
    """Whether somebody read all rules, so that these are its ports."""
    drawn: bool = False
    """Whether it draws ports at random."""
    absent: bool = False
    """Whether all rules were read, and none translates these dials."""

    @property
    def found_per_exhausted(self) -> int:
        """By how much ``found`` rises when a search ends without a free port.

        Measured on 6.18, TCP: 0 up to 32 ports, 32 of 64, 96 of 128, 128 of 256, 1,000 and 3,000; UDP:
        16 of 16, 248 of 1,000. One more if the client's own port was tried first.
        """
        return sum(self._found_per_turn)

    @property
    def _found_per_turn(self) -> list[int]:
        """By how much ``found`` rises in each turn of such a search.

        Up to 128 ports all are tried. Of more, 128, 64, 32, 16 and 8 in a row, each turn from a random
        one on. Since 6.5 the last 32 tries of each turn may evict a TCP entry, and do not count.
        """
        turns = [min(self.ports, 128), *((64, 32, 16, 8) if self.ports > 128 else ())]
        return [max(0, turn - 32) if self.evicts else turn for turn in turns]

    def expected_exhausted(self, found: int, clashes: int, entries: int) -> float:
        """How many searches found no port, at the most, if all entries were in their way.

        No more than ``found`` can pay for had a first turn in vain. In each later one a share of at
        most entries / ports is taken throughout, wherever they are: four turns make that to the fourth.
        Measured with half of 1,000 ports held in a block: 0.5 to 4 % of all searches were in vain.
        """
        if self.ports <= 128:
            return float(max(found, clashes)) if entries >= self.ports else 0.0
        return found / self._found_per_turn[0] * min(1.0, entries / self.ports) ** 4
