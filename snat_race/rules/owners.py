"""Who writes which SNAT rule, when it writes it again, and what its documentation offers. Pure.

Recognised by the names of chains and tables and by comments, as these programs write them.
"""

import re
from dataclasses import dataclass

from snat_race.rules.exposure import SnatRule

_NEVER = r"$^"


@dataclass(frozen=True, slots=True)
class Owner:
    """One program. ``recognised``: a pattern of "table chain # comment"; ``rule``: of its own words."""

    name: str
    recognised: str
    again: str
    setting: str
    rule: str = _NEVER


UNKNOWN = Owner(
    "an unknown program or person", "", "whenever that loads it", "add the flag where the rule comes from"
)

_NONE = "has no setting for random ports"
_OWNERS = (
    Owner(
        "kube-proxy",
        r"\bKUBE-POSTROUTING\b|^kube-proxy |kubernetes service traffic",
        "kube-proxy, within --iptables-sync-period (30 s)",
        "kube-proxy randomises by itself where iptables can (1.6.2 or newer): update its image",
    ),
    Owner(
        "flannel",
        r"FLANNEL|flanneld masq|^flannel-ipv[46] ",
        "flanneld, within --iptables-resync (5 s)",
        "flanneld randomises by itself where iptables can, unless --ip-masq-fully-random-disable is set",
    ),
    Owner(
        "Calico",
        r"\bcali-|cali:",
        "Felix, within iptablesRefreshInterval",
        "set FELIX_FEATUREDETECTOVERRIDE=SNATFullyRandom=true,MASQFullyRandom=true, or update iptables",
    ),
    Owner(
        "ip-masq-agent",
        r"IP-MASQ|ip-masq-agent:",
        "ip-masq-agent, within resyncInterval (60 s)",
        "run ip-masq-agent with --random-fully=true, its default in newer versions",
    ),
    Owner(
        "AWS VPC CNI",
        r"\bAWS-SNAT-CHAIN|AWS, SNAT",
        "aws-node, when it starts",
        "set AWS_VPC_K8S_CNI_RANDOMIZESNAT=prng on the aws-node DaemonSet",
    ),
    Owner(
        "Cilium",
        r"CILIUM_POST|cilium (masquerade|host->cluster|snat)",
        "cilium-agent, when it starts or reconciles",
        "run cilium-agent with --iptables-random-fully=true, or with eBPF masquerading (bpf.masquerade)",
    ),
    Owner(
        "Antrea",
        r"ANTREA-POSTROUTING|Antrea: ",
        "antrea-agent, when it starts or syncs",
        "set snatFullyRandomPorts: true in antrea-agent.conf",
    ),
    Owner(
        "kube-router",
        _NEVER,
        "kube-router, within --iptables-sync-period (5 min)",
        "kube-router randomises by itself where iptables can: update it",
        r"kube-router-pod-subnets",
    ),
    Owner(
        "CNI portmap",
        r"CNI-HOSTPORT-MASQ|^cni_hostport ",
        "the plugin, when a container with a host port starts",
        f"portmap {_NONE}; 'snat': false does without the rule",
    ),
    Owner(
        "CNI bridge or ptp",
        r"\bCNI-[0-9a-f]{24}\b|^cni_plugins_masquerade ",
        "the plugin, for each container that starts",
        f"the plugin {_NONE}; set 'ipMasq': false and let ip-masq-agent or a rule of yours masquerade",
    ),
    Owner(
        "Podman (netavark)",
        r"NETAVARK|^netavark ",
        "podman, when a container starts, or 'podman network reload'",
        f"netavark {_NONE}",
    ),
    Owner(
        "libvirt",
        r"LIBVIRT_PRT|^libvirt_network ",
        "libvirtd, when it or the network starts",
        f"libvirt {_NONE}; with <nat><port start='10000' end='32000'/></nat> the kernel draws, for guests "
        "connect from other ports",
    ),
    Owner(
        "firewalld",
        r"^firewalld |\bPOST_\S+_allow\b",
        "firewalld, at each --reload or change",
        f"firewalld {_NONE}; --remove-masquerade and a direct rule of yours",
    ),
    Owner(
        "Incus or LXD",
        r"^(incus|lxd) |generated for (Incus|LXD) network",
        "the daemon, when it or the network starts",
        f"it {_NONE}; ipv4.nat=false and a rule of yours",
    ),
    Owner(
        "Tailscale",
        r"ts-postrouting",
        "tailscaled, when it starts or its routes change",
        f"tailscaled {_NONE}; --snat-subnet-routes=false does without the rule",
    ),
    Owner(
        "Docker",
        r"^docker-bridges ",
        "dockerd, when it or a network starts",
        f"Docker {_NONE}; take its rule away (com.docker.network.bridge.enable_ip_masquerade=false on the "
        "network) and load your own",
        r" -o (docker0|br-[0-9a-f]{12}|docker_gwbridge) (-m addrtype --src-type LOCAL )?-j (MASQ|SNAT)",
    ),
)  # fmt: skip


def owner_of(rule: SnatRule) -> Owner:
    """Return who wrote a rule, as far as can be told."""
    known_by = f"{rule.place.table} {rule.place.chain} # {rule.comment}"
    return next(
        (
            each
            for each in _OWNERS
            if re.search(each.recognised, known_by) or re.search(each.rule, rule.text)
        ),
        UNKNOWN,
    )
