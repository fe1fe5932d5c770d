"""What is known of the NAT that dials pass: its ports, and how it chooses one."""

from snat_race.results.model import Model

EVERY_PORT = 64512


class Nat(Model):
    """How many ``ports`` the NAT has for a destination and, if it draws them, how many simultaneous
    SYNs are expected to draw the same one. ``evicts``: TCP, on a kernel of 6.5 or newer. ``known``:
    somebody read all rules, so these are its ports. ``drawn``: it draws them. ``absent``: all were read,
    and none translates these dials.
    """

    ports: int = EVERY_PORT
    same_draws: float = 0.0
    evicts: bool = True
    known: bool = True
    drawn: bool = False
    absent: bool = False

    @property
    def found_per_exhausted(self) -> int:
        """By how much ``found`` rises when a search ends without a free port.

        VariantMeasurement on 6.18, TCP: 0 up to 32 ports, 32 of 64, 96 of 128, 128 of 256, 1,000 and 3,000; UDP:
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
        VariantMeasurement with half of 1,000 ports held in a block: 0.5 to 4 % of all searches were in vain.
        """
        if self.ports <= 128:
            return float(max(found, clashes)) if entries >= self.ports else 0.0
        return found / self._found_per_turn[0] * min(1.0, entries / self.ports) ** 4
