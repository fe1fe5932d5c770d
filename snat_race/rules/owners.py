"""Which program wrote a SNAT rule: its owner, who writes the rule again. Pure.

Owners are recognised by the names of chains and tables and by comments, as these programs write them.
When an owner writes its rule again, and which setting it documents: ``report/wording/owners.py``.
"""

import re
from dataclasses import dataclass

from snat_race.results.findings import RuleOwner
from snat_race.rules.exposure import SnatRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What an owner is recognised by: either pattern is enough; there is none if it is empty."""

    names: str = ""  # a pattern of "table chain # comment"
    rule: str = ""  # a pattern of the rule's own words


# Docker comes last, because it marks nothing: its rules are known by the devices of its networks only.
MARKS = {
    RuleOwner.kube_proxy: Marks(names=r"\bKUBE-POSTROUTING\b|^kube-proxy |kubernetes service traffic"),
    RuleOwner.flannel: Marks(names=r"FLANNEL|flanneld masq|^flannel-ipv[46] "),
    RuleOwner.calico: Marks(names=r"\bcali-|cali:"),
    RuleOwner.ip_masq_agent: Marks(names=r"IP-MASQ|ip-masq-agent:"),
    RuleOwner.aws_vpc_cni: Marks(names=r"\bAWS-SNAT-CHAIN|AWS, SNAT"),
    RuleOwner.cilium: Marks(names=r"CILIUM_POST|cilium (masquerade|host->cluster|snat)"),
    RuleOwner.antrea: Marks(names=r"ANTREA-POSTROUTING|Antrea: "),
    RuleOwner.kube_router: Marks(rule=r"kube-router-pod-subnets"),
    RuleOwner.cni_portmap: Marks(names=r"CNI-HOSTPORT-MASQ|^cni_hostport "),
    RuleOwner.cni_bridge: Marks(names=r"\bCNI-[0-9a-f]{24}\b|^cni_plugins_masquerade "),
    RuleOwner.netavark: Marks(names=r"NETAVARK|^netavark "),
    RuleOwner.libvirt: Marks(names=r"LIBVIRT_PRT|^libvirt_network "),
    RuleOwner.firewalld: Marks(names=r"^firewalld |\bPOST_\S+_allow\b"),
    RuleOwner.incus: Marks(names=r"^(incus|lxd) |generated for (Incus|LXD) network"),
    RuleOwner.tailscale: Marks(names=r"ts-postrouting"),
    RuleOwner.docker: Marks(
        names=r"^docker-bridges ",
        rule=r" -o (docker0|br-[0-9a-f]{12}|docker_gwbridge) (-m addrtype --src-type LOCAL )?"
        r"-j (MASQ|SNAT)",
    ),
}


def owner_of(rule: SnatRule) -> RuleOwner:
    """Return who wrote a rule, as far as can be told."""
    names = f"{rule.chain.table} {rule.chain.chain} # {rule.comment}"
    for owner, marks in MARKS.items():
        if marks.names and re.search(marks.names, names):
            return owner
        if marks.rule and re.search(marks.rule, rule.text):
            return owner
    return RuleOwner.unknown
