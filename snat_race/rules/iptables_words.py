"""The words of iptables' rules: a rule of table nat, and the flags that a rule ends with. Pure."""

import re
from collections.abc import Container
from functools import cached_property

from snat_race.rules.exposure import RANDOM
from snat_race.rules.ipsets import Sets
from snat_race.rules.iptables_matches import traffic_of
from snat_race.rules.paths import Step
from snat_race.rules.ruleset import RuleLine
from snat_race.rules.traffic import Traffic

SNAT_TARGETS = ("MASQUERADE", "SNAT")
ALTERS = ("MARK", "CONNMARK", "SET", "DSCP", "TOS", "TTL", "HL")  # what later rules may ask for
FLAGS = {" --random": "random", " --random-fully": "fully-random", " --persistent": "persistent"}
_ENDS = ("ACCEPT", "DROP", "RETURN", "NETMAP")  # behind these, a packet sees no later rule of the chain
_JUMPS = ("-j", "--jump", "-g", "--goto")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|[^ "]+', re.DOTALL)
_UNCERTAIN = re.compile(r'"| (?:-g|--goto|--jump) ')  # whether the last " -j " is the jump
_LAST_FLAGS = re.compile(r"(?: --random| --random-fully| --persistent)*$")


class NatRule:
    """One rule of table nat.

    Attributes:
        line: as iptables prints it.
        target: what it jumps or goes to; "" if nothing, or if it is not in one line.

    """

    def __init__(self, line: RuleLine) -> None:
        self.line = line
        target = "" if "\n" in line.text else _last_target(line.text)
        self.target = self._target_of_words() if target is None else target

    @cached_property
    def words(self) -> list[str]:
        """Its words; none, if it is not in one line."""
        return [] if "\n" in self.line.text else words_of(self.line.text)

    @cached_property
    def jump(self) -> int:
        """Where its jump is among them; behind the end if there is none."""
        return _jump(self.words)

    @property
    def matches(self) -> list[str]:
        """The words from its chain on to its jump."""
        return self.words[1 : self.jump]

    @property
    def flags(self) -> frozenset[str]:
        """The flags of its target."""
        return frozenset(FLAGS[f" {word}"] for word in self.words[self.jump :] if f" {word}" in FLAGS)

    def _target_of_words(self) -> str:
        return self.words[self.jump + 1] if self.jump < len(self.words) else ""


def step(
    rule: NatRule,
    family: Traffic,
    sets: Sets,
    leading: Container[str],
    altering: Container[str],
) -> Step[str]:
    """Return a rule as far as the way of packets to the chains ``leading`` is concerned; ``altering``: the
    chains in which packets may be altered.
    """
    translates = rule.target in SNAT_TARGETS
    goes = rule.words[rule.jump : rule.jump + 1] in (["-g"], ["--goto"])
    leads_on = rule.target in leading and not translates
    settled = rule.target in _ENDS or goes or bool(translates and RANDOM & rule.flags)
    alters = rule.target in ALTERS or rule.target in altering
    if not (translates or leads_on or settled):
        return Step((), alters=alters)
    traffic = traffic_of(rule.matches, family, sets)
    return Step(
        traffic,
        ends=settled or translates,
        settled=settled,
        jumps=((traffic, rule.target),) if leads_on else (),
        wanted=translates,
        alters=alters,
    )


def without_flags(rule: str) -> str:
    """Return a rule without the flags that it ends with."""
    return _LAST_FLAGS.sub("", rule, count=1)


def words_of(rule: str) -> list[str]:
    """Return the words of a rule as iptables-restore parts them (add_param_to_argv() in iptables'
    iptables/xshared.c).
    """
    return [
        shape[0] if shape[1] is None else _ESCAPED.sub(r"\1", shape[1]) for shape in _WORD.finditer(rule)
    ]


def _last_target(rule: str) -> str | None:
    """Return what a rule jumps to, if its end says so without its other words; None if these have to tell.

    What no quote follows is not quoted. So nearly all of kube-proxy's rules need not be parted.
    """
    _, jump, end = rule.rpartition(" -j ")
    target = end.partition(" ")[0]
    is_plain = jump and target and not target.startswith("-") and _UNCERTAIN.search(end) is None
    return target if is_plain else None


def _jump(words: list[str]) -> int:
    """Return where the jump is; behind the end if nowhere.

    It is the last such option, because the matches before it may look for any string.
    """
    for at in range(len(words) - 2, -1, -1):
        if words[at] in _JUMPS and not words[at + 1].startswith("-"):
            return at
    return len(words)
