"""What iptables-save prints: its chains, and the SNAT rules in them. Pure."""

import re
import shlex
from collections.abc import Iterator

from snat_race.kernel.snat_rules import Place, SnatRule

_COUNTED = re.compile(r"^\[(\d+):(\d+)\] ")
_INCOMPATIBLE = re.compile(r"^# Table `(\S+?)' is incompatible")
_ROOTS = ("POSTROUTING", "INPUT")  # where the kernel calls source translation
_SNAT = ("MASQUERADE", "SNAT")
_JUMPS = ("-j", "--jump", "-g", "--goto")
_PORTS = re.compile(r":(\d+)(?:-(\d+))?$")

Chains = dict[tuple[str, str], list[str]]
"""(table, chain) -> its rules, as ``-A CHAIN ...``, each perhaps after its counters."""


def chains(text: str) -> Chains:
    """Return every rule of a dump, by table and chain, in order."""
    found: Chains = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            found.setdefault((table, line[1:].split()[0]), [])
        elif _COUNTED.sub("", line).startswith("-A "):
            found.setdefault((table, _COUNTED.sub("", line).split()[1]), []).append(line)
    return found


def incompatible(text: str) -> list[str]:
    """Return the tables that iptables-save cannot print, because nft has written to them."""
    return [shape[1] for line in text.splitlines() if (shape := _INCOMPATIBLE.match(line))]


def uncounted(rule: str) -> str:
    """Return a rule without its counters."""
    return _COUNTED.sub("", rule)


def counters(rule: str) -> str:
    """Return a rule's counters as iptables-restore takes them, with a blank; "" if it has none."""
    shape = _COUNTED.match(rule)
    return shape[0] if shape else ""


def snat_rules(tool: str, text: str) -> Iterator[SnatRule]:
    """Yield the rules that translate sources; see :func:`snat_rules.judged`."""
    family = "ip6" if tool.startswith("ip6") else "ip"
    every = {chain: rules for (table, chain), rules in chains(text).items() if table == "nat"}
    reachable = _reachable(every)
    for chain, rules in every.items():
        for index, rule in enumerate(rules):
            words = shlex.split(uncounted(rule))
            found = _target(words)
            if found and found[0] in _SNAT:
                place = Place(tool, family, "nat", chain)
                yield _described(place, index, uncounted(rule), words, reachable=chain in reachable)


def _described(place: Place, index: int, text: str, words: list[str], *, reachable: bool) -> SnatRule:
    to = _value(words, "--to-source")
    ports = _PORTS.search(to) if to.count(":") == 1 or to.startswith("[") else None
    to_ports = _value(words, "--to-ports")
    low, _, high = (
        to_ports.partition("-") if to_ports else (ports[1], "", ports[2] or "") if ports else ("", "", "")
    )
    flags = {"--random": "random", "--random-fully": "fully-random", "--persistent": "persistent"}
    return SnatRule(
        place=place,
        index=index,
        text=text,
        address=to[: ports.start()] if ports else to,
        flags=frozenset(flags[word] for word in words if word in flags),
        ports=(int(low), int(high or low)) if low else None,
        protocol=_value(words, "-p"),
        source=_value(words, "-s"),
        destination=_value(words, "-d"),
        comment=_value(words, "--comment"),
        reachable=reachable,
    )


def _value(words: list[str], option: str) -> str:
    """Return what follows an option, unless it is negated; "" if it is not there."""
    skip = False
    for at, word in enumerate(words[:-1]):
        if skip:
            skip = False
        elif word == option:
            return "" if at and words[at - 1] == "!" else words[at + 1]
        elif word == "--comment":
            skip = True
    return ""


def _target(words: list[str]) -> tuple[str, bool] | None:
    """Return what a rule jumps to; None if nothing."""
    name = next((value for option in _JUMPS if (value := _value(words, option))), "")
    return (name, True) if name else None


def _reachable(every: dict[str, list[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [root for root in _ROOTS if root in every]
    while waiting:
        chain = waiting.pop()
        seen.add(chain)
        targets = (_target(shlex.split(uncounted(rule))) for rule in every[chain])
        waiting += [found[0] for found in targets if found and found[0] in every and found[0] not in seen]
    return seen
