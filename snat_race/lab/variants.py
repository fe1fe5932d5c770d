"""The SNAT settings that the lab can measure: what each is called, says and draws from. Pure.

A new variant is one entry in ``VARIANTS``. Only a new kind of rule needs more: its statement in each of
the three languages of ``variant_rules``.
"""

import difflib
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from snat_race.errors import UsageError

# get_unique_tuple() in net/netfilter/nf_nat_core.c: it keeps a port above 1023 among 1024 to 65535.
_EVERY_PORT = range(1024, 65536)
_TO_PORTS = re.compile(r"^masquerade to-ports ([0-9]{1,5})-([0-9]{1,5})$")
_RANDOM_FLAG = re.compile(r"\brandom\b|\brandom-fully\b|\bfully-random\b")
_LOADERS = (
    "iptables",
    "iptables-nft",
    "iptables-legacy",
    "ip6tables",
    "ip6tables-nft",
    "ip6tables-legacy",
    "nft",
)


class TranslateTo(StrEnum):
    """What a variant's rule puts in place of a client's address."""

    # The address of the uplink, as the kernel finds it for each connection: MASQUERADE.
    masquerade = "masquerade"
    # The address of the uplink, given in the rule: SNAT.
    one_address = "one address"
    # A range of addresses, given in the rule: SNAT.
    address_pool = "address pool"
    # Nothing: the client's address stays as it is.
    nothing = "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One SNAT setting."""

    # What users call it, and what results call it.
    name: str
    # One line for people who choose; no full stop.
    description: str
    # What the rule translates to.
    translate_to: TranslateTo = TranslateTo.masquerade
    # The rule's flags, in the words of nftables; iptables' are derived from them.
    flags: tuple[str, ...] = ()
    # The ports that the rule may give, first and last; None: all from 1024 on.
    ports: tuple[int, int] | None = None
    # Whether connections are tracked at all. Where they are not, nothing is translated either.
    tracked: bool = True
    # The command that loads a rule of the user's; empty for our own. It stands in place of all
    # fields above but the first two.
    command: tuple[str, ...] = ()
    # What the user's command loads, as the user wrote it.
    command_text: str = ""

    @property
    def port_count(self) -> int:
        """How many ports the NAT may give for one destination."""
        return self.ports[1] - self.ports[0] + 1 if self.ports else len(_EVERY_PORT)

    def drawn_ports(self, source_ports: tuple[int, int]) -> int | None:
        """Return how many ports the kernel draws from; None if it tries to keep the client's port.

        get_unique_tuple() keeps a port that is free and lies in the rule's range, unless a random
        flag is set.

        Args:
            source_ports: the range of the clients' ports, first and last.

        """
        if _RANDOM_FLAG.search(self.command_text or " ".join(self.flags)):
            return self.port_count
        first, last = self.ports or (_EVERY_PORT.start, _EVERY_PORT.stop - 1)
        all_outside = source_ports[1] < first or last < source_ports[0]
        return self.port_count if all_outside else None


_TABLE = (
    Variant(
        name="masquerade",
        description="keeps the client's source port if it looks free: what Docker writes",
    ),
    Variant(
        name="masquerade random",
        description="draws the port at random; since 5.0 the same as fully-random",
        flags=("random",),
    ),
    Variant(
        name="masquerade fully-random",
        description="draws the port at random: the usual cure",
        flags=("fully-random",),
    ),
    Variant(
        name="masquerade persistent",
        description="keeps a client's address, and its port as masquerade does",
        flags=("persistent",),
    ),
    Variant(
        name="masquerade to-ports 10000-19999",
        description="draws from LOW-HIGH if the client's port is outside, else keeps it",
        ports=(10000, 19999),
    ),
    Variant(
        name="snat to-source",
        description="translates to a fixed address, keeps the port if it looks free",
        translate_to=TranslateTo.one_address,
    ),
    Variant(
        name="snat to-source fully-random",
        description="the same, with the port drawn at random",
        translate_to=TranslateTo.one_address,
        flags=("fully-random",),
    ),
    Variant(
        name="snat to-pool",
        description="spreads clients over addresses by hash: those that share one race",
        translate_to=TranslateTo.address_pool,
    ),
    Variant(
        name="no nat",
        description="tracks connections and translates nothing: a control, must lose nothing",
        translate_to=TranslateTo.nothing,
    ),
    Variant(
        name="notrack",
        description="neither tracks nor translates: a control, must lose nothing",
        translate_to=TranslateTo.nothing,
        tracked=False,
    ),
)
VARIANTS = {variant.name: variant for variant in _TABLE}
ALL = "all"


def variant_named(name: str) -> Variant:
    """Return a variant of ours.

    ``masquerade to-ports LOW-HIGH`` names one for any range.

    Raises:
        UsageError: there is none of this name, or its ports are no range.

    """
    if name in VARIANTS:
        return VARIANTS[name]
    if shape := _TO_PORTS.match(name):
        first, last = int(shape[1]), int(shape[2])
        if not _EVERY_PORT.start <= first <= last < _EVERY_PORT.stop:
            raise UsageError(f"{name!r}: the ports must rise and lie within 1024-65535")
        return replace(VARIANTS["masquerade to-ports 10000-19999"], name=name, ports=(first, last))
    near = difflib.get_close_matches(name, [*VARIANTS, ALL], n=2)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(VARIANTS)}"
    raise UsageError(f"unknown rule {name!r}; {hint}")


def variants_named(names: Iterable[str]) -> list[Variant]:
    """Return variants by their names; ``all`` stands for every one.

    Raises:
        UsageError: as for :func:`variant_named`.

    """
    wanted: list[Variant] = []
    for name in names:
        wanted += VARIANTS.values() if name == ALL else [variant_named(name)]
    return wanted


def variant_of_command(text: str) -> Variant:
    """Return a variant that a command of the user's loads, ``iptables -t nat -A ...`` for example.

    Raises:
        UsageError: it cannot be read, or is no command of iptables or nft.

    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as failed:
        raise UsageError(f"cannot read {text!r} ({failed}); quote it as a shell would") from failed
    if not words or words[0] not in _LOADERS:
        raise UsageError(
            f"{text!r} is no command of iptables or nft; write it whole, as in "
            "'iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE'"
        )
    return Variant(name=text, description="your rule", command=words, command_text=text)


def variant_of_file(path: Path) -> Variant:
    """Return a variant that a ruleset of the user's is, a file for ``nft -f``.

    Raises:
        UsageError: the file cannot be read.

    """
    try:
        # nft reads it for each namespace again, so it has to stay. To open a FIFO would be to wait.
        if path.exists() and not path.is_file():
            raise UsageError(f"cannot read {path}: it is no regular file; name one for 'nft -f'")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as failed:
        why = getattr(failed, "strerror", None) or "it is not text"
        raise UsageError(f"cannot read {path}: {why}") from failed
    command = ("nft", "-f", str(path.absolute()))
    return Variant(name=f"nft -f {path}", description="your rules", command=command, command_text=text)


def require_distinct(variants: Iterable[Variant]) -> None:
    """Check that each variant is there only once.

    Raises:
        UsageError: one is there twice.

    """
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise UsageError("each rule can be measured only once; drop the repeated one")
