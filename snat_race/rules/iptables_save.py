"""What iptables-save prints: its chains, the SNAT rules in them, and how iptables-restore rewrites
them. Pure.

iptables-restore knows a rule by its whole content, or by its number in the chain. A content may stand
in a chain several times, and a number is another rule's as soon as others insert one before it. So
rules are deleted by content and inserted by number, in one transaction, and then read back.
"""

import re
import shlex
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Self

from snat_race.results.findings import ChainAddress, ToolName
from snat_race.rules.exposure import SnatRule
from snat_race.rules.ruleset import ChainKey, Edit, LockNeed, RuleLine, Ruleset, edits_by_chain, reached

_COUNTS = re.compile(r"^\[\d+:\d+\] ")
_INCOMPATIBLE = re.compile(r"^# Table `(\S+?)' .*\bincompatible\b", re.MULTILINE)
_ROOTS = ("POSTROUTING", "INPUT")  # where the kernel calls source translation
_SNAT_TARGETS = ("MASQUERADE", "SNAT")
_JUMPS = ("-j", "--jump", "-g", "--goto")
_PORTS = re.compile(r":(\d+)(?:-(\d+))?$")
_FLAGS = {"--random": "random", "--random-fully": "fully-random", "--persistent": "persistent"}


class IptablesSave(Ruleset):
    """What ``iptables-save -c`` prints, or a namesake: of IPv4 or IPv6, of one back end."""

    def __init__(self, tool: ToolName, text: str) -> None:
        self._family = "ip6" if tool.startswith("ip6") else "ip"
        super().__init__(tool, text, _parsed(self._family, text))

    @staticmethod
    def print_command(tool: ToolName) -> list[str]:
        """Print counters too: they are loaded again with the rules."""
        return [f"{tool}-save", "-c"]

    @staticmethod
    def load_command(tool: ToolName, *, trial: bool, wait_s: int) -> list[str]:
        """Load a script without flushing the chains that it names."""
        test = ["--test"] if trial else []
        return [f"{tool}-restore", *test, "--noflush", "--counters", f"--wait={wait_s}"]

    @staticmethod
    def lock_need(tool: ToolName) -> LockNeed:
        """Return what the lock is to a tool; one without a back end in its name may be legacy."""
        return LockNeed.helpful if tool.endswith("-nft") else LockNeed.required

    @property
    def title(self) -> str:
        """The command that people print these rules with."""
        return f"{self.tool}-save"

    @property
    def nonempty_chains(self) -> set[ChainKey]:
        """The chains that have a rule."""
        return {key for key, lines in self._chains.items() if lines}

    @property
    def incompatible_tables(self) -> list[str]:
        """The tables that it cannot print, or not all of: nft has written to them."""
        return _INCOMPATIBLE.findall(self.text)

    @property
    def broken(self) -> list[str]:
        """The rules of table nat that are not in one line: a comment has a line break."""
        return [line.text for lines in self._nat_rules.values() for line, words in lines if not words]

    @cached_property
    def _nat_rules(self) -> dict[str, list[tuple[RuleLine, list[str]]]]:
        """The rules of table nat by chain, each with its words; none if a quote does not end."""
        return {
            chain: [(line, _words(line.text)) for line in lines]
            for (_, table, chain), lines in self._chains.items()
            if table == "nat"
        }

    @cached_property
    def snat_rules(self) -> tuple[SnatRule, ...]:
        """The rules that translate sources, in order, not judged yet."""
        reachable = self._reachable()
        rules = []
        for name, lines in self._nat_rules.items():
            chain = ChainAddress(tool=self.tool, family=self._family, table="nat", chain=name)
            for index, (line, words) in enumerate(lines):
                if _target(words) in _SNAT_TARGETS:
                    rules.append(_snat_rule(chain, index, line.text, words, reachable=name in reachable))
        return tuple(rules)

    def _reachable(self) -> set[str]:
        """Return the chains of table nat that a packet can come to."""
        return reached(_ROOTS, self._targets)

    def _targets(self, chain: str) -> list[str]:
        """Return what the rules of a chain jump or go to: other chains, and targets such as ACCEPT."""
        return [_target(words) for _, words in self._nat_rules.get(chain, [])]

    @staticmethod
    def cured(rule: str) -> str:
        """Return a SNAT rule with ``--random-fully``, where iptables-save prints it: before
        ``--persistent``, and in place of ``--random``.
        """
        body = rule.removesuffix(" --persistent")
        persistent = rule.removeprefix(body)
        return f"{body.removesuffix(' --random')} --random-fully{persistent}"

    @staticmethod
    def without_marks(line: str) -> str:
        """Return a line without the counts in front of a rule."""
        return _COUNTS.sub("", line)

    @staticmethod
    def uncounted(rule: str) -> str:
        """Return the rule as it is: iptables prints counts in front of it."""
        return rule

    @staticmethod
    def with_counts_of(rule: str, present: str) -> str:  # noqa: ARG004 - of nft
        """Return the rule as it is: its counts are in front of it, and :meth:`script` keeps them."""
        return rule

    def script(self, edits: Sequence[Edit]) -> str:
        """Return what iptables-restore is to load: a transaction per table."""
        by_table: dict[str, list[str]] = {}
        for chain, edits_here in edits_by_chain(edits).items():
            by_table.setdefault(chain.table, []).extend(self._commands(chain, edits_here))
        return _transactions(by_table)

    def _commands(self, chain: ChainAddress, edits: dict[int, Edit]) -> list[str]:
        """Delete by content, then insert at the final indexes, the lowest first, with counters.

        ``-D`` deletes the first rule of a content, which need not be the one that is meant. So all
        rules of that content are deleted, and those that stay are inserted again.
        """
        old_contents = {edit.old for edit in edits.values()}
        moved = {
            index: line for index, line in enumerate(self.rules_of(chain)) if line.text in old_contents
        }
        commands = [_delete(chain, line.text) for line in moved.values()]
        for index, line in moved.items():
            new = edits[index].new if index in edits else line.text
            commands.append(_insert(chain, index, line.counts, new))
        return commands

    def settled(self, edits: Sequence[Edit], after: Self) -> list[Edit] | None:
        """Return the edits if each chain reads exactly as it was meant to.

        iptables prints a rule as it was told, but gives it no handle. So a rule of another program
        anywhere in the chain makes it impossible to tell ours from one that reads like it.
        """
        settled: list[Edit] = []
        for chain, edits_here in edits_by_chain(edits).items():
            meant = [
                edits_here[index].new if index in edits_here else line.text
                for index, line in enumerate(self.rules_of(chain))
            ]
            if meant != [line.text for line in after.rules_of(chain)]:
                return None
            settled += edits_here.values()
        return settled

    def unmade(self, edits: Sequence[Edit], after: Self) -> str:
        """Return what iptables-restore is to load to put each old rule right behind the rule that was
        before it, wherever that is now; with the counters that the old rule had.
        """
        by_table: dict[str, list[str]] = {}
        for chain, edits_here in edits_by_chain(edits).items():
            old_lines = self.rules_of(chain)
            old = [line.text for line in old_lines]
            now = [line.text for line in after.rules_of(chain)]
            commands = by_table.setdefault(chain.table, [])
            for edit in edits_here.values():
                if edit.new in now:
                    now.remove(edit.new)
                    commands.append(_delete(chain, edit.new))
            for edit in sorted(edits_here.values(), key=lambda edit: edit.index):
                earlier = [index for index, rule in enumerate(now) if rule in old[: edit.index]]
                index = max(earlier, default=-1) + 1
                now.insert(index, edit.old)
                commands.append(_insert(chain, index, old_lines[edit.index].counts, edit.old))
        return _transactions(by_table)


