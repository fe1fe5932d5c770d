"""What iptables-save prints: its chains, and the SNAT rules in them. Pure."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise

from snat_race.rules.exposure import Place, SnatRule
from snat_race.rules.listing import Chains, Line

_COUNTED = re.compile(r"^\[\d+:\d+\] ")
_INCOMPATIBLE = re.compile(r"^# Table `(\S+?)' .*\bincompatible\b")
_ROOTS = ("POSTROUTING", "INPUT")  # where the kernel calls source translation
_SNAT = ("MASQUERADE", "SNAT")
_JUMPS = ("-j", "--jump", "-g", "--goto")
_PORTS = re.compile(r":(\d+)(?:-(\d+))?$")


def chains(tool: str, text: str) -> Chains:
    """Return every rule of what iptables-save prints, by chain, in order."""
    found: Chains = {}
    family, table = "ip6" if tool.startswith("ip6") else "ip", ""
    for number, line in enumerate(text.split("\n")):
        rule = _COUNTED.sub("", line)
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            found.setdefault((family, table, line[1:].split()[0]), [])
        elif rule.startswith("-A "):
            counts = line.removesuffix(rule)
            chain = found.setdefault((family, table, rule.split()[1]), [])
            chain.append(Line(number, rule, rule, counts))
    return found


def incompatible(text: str) -> list[str]:
    """Return the tables that iptables-save cannot print, or not all of: nft has written to them."""
    return [shape[1] for line in text.split("\n") if (shape := _INCOMPATIBLE.match(line))]


def uncounted(rule: str) -> str:
    """Return a rule without its counters."""
    return _COUNTED.sub("", rule)


def broken(tool: str, text: str) -> list[str]:
    """Return the rules of table nat that are not in one line: a comment has a line break."""
    every = (lines for chain, lines in chains(tool, text).items() if chain[1] == "nat")
    return [line.text for lines in every for line in lines if not _words(line)]


def snat_rules(tool: str, text: str) -> Iterator[SnatRule]:
    """Yield the rules that translate sources; see :func:`snat_rules.judged`."""
    every = {chain: lines for chain, lines in chains(tool, text).items() if chain[1] == "nat"}
    reachable = _reachable({chain[2]: lines for chain, lines in every.items()})
    for chain, lines in every.items():
        for index, line in enumerate(lines):
            words = _words(line)
            if _target(words) in _SNAT:
                place = Place(tool, *chain)
                yield _described(place, index, line.text, words, reachable=chain[2] in reachable)


def _described(place: Place, index: int, text: str, words: list[str], *, reachable: bool) -> SnatRule:
    at = _jump(words)
    words, does = words[:at], words[at:]
    to = _value(does, "--to-source")
    ports = _PORTS.search(to) if to.count(":") == 1 or to.startswith("[") else None
    to_ports = _value(does, "--to-ports")
    low, _, high = (
        to_ports.partition("-") if to_ports else (ports[1], "", ports[2] or "") if ports else ("", "", "")
    )
    flags = {"--random": "random", "--random-fully": "fully-random", "--persistent": "persistent"}
    return SnatRule(
        place=place,
        index=index,
        text=text,
        address=to[: ports.start()] if ports else to,
        flags=frozenset(flags[word] for word in does if word in flags),
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


def _words(line: Line) -> list[str]:
    try:
        return shlex.split(line.text)
    except ValueError:  # a quote that does not end in this line
        return []


def _target(words: list[str]) -> str:
    """Return what a rule jumps or goes to, "" if nothing: the last such option, for the matches
    before may look for any string.
    """
    at = _jump(words)
    return words[at + 1] if at < len(words) else ""


def _jump(words: list[str]) -> int:
    """Return where the jump is; behind the end if nowhere."""
    found = [n for n, (a, b) in enumerate(pairwise(words)) if a in _JUMPS and not b.startswith("-")]
    return found[-1] if found else len(words)


def _reachable(every: dict[str, list[Line]]) -> set[str]:
    seen: set[str] = set()
    waiting = [root for root in _ROOTS if root in every]
    while waiting:
        chain = waiting.pop()
        if chain not in seen:
            seen.add(chain)
            targets = (_target(_words(line)) for line in every[chain])
            waiting += [target for target in targets if target in every]
    return seen
