"""The SNAT settings that the lab can measure: what each is called, says and draws from. Pure."""

import difflib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from snat_race.errors import UsageError

# get_unique_tuple() in nf_nat_core.c: from a port above 1023, it searches 1024 to 65535
_EVERY_PORT = 64512
_TO_PORTS = re.compile(r"^masquerade to-ports ([0-9]{1,5})-([0-9]{1,5})$")
_ADDS_CHANCE = re.compile(r"\brandom\b|\brandom-fully\b|\bfully-random\b")
_LOADERS = ("iptables", "iptables-nft", "iptables-legacy", "ip6tables", "ip6tables-nft", "ip6tables-legacy")


@dataclass(frozen=True, slots=True)
class Variant:
    """One SNAT setting.

    ``to``: "masquerade", "source" (the uplink's address), "pool" (a range of addresses) or ""
    for no translation. ``flags``: nftables' words. ``command`` loads a rule of the user's, in
    place of all that; ``text`` is what it loads.
    """

    name: str
    about: str
    to: str = "masquerade"
    flags: tuple[str, ...] = ()
    ports: tuple[int, int] | None = None
    tracked: bool = True
    command: tuple[str, ...] = ()
    text: str = ""

    @property
    def port_count(self) -> int:
        """How many ports the NAT may use for one destination."""
        return self.ports[1] - self.ports[0] + 1 if self.ports else _EVERY_PORT

    def drawn_ports(self, source_ports: tuple[int, int]) -> int | None:
        """Return how many ports the kernel draws from; None if it tries to keep the client's.

        ``source_ports``: the range of the clients' ports. get_unique_tuple() keeps a port that is
        free and in the range given, unless a random flag is set.
        """
        if _ADDS_CHANCE.search(self.text or " ".join(self.flags)):
            return self.port_count
        low, high = self.ports or (1024, 65535)
        return self.port_count if source_ports[1] < low or high < source_ports[0] else None


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("masquerade", "keeps the client's source port if it looks free: what Docker writes"),
        Variant("masquerade random", "draws the port at random; since 5.0 the same as fully-random", flags=("random",)),
        Variant("masquerade fully-random", "draws the port at random: the usual cure", flags=("fully-random",)),
        Variant("masquerade persistent", "keeps a client's address, and its port as masquerade does", flags=("persistent",)),
        Variant("masquerade to-ports 10000-19999", "draws from LOW-HIGH if the client's port is outside, else keeps it", ports=(10000, 19999)),
        Variant("snat to-source", "translates to a fixed address, keeps the port if it looks free", to="source"),
        Variant("snat to-source fully-random", "the same, with the port drawn at random", to="source", flags=("fully-random",)),
        Variant("snat to-pool", "spreads clients over addresses by hash: those that share one race", to="pool"),
        Variant("no nat", "tracks connections and translates nothing: a control, must lose nothing", to=""),
        Variant("notrack", "neither tracks nor translates: a control, must lose nothing", to="", tracked=False),
    )
}  # fmt: skip
DEFAULT = ("masquerade", "masquerade fully-random")
ALL = "all"


def chosen(
    names: Sequence[str] | None,
    rules: Sequence[str] | None = None,
    files: Sequence[Path] | None = None,
    default: Sequence[str] = DEFAULT,
) -> tuple[Variant, ...]:
    """Return the variants asked for by name, then the user's own rules, then files for nft.

    Raises:
        UsageError: a name is unknown or given twice, a rule is no command that loads one.

    """
    if not (names or rules or files):
        names = default
    wanted = [name for each in names or () for name in (VARIANTS if each == ALL else (each,))]
    made = (
        [_named(name) for name in wanted]
        + [_ruled(text) for text in rules or ()]
        + [_filed(path) for path in files or ()]
    )
    if len({each.name for each in made}) < len(made):
        raise UsageError("--variant: each rule can be measured only once; drop the repeated one")
    return tuple(made)


def _named(name: str) -> Variant:
    if name in VARIANTS:
        return VARIANTS[name]
    if shape := _TO_PORTS.match(name):
        low, high = int(shape[1]), int(shape[2])
        if not 1024 <= low <= high <= 65535:
            raise UsageError(f"--variant: {name!r}: the ports must rise and lie within 1024-65535")
        return replace(VARIANTS["masquerade to-ports 10000-19999"], name=name, ports=(low, high))
    near = difflib.get_close_matches(name, [*VARIANTS, ALL], n=2)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(VARIANTS)}"
    raise UsageError(f"--variant: unknown rule {name!r}; {hint}")


def _ruled(text: str) -> Variant:
    try:
        words = tuple(shlex.split(text))
    except ValueError as failed:
        raise UsageError(f"--rule: cannot read {text!r} ({failed}); quote it as a shell would") from failed
    if not words or words[0] not in (*_LOADERS, "nft"):
        raise UsageError(
            f"--rule: {text!r} is no command of iptables or nft; write it whole, as in "
            "--rule 'iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE'"
        )
    return Variant(text, "your rule", command=words, text=text)


def _filed(path: Path) -> Variant:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as failed:
        why = getattr(failed, "strerror", None) or "it is not text"
        raise UsageError(f"--nft: cannot read {path}: {why}") from failed
    command = ("nft", "-f", str(path.absolute()))
    return Variant(f"nft -f {path}", "your rules", command=command, text=text)