def _parsed(family: str, text: str) -> dict[ChainKey, list[RuleLine]]:
    """Return every rule of what iptables-save prints, by chain, in order."""
    chains: dict[ChainKey, list[RuleLine]] = {}
    table = ""
    for number, line in enumerate(text.split("\n")):
        rule = _COUNTS.sub("", line)
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            chains.setdefault((family, table, line[1:].split()[0]), [])
        elif rule.startswith("-A "):
            chain = chains.setdefault((family, table, rule.split()[1]), [])
            counts = line.removesuffix(rule)
            chain.append(RuleLine(number=number, text=rule, uncounted=rule, counts=counts))
    return chains


def _words(rule: str) -> list[str]:
    """Return the words of a rule; none if a quote does not end in its line."""
    try:
        return shlex.split(rule)
    except ValueError:
        return []


def _snat_rule(
    chain: ChainAddress, index: int, text: str, words: list[str], *, reachable: bool
) -> SnatRule:
    jump = _jump(words)
    matches = words[:jump]
    target = words[jump:]
    address, ports = _translation(target)
    return SnatRule(
        chain=chain,
        index=index,
        text=text,
        to_address=address,
        flags=frozenset(_FLAGS[word] for word in target if word in _FLAGS),
        ports=ports,
        protocol=_value(matches, "-p"),
        source_network=_value(matches, "-s"),
        destination_network=_value(matches, "-d"),
        comment=_value(matches, "--comment"),
        reachable=reachable,
    )


