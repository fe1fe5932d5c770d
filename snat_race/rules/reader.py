"""Reads the rules that a namespace has, with the tools that are here."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from snat_race.errors import EnvironmentLacks
from snat_race.kernel import host, tools
from snat_race.kernel.netns import Namespace
from snat_race.kernel.tools import printable
from snat_race.rules import iptables_save, nft_list
from snat_race.rules.exposure import Facts, SnatRule, judged
from snat_race.rules.listing import Chain

_BASES = ("iptables", "ip6tables")
_DEFAULT_PORTS = 32768, 60999  # net.ipv4.ip_local_port_range of a new namespace
_NOT_UTF_8 = "its comment is no UTF-8, so it would not come back as it is; change it by hand"
_NOT_ONE_LINE = "not in one line, has its comment a line break, or did it change just now? "
_LEGACY_TABLES = {"iptables": "ip_tables_names", "ip6tables": "ip6_tables_names"}


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What one tool prints: ``text`` with counters (for nft, with handles) and its SNAT rules.

    ``why_not``: what went wrong, if it could not be read.
    """

    tool: str
    text: str = ""
    rules: tuple[SnatRule, ...] = ()
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Rulesets:
    """All of a namespace. ``unreadable``: what could not be looked into, and the way out."""

    sets: tuple[Ruleset, ...]
    unreadable: tuple[str, ...] = field(default=())

    @property
    def rules(self) -> list[SnatRule]:
        """Every SNAT rule, exposed or not."""
        return [rule for each in self.sets for rule in each.rules]

    @property
    def exposed(self) -> list[SnatRule]:
        """Those that are exposed."""
        return [rule for rule in self.rules if not rule.harmless]


def read(namespace: Namespace) -> Rulesets:
    """Read whatever rules there are, and judge them for this kernel and its clients' ports."""
    with namespace.entered():
        facts = Facts(host.kernel_version() >= (5, 0), _client_ports())
    sets = [_xtables(namespace, tool) for tool in _xtables_tools()]
    if tools.where("nft"):
        sets.append(_nft(namespace, {chain for each in sets for chain in _chains(namespace, each)}))
    # Two clients may come by rules of different tools.
    verdicts = iter(judged((rule for each in sets for rule in each.rules), facts))
    sets = [replace(each, rules=tuple(map(_printable, islice(verdicts, len(each.rules))))) for each in sets]
    unreadable = [f"{each.tool}: {each.why_not}" for each in sets if each.why_not]
    if not sets:
        unreadable.append("no tool that reads rules: 'sudo apt-get install nftables iptables'")
    return Rulesets(tuple(sets), tuple(unreadable + list(_unseen(namespace, sets))))


def _printable(rule: SnatRule) -> SnatRule:
    """Mark what would not come back as it was: bytes that are no UTF-8, in a comment say."""
    text = printable(rule.text)
    return rule if text == rule.text else replace(rule, text=text, fixed=rule.fixed or _NOT_UTF_8)


def _client_ports() -> tuple[int, int]:
    """Return from where clients dial, the containers among them: theirs is the kernel's default."""
    low, high = host.local_port_range()
    return min(low, _DEFAULT_PORTS[0]), max(high, _DEFAULT_PORTS[1])


def reread(namespace: Namespace, tool: str) -> str:
    """Return what a tool prints now.

    Raises:
        EnvironmentLacks: it is not here, or fails.

    """
    command = _printing(tool)
    if not tools.where(command[0]):
        raise EnvironmentLacks(f"there is no {command[0]} here to read the rules back with")
    done = _printed(namespace, command)
    if done.returncode:
        raise EnvironmentLacks(f"{command[0]}: {tools.said(done)}")
    return done.stdout


def _printing(tool: str) -> list[str]:
    return ["nft", "-a", "list", "ruleset"] if tool == "nft" else [f"{tool}-save", "-c"]


def _xtables_tools() -> list[str]:
    """Return the back ends that are here; on old hosts there is but one, without a suffix."""
    found = []
    for base in _BASES:
        backends = [f"{base}-{kind}" for kind in ("nft", "legacy") if tools.where(f"{base}-{kind}-save")]
        found += backends or ([base] if tools.where(f"{base}-save") else [])
    return found


def _legacy(namespace: Namespace, tool: str) -> bool:
    """Whether a tool is of the legacy back end, as all were before 1.8, when --version told nothing."""
    if tool.endswith(("-legacy", "-nft")):
        return tool.endswith("-legacy")
    return "nf_tables" not in _printed(namespace, [tool, "--version"]).stdout


def _xtables(namespace: Namespace, tool: str) -> Ruleset:
    done = _printed(namespace, _printing(tool))
    if done.returncode:
        return Ruleset(tool, why_not=tools.said(done))
    broken = printable("; ".join(iptables_save.broken(tool, done.stdout)))
    return Ruleset(
        tool,
        done.stdout,
        tuple(iptables_save.snat_rules(tool, done.stdout)),
        broken and _NOT_ONE_LINE + broken,
    )


def _nft(namespace: Namespace, iptables_owns: set[Chain]) -> Ruleset:
    """Read nft's own tables; those of iptables-nft are read, and mended, with that."""
    listed = _printed(namespace, _printing("nft"))
    as_json = _printed(namespace, ["nft", "-j", "list", "ruleset"])
    if listed.returncode or as_json.returncode:
        return Ruleset("nft", why_not=tools.said(listed if listed.returncode else as_json))
    rules, lost = nft_list.snat_rules(listed.stdout, as_json.stdout)
    own = tuple(rule for rule in rules if rule.place.key not in iptables_owns)
    unread = nft_list.written_by_iptables(as_json.stdout) - iptables_owns
    why_not = [_NOT_ONE_LINE + ", ".join(lost)] if lost else []
    if unread:
        names = ", ".join(" ".join(each) for each in sorted(unread))
        why_not.append(f"chain {names}: holds rules of iptables that no iptables here can print")
    return Ruleset("nft", listed.stdout, own, "; ".join(why_not))


def _chains(namespace: Namespace, ruleset: Ruleset) -> set[Chain]:
    """Return the chains of nft that iptables-nft has printed; nft's own in its tables it has not."""
    if _legacy(namespace, ruleset.tool):
        return set()
    return {chain for chain, lines in iptables_save.chains(ruleset.tool, ruleset.text).items() if lines}


def _unseen(namespace: Namespace, sets: list[Ruleset]) -> Iterator[str]:
    """Yield what is loaded that no tool here has read."""
    xtables_sets = [each for each in sets if each.tool != "nft"]
    legacy = {each.tool for each in xtables_sets if _legacy(namespace, each.tool)}
    for base, names in _LEGACY_TABLES.items():
        with namespace.entered():
            try:
                loaded = Path("/proc/thread-self/net", names).read_text().split()
            except OSError:
                continue
        if loaded and not legacy & {base, f"{base}-legacy"}:
            yield f"tables of legacy {base} are loaded ({', '.join(loaded)}): install {base}-legacy"
    for each in xtables_sets:
        if "nat" in iptables_save.incompatible(each.text) and not tools.where("nft"):
            yield f"{each.tool} calls table nat incompatible: 'sudo apt-get install nftables', to read it"


def _printed(namespace: Namespace, command: list[str]) -> tools.Finished:
    try:
        return tools.run(namespace, command)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"did not end within {tools.SLOWEST_S:.0f} s")
