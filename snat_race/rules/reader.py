"""Reads the rules that a namespace has, with the tools that are here."""

import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from snat_race.errors import EnvironmentLacks
from snat_race.kernel import host, links, nftables, tools
from snat_race.kernel.netns import Namespace
from snat_race.kernel.nftables import GenerationPassed
from snat_race.kernel.tools import printable
from snat_race.results import kernels
from snat_race.results.findings import (
    ExaminedRule,
    ToolName,
    Unchangeable,
    Unreadable,
    UnreadableReason,
)
from snat_race.rules import ipsets, nft_commands
from snat_race.rules.dns_servers import dns_servers
from snat_race.rules.exposure import HostTraits, SnatRule, judged
from snat_race.rules.iptables_save import IptablesSave
from snat_race.rules.kernel_list import KernelList, Unclear, by_chain
from snat_race.rules.nft_list import NftList
from snat_race.rules.owners import Owners
from snat_race.rules.ruleset import ChainKey, Ruleset
from snat_race.rules.traffic import Intervals, addresses, join

_BASES = ("iptables", "ip6tables")
_NFT: ToolName = "nft"
_STRATEGIES: dict[ToolName, type[IptablesSave] | type[NftList]] = {_NFT: NftList}  # others: IptablesSave
_READINGS = 3
_DEFAULT_PORTS = 32768, 60999  # net.ipv4.ip_local_port_range of a new namespace
_ANY_PORT = 1, 65535
_LEGACY_TABLES = {"iptables": "ip_tables_names", "ip6tables": "ip6_tables_names"}
_FEW_RULES = 1000  # nft prints and we parse them in 0.1 s
_FEW_CHAINS = 16  # each is printed by an nft of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRules:
    """All SNAT rules of a namespace, as far as they could be read."""

    rulesets: tuple[Ruleset, ...]  # one per tool that could print its rules
    snat_rules: tuple[SnatRule, ...]  # of all tools, judged
    unreadable: tuple[Unreadable, ...]  # what could not be looked into
    traits: HostTraits  # that the rules were judged by
    owners: Owners  # who tells which program wrote a rule
    dns_clashes: bool  # whether this kernel may lose one of two queries of a socket
    ipsets_failure: str = ""  # why no ipset could be read that rules ask for; "": nothing was in the way
    generation: int | None = None  # of nftables while they were read; None if it changed, or is not known

    @property
    def exposed(self) -> list[SnatRule]:
        """The rules whose clients can lose SYNs to the race."""
        return [rule for rule in self.snat_rules if rule.exposed]

    @property
    def dns_servers(self) -> int:
        """To how many hosts DNAT may send the queries of one socket to UDP port 53; 0: it does not, or this
        kernel loses none.
        """
        if not self.dns_clashes:
            return 0
        return max((dns_servers(ruleset.texts) for ruleset in self.rulesets), default=0)

    @property
    def unread_sets(self) -> list[str]:
        """The ipsets that exposed rules ask for, if they could not be read: that might have cleared one."""
        if not self.ipsets_failure:
            return []
        asked = (part.traffic for rule in self.exposed for part in rule.translations)
        return list(map(printable, ipsets.unread(asked)))

    def ruleset_of(self, tool: ToolName) -> Ruleset | None:
        """Return what a tool has printed; None if it is not here, or could not."""
        return next((ruleset for ruleset in self.rulesets if ruleset.tool == tool), None)

    def examined(self, rule: SnatRule) -> ExaminedRule:
        """Return what is known of one of these rules, as data for people."""
        return ExaminedRule(
            address=rule.chain,
            text=rule.text,
            owner=self.owners.owner_of(rule),
            not_exposed=rule.not_exposed,
            gets_tcp=rule.gets_tcp or not rule.translations,
            unchangeable=rule.unchangeable,
            ports=rule.ports,
            client_ports=self.traits.client_ports,
        )


def strategy_of(tool: ToolName) -> type[IptablesSave] | type[NftList]:
    """Return the kind of ruleset that a tool prints."""
    return _STRATEGIES.get(tool, IptablesSave)


