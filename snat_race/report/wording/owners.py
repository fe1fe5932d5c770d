"""When the owner of a SNAT rule writes it again, and which setting its documentation offers.

Without that setting, what ``mitigate`` changes lasts until the owner writes its rule again. By which
marks an owner is recognised: ``rules/owners.py``.
"""

from dataclasses import dataclass

from snat_race.results.findings import RuleOwner


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerWords:
    """What is said of one owner."""

    again: str  # who writes the rule again, and when; "": nobody knows
    setting: str  # what makes that rule draw ports for good, or does without it


_NO_SETTING = "has no setting for random ports"
_WORDS = {
    RuleOwner.kube_proxy: OwnerWords(
        again="kube-proxy, within --iptables-sync-period (30 s)",
        setting="kube-proxy randomises by itself where iptables can (1.6.2 or newer): update its image",
    ),
    RuleOwner.flannel: OwnerWords(
        again="flanneld, within --iptables-resync (5 s)",
        setting="flanneld randomises by itself where iptables can, unless "
        "--ip-masq-fully-random-disable is set",
    ),
    RuleOwner.calico: OwnerWords(
        again="Felix, within iptablesRefreshInterval",
        setting="set FELIX_FEATUREDETECTOVERRIDE=SNATFullyRandom=true,MASQFullyRandom=true, or update "
        "iptables",
    ),
    RuleOwner.ip_masq_agent: OwnerWords(
        again="ip-masq-agent, within resyncInterval (60 s)",
        setting="run ip-masq-agent with --random-fully=true, its default in newer versions",
    ),
    RuleOwner.aws_vpc_cni: OwnerWords(
        again="aws-node, when it starts",
        setting="set AWS_VPC_K8S_CNI_RANDOMIZESNAT=prng on the aws-node DaemonSet",
    ),
    RuleOwner.cilium: OwnerWords(
        again="cilium-agent, when it starts or reconciles",
        setting="run cilium-agent with --iptables-random-fully=true, or with eBPF masquerading "
        "(bpf.masquerade)",
    ),
    RuleOwner.antrea: OwnerWords(
        again="antrea-agent, when it starts or syncs",
        setting="set snatFullyRandomPorts: true in antrea-agent.conf",
    ),
    RuleOwner.kube_router: OwnerWords(
        again="kube-router, within --iptables-sync-period (5 min)",
        setting="kube-router randomises by itself where iptables can: update it",
    ),
    RuleOwner.cni_portmap: OwnerWords(
        again="the plugin, when a container with a host port starts",
        setting=f"portmap {_NO_SETTING}; 'snat': false does without the rule",
    ),
    RuleOwner.cni_bridge: OwnerWords(
        again="the plugin, for each container that starts",
        setting=f"the plugin {_NO_SETTING}; set 'ipMasq': false, and let ip-masq-agent or a rule of "
        "yours masquerade",
    ),
    RuleOwner.netavark: OwnerWords(
        again="podman, when a container starts, or 'podman network reload'",
        setting=f"netavark {_NO_SETTING}",
    ),
    RuleOwner.libvirt: OwnerWords(
        again="libvirtd, when it or the network starts",
        setting=f"libvirt {_NO_SETTING}; with <nat><port start='10000' end='32000'/></nat> the kernel "
        "draws ports, because guests connect from other ports",
    ),
    RuleOwner.firewalld: OwnerWords(
        again="firewalld, at each --reload or change",
        setting=f"firewalld {_NO_SETTING}; use --remove-masquerade and a direct rule of yours",
    ),
    RuleOwner.incus: OwnerWords(
        again="the daemon, when it or the network starts",
        setting=f"it {_NO_SETTING}; set ipv4.nat=false and load a rule of yours",
    ),
    RuleOwner.tailscale: OwnerWords(
        again="tailscaled, when it starts or its routes change",
        setting=f"tailscaled {_NO_SETTING}; --snat-subnet-routes=false does without the rule",
    ),
    RuleOwner.docker: OwnerWords(
        again="dockerd, when it or a network starts",
        setting=f"Docker {_NO_SETTING}; take its rule away "
        "(com.docker.network.bridge.enable_ip_masquerade=false on the network) and load your own",
    ),
    RuleOwner.unknown: OwnerWords(
        again="",
        setting="add the flag where the rule comes from: a file that is loaded at boot, or a program",
    ),
}


def setting(owner: RuleOwner) -> str:
    """Return which setting an owner documents to have its rule draw ports."""
    return _WORDS[owner].setting


def writes_again(owner: RuleOwner) -> str:
    """Say when an owner writes its rule again, and what its documentation offers."""
    words = _WORDS[owner]
    if not words.again:
        return f"who wrote this rule is not known, nor when it is written again; {words.setting}"
    return f"{owner} writes its rule again: {words.again}; {words.setting}"
