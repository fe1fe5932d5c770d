"""Loads one variant at a time into a namespace, by netlink or with the tools that people use."""

import subprocess
from collections.abc import Sequence
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.nftables.main import NFTables

from snat_race.errors import EnvironmentLacks, Unavailable, UsageError
from snat_race.kernel import tools
from snat_race.kernel.netns import Namespace
from snat_race.lab import variant_rules
from snat_race.lab.settings import Backend
from snat_race.lab.topology import Network
from snat_race.lab.variants import Variant

_IPTABLES_TABLES = ("nat", "raw", "mangle", "filter")
_SERVICE_TABLE = "snat_race_service"
_CHAIN = "c"
_NF_ACCEPT = 1  # linux/netfilter.h
_NFPROTO_UNSPEC = 0  # linux/netfilter.h: any family


def require_binaries(variants: Sequence[Variant], backend: Backend) -> None:
    """Check that the tools are there which the variants and the backend call for.

    Raises:
        EnvironmentLacks: one is not; the message names its package.

    """
    needed = {variant.command[0] for variant in variants if variant.command}
    if backend is not Backend.netlink:
        needed.add(backend.value)
    for name in sorted(needed):
        if not tools.where(name):
            package = "nftables" if name == "nft" else "iptables"
            raise EnvironmentLacks(f"there is no {name} here: 'sudo apt-get install {package}'")


class VariantLoader:
    """The rules of one namespace; those of one variant at a time.

    Args:
        namespace: where connections are translated.
        network: the addresses that the rules are about.
        protocol: "tcp" or "udp"; rules that give ports name it.
        backend: what loads the rules. A user's own come with their own command.

    """

    def __init__(self, namespace: Namespace, network: Network, protocol: str, backend: Backend) -> None:
        self._namespace = namespace
        self._network = network
        self._protocol = protocol
        self._backend = backend
        self._loaded: Variant | None = None
        # The iptables commands that may have loaded something.
        self._iptables_used: set[str] = set()

    def load(self, variant: Variant) -> None:
        """Make ``variant`` the only rule.

        Raises:
            Unavailable: the kernel, or the backend, cannot do it.
            UsageError: the user's own rule was refused, in the tool's words.

        """
        if variant is self._loaded:
            return
        self.clear()
        if variant.command:
            self._run(list(variant.command), variant)
        elif self._backend is Backend.netlink:
            chain = variant_rules.NAT_CHAIN if variant.tracked else variant_rules.RAW_CHAIN
            rule = variant_rules.expressions(variant, self._network)
            self._commit(variant_rules.TABLE, chain, [rule])
        elif self._backend is Backend.nft:
            script = variant_rules.nft_script(variant, self._network, self._protocol)
            self._run(["nft", "-f", "-"], variant, script)
        else:
            arguments = variant_rules.iptables_arguments(variant, self._network, self._protocol)
            self._run([self._iptables_command(), *arguments], variant)
        self._loaded = variant

    def load_service(self) -> None:
        """Offer the service address, translated to one of two backends by chance.

        Raises:
            Unavailable: the kernel cannot do it.

        """
        rules = variant_rules.service_rules(self._network)
        self._commit(_SERVICE_TABLE, variant_rules.SERVICE_CHAIN, rules)

    def clear(self) -> None:
        """Remove every rule except the service's."""
        self._loaded = None
        with self._namespace.entered():
            for family, name in self._tables():
                if name != _SERVICE_TABLE:
                    with NFTables(nfgen_family=family) as nft:
                        nft.begin()
                        nft.table("del", name=name)
                        nft.commit()
        for command in self._iptables_used:
            # Netlink does not see what a legacy iptables has loaded, whatever its name is here.
            for table in _IPTABLES_TABLES:
                self._execute([command, "-t", table, "-F"])

    @staticmethod
    def _tables() -> list[tuple[int, str]]:
        """Return the family and name of each table here; none on a kernel without nf_tables."""
        try:
            with NFTables(nfgen_family=_NFPROTO_UNSPEC) as nft:
                return [
                    (table["nfgen_family"], table.get_attr("NFTA_TABLE_NAME")) for table in nft.get_tables()
                ]
        except NetlinkError:
            return []

    def _iptables_command(self) -> str:
        return self._backend.replace("ip", "ip6", 1) if ":" in self._network.subnet else self._backend.value

    def _commit(
        self, table: str, chain: variant_rules.Chain, rules: list[variant_rules.Expressions]
    ) -> None:
        """Make a table with one chain of these rules, and check that the kernel has them then.

        A kernel without the module of an expression may refuse a rule without a word.
        """
        try:
            loaded = self._committed(table, chain, rules)
        except NetlinkError:
            loaded = []
        if [_effect_of_loaded(rule) for rule in loaded] != [_effect_of(rule) for rule in rules]:
            raise Unavailable(
                "the kernel did not take the rule; it may lack a module: "
                "'sudo modprobe -a nf_tables nft_chain_nat nft_nat nft_masq nft_ct nft_numgen'"
            )

    def _committed(
        self, table: str, chain: variant_rules.Chain, rules: list[variant_rules.Expressions]
    ) -> list[Any]:
        """Commit a table; return the rules that are in it then, as pyroute2 reads them."""
        with self._namespace.entered(), NFTables(nfgen_family=variant_rules.nfproto(self._network)) as nft:
            nft.begin()
            nft.table("add", name=table)
            nft.chain(
                "add",
                table=table,
                name=_CHAIN,
                hook=chain.hook,
                type=chain.kind,
                priority=chain.priority,
                policy=_NF_ACCEPT,
            )
            for rule in rules:
                nft.rule("add", table=table, chain=_CHAIN, expressions=(rule,))
            nft.commit()
            return [rule for rule in nft.get_rules() if rule.get_attr("NFTA_RULE_TABLE") == table]

    def _run(self, command: list[str], variant: Variant, script: str = "") -> None:
        if command[0] != "nft":
            self._iptables_used.add(command[0])
        finished = self._execute(command, script)
        if finished.returncode:
            complaint = tools.said(finished)
            if variant.command:
                raise UsageError(f"{command[0]} refused the rule: {complaint}")
            raise Unavailable(f"{command[0]}: {complaint}")

    def _execute(self, command: list[str], script: str = "") -> tools.Finished:
        # Not the host's lock: it may not be ours to open, and the rules are not the host's.
        with tools.spare_lock() as lock:
            try:
                return tools.run(self._namespace, command, script, lock=lock)
            except subprocess.TimeoutExpired:
                raise UsageError(f"{command[0]} did not end within {tools.SLOWEST_S:.0f} s") from None


def _effect_of(rule: variant_rules.Expressions) -> tuple[str, frozenset[str]]:
    """Return the name and the flags of a rule's last expression: what it does to a packet."""
    attributes: dict[str, Any] = dict(rule[-1]["attrs"])
    name = attributes["NFTA_EXPR_NAME"]
    data = dict(attributes.get("NFTA_EXPR_DATA", {"attrs": ()})["attrs"])
    return name, frozenset(data.get(f"NFTA_{name.upper()}_FLAGS", ()))


def _effect_of_loaded(rule: Any) -> tuple[str, frozenset[str]]:  # noqa: ANN401 - pyroute2 is not typed
    """Return the same of a rule read back."""
    last = rule.get_attr("NFTA_RULE_EXPRESSIONS")[-1]
    name, data = last.get_attr("NFTA_EXPR_NAME"), last.get_attr("NFTA_EXPR_DATA")
    flags = data.get_attr(f"NFTA_{name.upper()}_FLAGS") if data and name in {"masq", "nat"} else ()
    return name, frozenset(flags or ())