def read(namespace: Namespace) -> HostRules:
    """Read whatever rules there are, and judge them for this kernel and its clients' ports."""
    version = host.kernel_version()
    with namespace.entered():
        traits = HostTraits(
            random_is_full=kernels.searches_from_random(version),
            client_ports=_client_ports(),
            addresses=_local_addresses(namespace),
        )
    generation = _generation(namespace)
    present = iptables_tools()
    legacy_tools = {tool for tool in present if _legacy(namespace, tool)}
    unreadable: list[Unreadable] = []
    iptables, ipsets_failure = _read_iptables(namespace, present, unreadable)
    rulesets: list[Ruleset] = [*iptables]
    snat_rules = [rule for ruleset in iptables for rule in ruleset.snat_rules]
    # What iptables-nft has written is in tables that nft lists too, but only iptables can print it whole.
    through_nft = [ruleset for ruleset in iptables if ruleset.tool not in legacy_tools]
    read_already = {chain for ruleset in through_nft for chain in ruleset.nonempty_chains}
    unprinted = {
        (ruleset.family, table) for ruleset in through_nft for table in ruleset.incompatible_tables
    }
    # On old kernels, rules that translate destinations matter too: see HostRules.dns_servers.
    dns_clashes = kernels.udp_clash_loses(version, servers=2)
    kernel = _kernel_list(namespace)
    only = _of_interest(kernel, through_nft) if kernel and not (dns_clashes or unprinted) else None
    if nft := _read_nft(namespace, only, read_already, unprinted, unreadable):
        rulesets.append(nft)
        snat_rules += [rule for rule in nft.snat_rules if rule.chain.key not in read_already]
    if not present and not tools.where(_NFT):
        unreadable.append(Unreadable(reason=UnreadableReason.no_tool))
    unreadable += _unseen(namespace, iptables, legacy_tools)
    not_understood = {ruleset.tool for ruleset in rulesets if ruleset.broken}
    chains = {chain for ruleset in rulesets for chain in ruleset.chains}.union(
        kernel.keys if kernel else ()
    )
    # Two clients may come by rules of different tools, so all are judged together.
    return HostRules(
        rulesets=tuple(rulesets),
        snat_rules=tuple(judged((_marked(rule, not_understood) for rule in snat_rules), traits)),
        unreadable=tuple(unreadable),
        traits=traits,
        owners=Owners(snat_rules, chains),
        dns_clashes=dns_clashes,
        ipsets_failure=ipsets_failure,
        generation=generation if generation == _generation(namespace) else None,
    )


def reread(namespace: Namespace, before: Ruleset) -> Ruleset:
    """Return what a tool prints now, of the same chains.

    Raises:
        EnvironmentLacks: it is not here, or fails.

    """
    if not before.commands:  # nft was asked for nothing
        return before
    command = before.commands[0][0]
    if not tools.where(command):
        raise EnvironmentLacks(f"there is no {command} here to read the rules back with")
    try:
        return before.printed_again(_outputs(namespace, before.commands))
    except EnvironmentLacks as failed:
        if isinstance(before, NftList) and before.is_part:  # one of the chains is not there any more, say
            with suppress(EnvironmentLacks):
                return before.printed_again(_outputs(namespace, nft_commands.of_text(_NFT)))
        raise EnvironmentLacks(f"{command}: {failed}") from failed


def _read_iptables(
    namespace: Namespace, iptables_tools: Iterable[ToolName], unreadable: list[Unreadable]
) -> tuple[list[IptablesSave], str]:
    """Return what these tools print, and what kept the ipsets that it asks for from being read, "" if
    nothing did; add what else could not be read to ``unreadable``.
    """
    texts: dict[ToolName, str] = {}
    for tool in iptables_tools:
        try:
            texts[tool] = _output(namespace, IptablesSave.print_command(tool))
        except EnvironmentLacks as failed:
            unreadable.append(_failure(tool, failed))
    saved = failure = ""
    if any(f" {ipsets.MATCH_SET} " in text for text in texts.values()):
        try:
            saved = _output(namespace, ["ipset", "save"])
        except EnvironmentLacks as lacking:
            failure = str(lacking)
    sets = ipsets.parsed(saved)
    rulesets = [IptablesSave(tool, text, sets) for tool, text in texts.items()]
    unreadable += (one for ruleset in rulesets for one in _not_understood(ruleset))
    return rulesets, failure


