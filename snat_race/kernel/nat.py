"""The SNAT rules of the lab: which there are, and how one is put into a namespace."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from pyroute2.netlink.nfnetlink import nfgen_msg
from pyroute2.nftables.expressions import genex, ipv4addr
from pyroute2.nftables.main import NFTables

from snat_race.errors import EnvironmentLacks, UsageError
from snat_race.kernel.namespaces import Namespace

_TABLE, _CHAIN = "snat_race", "postrouting"
_NF_IP_PRI_NAT_SRC = 100  # linux/netfilter_ipv4.h
_NFPROTO_IPV4, _NF_ACCEPT = 2, 1


@dataclass(frozen=True, slots=True)
class Variant:
    """One SNAT setting: its name, the nftables rule it stands for, and netlink's flags for it."""

    name: str
    rule: str
    flags: frozenset[str] = frozenset()


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("masquerade", "masquerade"),
        Variant(
            "masquerade fully-random",
            "masquerade fully-random",
            frozenset({"NF_NAT_RANGE_PROTO_RANDOM_FULLY"}),
        ),
    )
}


def require_known(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the variants asked for, or all of them.

    Raises:
        UsageError: a name is unknown or given twice.

    """
    chosen = tuple(names or VARIANTS)
    for name in chosen:
        if name not in VARIANTS:
            near = difflib.get_close_matches(name, VARIANTS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(VARIANTS)}"
            raise UsageError(f"--variant: unknown rule {name!r}; {hint}")
    if len(set(chosen)) < len(chosen):
        raise UsageError("--variant: each rule can be measured only once; drop the repeated one")
    return chosen


def install(variant: Variant, namespace: Namespace, subnet: str) -> None:
    """Make ``variant`` the only rule for packets from ``subnet`` (IPv4), in one transaction.

    Raises:
        EnvironmentLacks: the kernel did not take the rule.

    """
    masquerade = genex("masq", {"flags": variant.flags} if variant.flags else {})
    with namespace.entered():
        nft = NFTables(nfgen_family=_NFPROTO_IPV4)
        try:
            nft.begin()
            # Adding first makes the deletion valid whether or not the table was there.
            for verb in ("add", "del", "add"):
                nft.table(verb, name=_TABLE)
            nft.chain(
                "add",
                table=_TABLE,
                name=_CHAIN,
                hook="postrouting",
                type="nat",
                priority=_NF_IP_PRI_NAT_SRC,
                policy=_NF_ACCEPT,
            )
            nft.rule("add", table=_TABLE, chain=_CHAIN, expressions=(ipv4addr(src=subnet), [masquerade]))
            nft.commit()
            installed = [_flags(rule) for rule in nft.get_rules()]
        finally:
            nft.close()
    # A refused transaction is silent, so what counts is what is there now.
    if installed != [variant.flags]:
        raise EnvironmentLacks(
            f"the kernel did not take the rule '{variant.rule}'; it needs nftables with masquerade: "
            "'sudo modprobe -a nf_tables nft_masq nft_chain_nat'"
        )


def _flags(rule: nfgen_msg) -> frozenset[str]:
    """Return the flags of the masquerade expression in a rule read back."""
    for expression in rule.get_attr("NFTA_RULE_EXPRESSIONS"):
        if expression.get_attr("NFTA_EXPR_NAME") == "masq":
            return frozenset(expression.get_attr("NFTA_EXPR_DATA").get_attr("NFTA_MASQ_FLAGS") or ())
    return frozenset({"no masquerade"})