def _translation(target: list[str]) -> tuple[str, tuple[int, int] | None]:
    """Return the address, "" for any, and the ports, None for any, that a target gives.

    ``--to-source 10.0.0.1:1024-2000``, ``--to-source [fd00::1]:1024`` or ``--to-ports 1024-2000``.
    """
    to_source = _value(target, "--to-source")
    if to_ports := _value(target, "--to-ports"):
        low, _, high = to_ports.partition("-")
        return to_source, (int(low), int(high or low))
    # In an IPv6 address without brackets, the last colon does not begin a port.
    may_have_port = to_source.count(":") == 1 or to_source.startswith("[")
    shape = _PORTS.search(to_source) if may_have_port else None
    if not shape:
        return to_source, None
    return to_source[: shape.start()], (int(shape[1]), int(shape[2] or shape[1]))


def _value(words: list[str], option: str) -> str:
    """Return what follows an option, unless it is negated; "" if it is not there.

    A comment may read like an option, so what follows ``--comment`` is passed over.
    """
    position = 0
    while position < len(words) - 1:
        if words[position] == option:
            negated = position > 0 and words[position - 1] == "!"
            return "" if negated else words[position + 1]
        position += 2 if words[position] == "--comment" else 1
    return ""


def _target(words: list[str]) -> str:
    """Return what a rule jumps or goes to, "" if nothing."""
    jump = _jump(words)
    return words[jump + 1] if jump < len(words) else ""


def _jump(words: list[str]) -> int:
    """Return where the jump is; behind the end if nowhere.

    It is the last such option, because the matches before it may look for any string.
    """
    jumps = [
        position
        for position, (word, following) in enumerate(pairwise(words))
        if word in _JUMPS and not following.startswith("-")
    ]
    return jumps[-1] if jumps else len(words)


def _delete(chain: ChainAddress, rule: str) -> str:
    """Return the command that deletes the first rule of this content."""
    return f"-D {chain.chain}{_body(chain, rule)}\n"


def _insert(chain: ChainAddress, index: int, counts: str, rule: str) -> str:
    """Return the command that inserts a rule at an index, counted from 0, with its counts."""
    return f"{counts}-I {chain.chain} {index + 1}{_body(chain, rule)}\n"


def _body(chain: ChainAddress, rule: str) -> str:
    return rule.removeprefix(f"-A {chain.chain}")


def _transactions(by_table: dict[str, list[str]]) -> str:
    return "".join(f"*{table}\n{''.join(commands)}COMMIT\n" for table, commands in by_table.items())