def _read_nft(
    namespace: Namespace,
    only: list[ChainKey] | None,
    read_already: set[ChainKey],
    unprinted: set[tuple[str, str]],
    unreadable: list[Unreadable],
) -> NftList | None:
    """Return what nft prints, None if it prints nothing; add what could not be read to ``unreadable``.

    ``only``: the chains that it has to print; None is all. ``read_already``: the chains that iptables has
    printed. ``unprinted``: family and name of the tables that it does not print, because nft has written
    to them.
    """
    if not tools.where(_NFT):
        return None
    try:
        try:
            nft = _nft_list(namespace, only)
        except EnvironmentLacks:
            if only is None:
                raise
            nft = _nft_list(namespace, None)
    except EnvironmentLacks as failed:
        unreadable.append(_failure(_NFT, failed))
        return None
    unreadable += _not_understood(nft)
    unread = nft.written_by_iptables - read_already
    for table in sorted({chain[:2] for chain in unread} & unprinted):
        foreign = tuple(map(printable, nft.foreign_to_iptables(*table))) or (f"table {' '.join(table)}",)
        unreadable.append(
            Unreadable(reason=UnreadableReason.nft_among_iptables, tool=_NFT, details=foreign)
        )
    if names := tuple(" ".join(chain) for chain in sorted(unread) if chain[:2] not in unprinted):
        unreadable.append(Unreadable(reason=UnreadableReason.no_iptables, tool=_NFT, details=names))
    return nft


def _kernel_list(namespace: Namespace) -> KernelList | None:
    """Return None if the kernel has no nftables, or does not list them."""
    try:
        return KernelList(nftables.chains(namespace), by_chain(nftables.rules(namespace)))
    except (EnvironmentLacks, GenerationPassed):
        return None


