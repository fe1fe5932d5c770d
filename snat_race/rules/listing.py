"""A chain as its tool prints it."""

from dataclasses import dataclass

Chain = tuple[str, str, str]
"""Family, table and name."""


@dataclass(frozen=True, slots=True)
class Line:
    """One rule: the ``number`` of its line, counted from 0, and its text.

    ``same``: the text without what counters have counted, so it is the same later on. ``counts``:
    what iptables-restore takes before a rule, with a blank. ``handle``: nft's number for it.
    """

    number: int
    text: str
    same: str
    counts: str = ""
    handle: int = 0


Chains = dict[Chain, list[Line]]
