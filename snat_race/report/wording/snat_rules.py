"""What ``doctor`` and ``mitigate`` say of a SNAT rule, and of rules that could not be looked into."""

from collections.abc import Callable, Sequence

from snat_race.report.wording.owners import PUNCHING_HOLES, is_of_router, setting
from snat_race.report.wording.program import Program
from snat_race.results.findings import (
    ExaminedRule,
    NotExposed,
    Unchangeable,
    Unreadable,
    UnreadableReason,
)

_NOT_EXPOSED: dict[NotExposed, Callable[[ExaminedRule], str]] = {
    NotExposed.random_ports: lambda _: "draws ports at random",
    NotExposed.address_per_client: lambda _: "gives each client an address of its own",
    NotExposed.unreachable_chain: lambda _: "nothing leads to its chain",
    NotExposed.no_ports: lambda _: "its protocol has no ports that a NAT could change",
    NotExposed.client_reaches_itself: lambda _: "a client that reaches itself",
    NotExposed.single_client: lambda _: "a single client",
    NotExposed.tuples_apart: lambda _: (
        "no two clients can be given the same address and port for one destination"
    ),
    NotExposed.single_port: lambda rule: (
        f"has port {_low(rule.ports)} only, so nothing to draw from"
        if rule.ports
        else "gives each packet a single port, so nothing is kept and there is nothing to draw from"
    ),
    NotExposed.ports_apart: lambda rule: (
        f"draws from {_range(rule.ports)}, apart from the clients' ports {_range(rule.client_ports)}"
        if rule.ports
        else "keeps no client's port, as none is among those that it gives"
    ),
    NotExposed.behind_another: lambda _: "gets no packets, because rules before it take them all",
    NotExposed.loop_back_set: lambda _: (
        "a client that reaches itself, by the name of kube-proxy's set; its members say nothing else"
    ),
    NotExposed.tcp_draws_ports: lambda _: (
        "its TCP goes through a rule before it, which draws ports; other protocols keep theirs here, so a "
        "packet of UDP can still be lost"
    ),
}
_UNCHANGEABLE = {
    Unchangeable.table_has_owner: "only the program that owns its table can change it",
    Unchangeable.comment_not_utf8: "its comment is no UTF-8, so it would not come back as it is; change "
    "it by hand",
    Unchangeable.ruleset_not_understood: "not every line that its tool prints is one rule, so none is "
    "certain",
    Unchangeable.text_is_ambiguous: "a name, a comment or a prefix in it has a character that nft cannot "
    "quote, so its text may say something else; change it where it comes from",
    Unchangeable.in_anonymous_chain: "it is in an anonymous chain, 'jump { ... }', whose rules the kernel "
    "lets nobody change; load the rule that jumps there again, with fully-random inside",
    Unchangeable.not_for_tcp_alone: "its form allows no rule for TCP alone: change it for all protocols, "
    "without --tcp-only",
    Unchangeable.iptables_does_not_print: "only iptables can change it as it is, and none here prints it "
    "whole",
}
_UNREADABLE = {
    UnreadableReason.no_tool: "no tool that reads rules is here: 'sudo apt-get install nftables iptables'",
    UnreadableReason.tool_failed: "{tool}: {details}",
    UnreadableReason.not_one_line: "{tool}: a rule is not in one line, because its comment has a line "
    "break or it changed just now: {details}",
    UnreadableReason.not_understood: "{tool}: these rules say what this version does not know, and may "
    "translate sources: {details}",
    UnreadableReason.no_iptables: "{tool}: chain {details}: holds rules of iptables that no iptables here "
    "can print",
    UnreadableReason.nft_among_iptables: "iptables prints nothing of this table, because nft has written "
    "to it: {details}. What it would print is judged by what {tool} lists. Take these rules out with "
    "'nft delete rule', and load them in a table of another name",
    UnreadableReason.no_legacy_iptables: "tables of legacy {tool} are loaded ({details}): install "
    "{tool}-legacy",
    UnreadableReason.no_nft: "{tool} calls table nat incompatible: 'sudo apt-get install nftables', to "
    "read it",
    UnreadableReason.no_result: "doctor left no result there, its file is empty",
}


def _range(ports: tuple[int, int] | None) -> str:
    return f"{ports[0]}-{ports[1]}" if ports else "any"


def _low(ports: tuple[int, int] | None) -> str:
    return str(ports[0]) if ports else "any"


def of_unread_sets(names: str, said: str) -> str:
    """Say that the ipsets that exposed rules ask for could not be read, and what that means."""
    return f"{names}: cannot be read ({said}); a rule that asks for one is judged as if all may be in it"


def why_not_exposed(rule: ExaminedRule) -> str:
    """Say why a rule is not exposed."""
    if rule.not_exposed is None:
        raise ValueError(rule)
    return _NOT_EXPOSED[rule.not_exposed](rule)


def why_unchangeable(reason: Unchangeable) -> str:
    """Say why a rule is left as it is."""
    return _UNCHANGEABLE[reason]


def why_unreadable(unreadable: Unreadable) -> str:
    """Say what could not be looked into, why, and what would help."""
    sentence = _UNREADABLE[unreadable.reason]
    return sentence.format(tool=unreadable.tool, details=", ".join(unreadable.details))


def unchanged(rule: ExaminedRule) -> str:
    """Say which rule is left as it is, and why."""
    if rule.unchangeable is None:
        raise ValueError(rule)
    return f"{rule.address}: {rule.text}: {why_unchangeable(rule.unchangeable)}"


def evidence(rule: ExaminedRule) -> str:
    """Say what a rule does, and whether that can lose anything."""
    if rule.not_exposed:
        return f"{rule.text}: {why_not_exposed(rule)}"
    racing = "its SYNs" if rule.gets_tcp else "no TCP comes to it, but its packets of UDP"
    return f"{rule.text} (by {rule.owner}) keeps the clients' ports: {racing} can race"


def advice(rule: ExaminedRule, namespace_option: Sequence[str], program: Program) -> str:
    """Say what to do about a rule; "": nothing. ``namespace_option``: what names its namespace."""
    if rule.not_exposed:
        return ""
    if rule.unchangeable:
        return f"{why_unchangeable(rule.unchangeable)}: {setting(rule.owner)}"
    routes = rule.gets_tcp and is_of_router(rule.owner)
    command = program.mitigation(*namespace_option, *(["--tcp-only"] if routes else []))
    kept = f" (UDP keeps its ports, for {PUNCHING_HOLES})" if routes else ""
    return f"{command}{kept}; for good: {setting(rule.owner)}"
