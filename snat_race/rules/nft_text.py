"""The text of ``nft -a list ruleset``, by lines: chains, rules with their handles, tables' flags. Pure."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from snat_race.rules.ruleset import ChainKey, RuleLine

_TABLE = re.compile(r"^table (\S+) (\S+) \{")
_CHAIN = re.compile(r"^\tchain (\S+) \{")
_RULE = re.compile(r"^\t\t(.+) # handle ([0-9]{1,20})$")
_OPENS = (" jump {", " goto {", "\tjump {", "\tgoto {")  # an anonymous chain
_CLOSES = re.compile(r"\t\t+\}")
# What counts, and its count. What is quoted, a comment say, is left alone.
_COUNTED = re.compile(
    r'"[^"]*"|\b(counter)( packets \d+ bytes \d+)|\b(quota (?:over |until )?\d+ \w+)( used \d+ \w+)?'
    r"|\b(last)( used \S+)"
)
_SET_OF_ONE = re.compile(r'"[^"]*"|\{ ([^\s{}",]+) \}')
_HANDLE = re.compile(r" # handle \d+$")
_FLAGS = re.compile(r"^\tflags (\S+)$")
_RULES_AT_ONCE = 1 << 16  # whose words are kept: each is read before a change, for a trial and after it


@lru_cache(maxsize=_RULES_AT_ONCE)
def uncounted(rule: str) -> str:
    """Return a rule without what its counters have counted, as nft prints it when loaded again."""
    bare = _COUNTED.sub(lambda shape: "".join(filter(None, shape.groups()[::2])) or shape[0], rule)
    # A set of one is printed as a set until it is loaded again; then as its only element.
    return _SET_OF_ONE.sub(lambda shape: shape[1] or shape[0], bare)


def without_handle(line: str) -> str:
    """Return a line without the handle behind it."""
    return _HANDLE.sub("", line)


def chains(text: str) -> dict[ChainKey, list[RuleLine]]:
    """Return every rule of ``nft -a list ruleset``, by chain, in order; one with an anonymous chain is put
    in one line.
    """
    lines_by_chain: dict[ChainKey, list[RuleLine]] = {}
    family = table = chain = ""
    opened: list[str] = []  # the lines of a rule whose anonymous chain is not closed yet
    depth = 0
    for number, line in enumerate(text.split("\n")):
        if chain and line.startswith("\t\t") and (depth or line.endswith(_OPENS)):
            opened.append(line)
            depth += line.endswith(_OPENS) - bool(depth and _CLOSES.match(line))
            if not depth:
                first = number - len(opened) + 1
                lines_by_chain[family, table, chain] += _rule(first, _in_one_line(opened))
                opened = []
        elif shape := _TABLE.match(line):
            family, table, chain = shape[1], shape[2], ""
            opened, depth = [], 0
        elif shape := _CHAIN.match(line):
            chain = shape[1]
            lines_by_chain.setdefault((family, table, chain), [])
            opened, depth = [], 0
        elif line == "\t}":
            chain = ""
        elif chain:
            lines_by_chain[family, table, chain] += _rule(number, line)
    return lines_by_chain


def _rule(number: int, line: str) -> Iterator[RuleLine]:
    """Yield the rule that a line is, if it is one."""
    if shape := _RULE.match(line):
        rule = shape[1]
        yield RuleLine(number=number, text=rule, uncounted=uncounted(rule), handle=int(shape[2]))


def _in_one_line(lines: Sequence[str]) -> str:
    """Return a rule with its anonymous chain as one line that nft would read."""
    first, *inside, last = lines
    rules = [without_handle(line).strip() for line in inside]
    return f"{first} {'; '.join(rules)} {last.strip()}".replace("{; ", "{ ").replace("; }", " }")


def table_flags(text: str) -> dict[tuple[str, str], set[str]]:
    """Return the flags of each table, by family and name: ``dormant``, ``owner``."""
    flags: dict[tuple[str, str], set[str]] = {}
    table = ("", "")
    for line in text.split("\n"):
        if shape := _TABLE.match(line):
            table = shape[1], shape[2]
        elif shape := _FLAGS.match(line):
            flags[table] = set(shape[1].split(","))
    return flags
