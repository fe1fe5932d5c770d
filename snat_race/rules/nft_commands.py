"""What nft is asked for, in text and in JSON: all its rules, or those of some chains. Pure.

In nft 1.0.6, a table's flags in JSON are whatever its memory holds by then: another string, or nothing that
can be written, where the JSON ends. So flags are taken from the text, and where JSON ends early, it is
asked for in pieces that have no flags.
"""

import re
from collections.abc import Iterable

from snat_race.errors import EnvironmentLacks
from snat_race.results.findings import ToolName
from snat_race.rules.nft_text import table_flags
from snat_race.rules.ruleset import ChainKey

# What nft takes for a name, and for nothing else: to old versions, '-f/file' behind a command is an option.
NAME = re.compile(r"(?!-)[\w./\\-]+", re.ASCII)
_ANONYMOUS = "__chain"  # 'jump { ... }' makes one


def of_text(tool: ToolName, only: Iterable[ChainKey] | None = None) -> list[list[str]]:
    """Return what prints all chains, or only these: with handles, because a rule is rewritten by its
    handle.
    """
    if only is None:
        return [[tool, "-a", "list", "ruleset"]]
    return [[tool, "-a", "list", "chain", *key] for key in only]


def of_json(tool: ToolName, only: Iterable[ChainKey] | None = None) -> list[list[str]]:
    """Return what prints the same as JSON, which says what the rules mean, and what sets and maps hold."""
    commands = [[name, "-j", *what] for name, _, *what in of_text(tool, only)]
    return [*_sets_and_maps(tool), *commands] if only else commands


def of_json_without_flags(tool: ToolName, text: str, chains: Iterable[ChainKey]) -> list[list[str]]:
    """Return what prints these chains, which are all of the text, in pieces, none of which holds a table's
    flags; none if no table has any.

    Raises:
        EnvironmentLacks: a table or a chain has a name that nft would take for something else.

    """
    flagged = table_flags(text)
    if not flagged:
        return []
    commands = _sets_and_maps(tool)
    for family, table, chain in chains:
        names = (family, table, chain) if (family, table) in flagged else (family, table)
        if not all(map(NAME.fullmatch, names)):
            raise EnvironmentLacks(f"the name of table {table} or of chain {chain} is no name to nft")
        command = [tool, "-j", "list", "chain" if len(names) == 3 else "table", *names]
        if command not in commands:
            commands.append(command)
    return commands


def _sets_and_maps(tool: ToolName) -> list[list[str]]:
    return [[tool, "-j", "list", kind] for kind in ("sets", "maps")]


def may_name(chain: ChainKey) -> bool:
    """Whether nft can be asked for a chain by its name: not for one that only the kernel has named, say."""
    return all(map(NAME.fullmatch, chain)) and not chain[2].startswith(_ANONYMOUS)