def _of_interest(kernel: KernelList, through_nft: Iterable[IptablesSave]) -> list[ChainKey] | None:
    """Return the chains that nft has to print; None if it is to print all.

    Not those of tables that iptables has printed whole; of the others, if there are many rules, those only
    that have to do with the translation of sources.
    """
    printed = {key: lines for ruleset in through_nft for key, lines in ruleset.chains.items()}
    left = kernel.without(kernel.whole_tables(printed))
    if not left.chains:
        return []
    if kernel.count <= _FEW_RULES or any(chain.table_has_flags for chain in left.chains):
        return None
    try:
        keys = left.of_interest(most=kernel.count // 2)
    except Unclear:
        return None
    return keys if len(keys) <= _FEW_CHAINS and all(map(nft_commands.may_name, keys)) else None


def _nft_list(namespace: Namespace, only: list[ChainKey] | None) -> NftList:
    """Return what nft prints of these chains, or of all: with JSON of one piece, or of several, if nft
    cannot write it whole.

    Raises:
        EnvironmentLacks: it can write neither.

    """
    for _ in range(_READINGS):  # text and JSON are asked for one after the other, and rules may change
        text = _outputs(namespace, nft_commands.of_text(_NFT, only))
        try:
            documents = [_output(namespace, command) for command in nft_commands.of_json(_NFT, only)]
            nft = NftList(_NFT, text, *documents, only=only)
        except EnvironmentLacks:
            commands = nft_commands.of_json_without_flags(_NFT, text, NftList(_NFT, text).chains)
            if not commands:
                raise
            nft = NftList(_NFT, text, *(_output(namespace, command) for command in commands), only=only)
        if not nft.broken:
            break
    return nft


def _generation(namespace: Namespace) -> int | None:
    """Return None if the kernel has no nftables, or does not say."""
    try:
        return nftables.generation(namespace)
    except EnvironmentLacks:
        return None


def _outputs(namespace: Namespace, commands: Iterable[list[str]]) -> str:
    return "".join(_output(namespace, command) for command in commands)


def _output(namespace: Namespace, command: list[str]) -> str:
    """Return what a tool prints.

    Raises:
        EnvironmentLacks: it fails; the message is what it says of that.

    """
    done = _run(namespace, command)
    if done.returncode:
        raise EnvironmentLacks(tools.said(done))
    return done.stdout


def _run(namespace: Namespace, command: list[str]) -> tools.Finished:
    try:
        return tools.run(namespace, command)
    except subprocess.TimeoutExpired:
        raise EnvironmentLacks(f"did not end within {tools.SLOWEST_S:.0f} s") from None


def iptables_tools() -> list[ToolName]:
    """Return the back ends that are here; on old hosts there is but one, without a suffix."""
    present: list[str] = []
    for base in _BASES:
        backends = [f"{base}-{kind}" for kind in ("nft", "legacy")]
        candidates = [tool for tool in backends if tools.where(f"{tool}-save")] or [base]
        present += [tool for tool in candidates if tools.where(f"{tool}-save")]
    return [cast("ToolName", tool) for tool in present]


def _legacy(namespace: Namespace, tool: ToolName) -> bool:
    """Whether a tool is of the legacy back end, as all were before 1.8, when ``--version`` named none."""
    if tool.endswith(("-legacy", "-nft")):
        return tool.endswith("-legacy")
    try:
        return "nf_tables" not in _run(namespace, [tool, "--version"]).stdout
    except EnvironmentLacks:
        return True


def _client_ports() -> tuple[int, int]:
    """Return from where clients dial, the containers among them: theirs is the kernel's default."""
    try:
        low, high = host.local_port_range()
    except EnvironmentLacks:
        return _ANY_PORT
    return min(low, _DEFAULT_PORTS[0]), max(high, _DEFAULT_PORTS[1])


def _local_addresses(namespace: Namespace) -> Intervals | None:
    """Return the addresses of a namespace's devices; None if there are none, or nobody lists them."""
    with suppress(EnvironmentLacks):
        return join(ends for text in links.addresses(namespace) for ends in addresses(text)) or None
    return None


def _marked(rule: SnatRule, not_understood: set[ToolName]) -> SnatRule:
    """Mark what would not come back as it was: bytes that are no UTF-8, in a comment say, and rules that
    may not be where they seem to be.
    """
    reason = rule.unchangeable
    if rule.chain.tool in not_understood:
        reason = reason or Unchangeable.ruleset_not_understood
    text = printable(rule.text)
    if text != rule.text:
        reason = reason or Unchangeable.comment_not_utf8
    if text == rule.text and reason is rule.unchangeable:
        return rule
    return replace(rule, text=text, unchangeable=reason)


def _failure(tool: ToolName, failed: EnvironmentLacks) -> Unreadable:
    return Unreadable(reason=UnreadableReason.tool_failed, tool=tool, details=(str(failed),))


def _not_understood(ruleset: IptablesSave | NftList) -> Iterator[Unreadable]:
    """Yield the rules that a tool prints in several lines, or that changed while it was asked twice; and
    those that say what is not known here.
    """
    for reason, rules in (
        (UnreadableReason.not_one_line, ruleset.broken),
        (UnreadableReason.not_understood, ruleset.not_understood),
    ):
        if rules:
            yield Unreadable(reason=reason, tool=ruleset.tool, details=tuple(map(printable, rules)))


def _unseen(
    namespace: Namespace, iptables: Iterable[IptablesSave], legacy_tools: set[ToolName]
) -> Iterator[Unreadable]:
    """Yield what is loaded that no tool here has read."""
    for base, names in _LEGACY_TABLES.items():
        with namespace.entered():
            try:
                loaded = Path("/proc/thread-self/net", names).read_text().split()
            except OSError:
                continue
        if loaded and not legacy_tools & {base, f"{base}-legacy"}:
            yield Unreadable(reason=UnreadableReason.no_legacy_iptables, tool=base, details=tuple(loaded))
    for ruleset in iptables:
        if "nat" in ruleset.incompatible_tables and not tools.where(_NFT):
            yield Unreadable(reason=UnreadableReason.no_nft, tool=ruleset.tool)
