"""When the owner of a SNAT rule writes it again, and which setting its documentation offers.

Without that setting, what ``mitigate`` changes lasts until the owner writes its rule again. By which
marks an owner is recognised: ``rules/owner_marks.py``. ``docs/owners.md`` has all of this as a table.
"""

from dataclasses import dataclass

from snat_race.results.findings import RuleOwner


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerWords:
    """What is said of one owner."""

    again: str  # who writes the rule again, and when; "": nobody knows
    setting: str  # what makes that rule draw ports for good, or does without it
    source: str  # where both were read: the project's documentation or source; "": nowhere
    routes: bool = False  # whether its rules are those of a home's or office's router, or of a VPN of peers


_NO_SETTING = "has no setting for random ports"
_WORDS = {
    RuleOwner.kube_proxy: OwnerWords(
        again="kube-proxy, within --iptables-sync-period (30 s)",
        setting="kube-proxy randomises by itself since 1.16 where iptables can (1.6.2 or newer): update "
        "its image",
        source="kubernetes v1.30, pkg/proxy/iptables/proxier.go",
    ),
    RuleOwner.flannel: OwnerWords(
        again="flanneld, within --iptables-resync (5 s)",
        setting="flanneld randomises by itself where iptables can, unless "
        "--ip-masq-fully-random-disable is set",
        source="flannel v0.26, Documentation/configuration.md",
    ),
    RuleOwner.calico: OwnerWords(
        again="Felix, within iptablesRefreshInterval (90 s; nftablesRefreshInterval for nftables)",
        setting="set FELIX_FEATUREDETECTOVERRIDE=SNATFullyRandom=true,MASQFullyRandom=true, or update "
        "iptables; natPortRange apart from the clients' ports helps too, on Linux 5.0 or newer; "
        "natOutgoing: false on the IP pool does without the rule",
        source="calico v3.29, felix/environment/feature_detect_linux.go, felix/config/config_params.go",
    ),
    RuleOwner.ip_masq_agent: OwnerWords(
        again="ip-masq-agent, within resyncInterval (60 s)",
        setting="run ip-masq-agent with --random-fully=true, its default in newer versions",
        source="ip-masq-agent v2.12, README.md",
    ),
    RuleOwner.node_script: OwnerWords(
        again="the script that GCE and kops run when the node boots",
        setting=f"it {_NO_SETTING}; run ip-masq-agent in place of it",
        source="kubernetes v1.30, cluster/gce/gci/configure-helper.sh; kops v1.30, nodeup/pkg/model/"
        "containerd.go",
    ),
    RuleOwner.aws_vpc_cni: OwnerWords(
        again="aws-node, when it starts",
        setting="set AWS_VPC_K8S_CNI_RANDOMIZESNAT=prng, its default in newer versions, on the aws-node "
        "DaemonSet",
        source="amazon-vpc-cni-k8s v1.18, README.md, pkg/networkutils/network.go",
    ),
    RuleOwner.cilium: OwnerWords(
        again="cilium-agent, when it starts or reconciles",
        setting="run cilium-agent with --iptables-random-fully=true, or with eBPF masquerading "
        "(bpf.masquerade)",
        source="cilium v1.16, pkg/datapath/iptables/cell.go",
    ),
    RuleOwner.antrea: OwnerWords(
        again="antrea-agent, when it starts, and each minute",
        setting="set snatFullyRandomPorts: true in antrea-agent.conf; for egress IPs, under egress",
        source="antrea v2.2, build/charts/antrea/README.md, pkg/agent/route/route_linux.go",
    ),
    RuleOwner.kube_router: OwnerWords(
        again="kube-router, within --iptables-sync-period (5 min)",
        setting="kube-router randomises by itself where iptables can: update it",
        source="kube-router v2.1, pkg/controllers/routing/pod_egress.go",
    ),
    RuleOwner.cni_portmap: OwnerWords(
        again="the plugin, when a container with a host port starts",
        setting=f"portmap {_NO_SETTING}; 'snat': false does without the rule",
        source="containernetworking/plugins v1.6, plugins/meta/portmap/README.md",
    ),
    RuleOwner.cni_bridge: OwnerWords(
        again="the plugin, for each container that starts",
        setting=f"the plugin {_NO_SETTING}; set 'ipMasq': false, and let ip-masq-agent or a rule of "
        "yours masquerade",
        source="containernetworking/plugins v1.6, pkg/ip/ipmasq_iptables_linux.go",
    ),
    RuleOwner.netavark: OwnerWords(
        again="podman, when a container starts, or 'podman network reload'",
        setting=f"netavark {_NO_SETTING}",
        source="netavark v1.12, src/firewall/varktables/types.rs, nft.rs",
    ),
    RuleOwner.libvirt: OwnerWords(
        again="libvirtd, when it or the network starts",
        setting=f"libvirt {_NO_SETTING}; with <nat><port start='10000' end='32000'/></nat> the kernel "
        "draws ports, because guests connect from other ports",
        source="libvirt v10.8, docs/formatnetwork.rst",
    ),
    RuleOwner.firewalld: OwnerWords(
        again="firewalld, at each --reload or change",
        setting=f"firewalld {_NO_SETTING}; use --remove-masquerade and a direct rule of yours",
        source="firewalld v2.2, src/firewall/core/ipXtables.py",
    ),
    RuleOwner.incus: OwnerWords(
        again="the daemon, when it or the network starts",
        setting=f"it {_NO_SETTING}; set ipv4.nat=false and load a rule of yours",
        source="incus v6.6, internal/server/firewall/drivers/drivers_nftables_templates.go",
    ),
    RuleOwner.tailscale: OwnerWords(
        again="tailscaled, when it starts or its routes change",
        setting=f"tailscaled {_NO_SETTING}; --snat-subnet-routes=false does without the rule",
        source="tailscale v1.76, util/linuxfw/iptables_runner.go",
        routes=True,
    ),
    RuleOwner.weave: OwnerWords(
        again="weaver, when it starts or exposes the network",
        setting=f"Weave {_NO_SETTING}, and is no longer developed; move to another network plugin",
        source="weave v2.8, net/expose.go",
    ),
    RuleOwner.ovn_kubernetes: OwnerWords(
        again="ovnkube-node, when it starts or the nodes and services change, egress IPs within 6 min",
        setting=f"OVN-Kubernetes {_NO_SETTING}; in shared gateway mode OVN translates the pods, not these "
        "rules",
        source="ovn-kubernetes, December 2025, go-controller/pkg/node/gateway_nftables.go, "
        "controllers/egressip/egressip.go",
    ),
    RuleOwner.kube_ovn: OwnerWords(
        again="kube-ovn-cni, within 3 s",
        setting="Kube-OVN randomises by itself where iptables can (1.6.2 or newer): update its image; "
        "natOutgoing: false on the subnet does without the rule",
        source="kube-ovn v1.13, pkg/daemon/gateway_linux.go, controller_linux.go",
    ),
    RuleOwner.netbird: OwnerWords(
        again="the client, when it starts or its routes change",
        setting=f"NetBird {_NO_SETTING}; switch masquerade off for the route, and load a rule of yours",
        source="netbird, November 2025, client/firewall/nftables/router_linux.go",
        routes=True,
    ),
    RuleOwner.openwrt: OwnerWords(
        again="fw4, at each start or reload, and when an interface comes up",
        setting=f"it {_NO_SETTING}; set option masq '0' for the zone, and put a rule of yours into "
        "/usr/share/nftables.d/chain-post/srcnat/",
        source="OpenWrt 23.05, firewall4, root/usr/share/firewall4/templates/zone-masq.uc",
        routes=True,
    ),
    RuleOwner.neutron: OwnerWords(
        again="the agent, at each change of the router, and when it starts",
        setting="set use_random_fully = true, its default, in section [AGENT]; it needs iptables 1.6.2 or "
        "newer",
        source="neutron 2024.2, neutron/conf/agent/common.py, agent/l3/router_info.py",
    ),
    RuleOwner.rancher: OwnerWords(
        again="network-manager or plugin-manager, within 5 min",
        setting=f"Rancher 1.x {_NO_SETTING}, and is no longer developed; 'hostNat': false in the network's "
        "CNI configuration does without the rule",
        source="rancher/plugin-manager, the last one, hostnat/hostnat.go",
    ),
    RuleOwner.kubenet: OwnerWords(
        again="kubelet, when it starts",
        setting=f"kubenet {_NO_SETTING}; kubelet --non-masquerade-cidr=0.0.0.0/0 does without the rule: "
        "run ip-masq-agent then",
        source="kubernetes v1.23, pkg/kubelet/dockershim/network/kubenet/kubenet_linux.go",
    ),
    RuleOwner.kindnet: OwnerWords(
        again="kindnetd, within 60 s",
        setting=f"kindnetd {_NO_SETTING}; use disableDefaultCNI: true and another network plugin",
        source="kind v0.24, images/kindnetd/cmd/kindnetd/masq.go, main.go",
    ),
    RuleOwner.openshift_sdn: OwnerWords(
        again="the node's sdn pod, when it starts and at each sync",
        setting=f"OpenShift SDN {_NO_SETTING}; move to OVN-Kubernetes",
        source="openshift/sdn 4.14, pkg/network/node/iptables.go",
    ),
    RuleOwner.network_manager: OwnerWords(
        again="NetworkManager, when the connection is activated",
        setting=f"it {_NO_SETTING}; use ipv4.method manual in place of shared, and a rule of yours",
        source="",
        routes=True,
    ),
    RuleOwner.systemd: OwnerWords(
        again="systemd-networkd when the link is configured, systemd-nspawn when a container starts",
        setting=f"it {_NO_SETTING}; set IPMasquerade=no, and load a rule of yours",
        source="systemd 256, src/shared/firewall-util-nft.c",
        routes=True,
    ),
    RuleOwner.vyos: OwnerWords(
        again="VyOS, at each commit that changes NAT, and when it boots",
        setting="set nat source rule N translation options port-mapping random",
        source="vyos-1x 1.4, python/vyos/nat.py",
        routes=True,
    ),
    RuleOwner.shorewall: OwnerWords(
        again="Shorewall, at each start, restart or reload",
        setting="write MASQUERADE(random) or SNAT(ADDRESS:random) into /etc/shorewall/snat",
        source="shorewall 5.2, shorewall-snat(5)",
        routes=True,
    ),
    RuleOwner.docker: OwnerWords(
        again="dockerd, when it or a network starts",
        setting=f"Docker {_NO_SETTING}; take its rule away "
        "(com.docker.network.bridge.enable_ip_masquerade=false on the network) and load your own",
        source="moby v29, daemon/libnetwork/drivers/bridge",
    ),
    RuleOwner.unknown: OwnerWords(
        again="",
        setting="add the flag where the rule comes from: a file that is loaded at boot, or a program",
        source="",
    ),
}


PUNCHING_HOLES = "calls, games and VPNs of peers"
"""What goes from NAT to NAT by UDP, if that keeps its ports."""


def is_of_router(owner: RuleOwner) -> bool:
    """Whether UDP hole punching is likely through the rules of an owner."""
    return words_of(owner).routes


def words_of(owner: RuleOwner) -> OwnerWords:
    """Return everything that is said of an owner."""
    return _WORDS[owner]


def setting(owner: RuleOwner) -> str:
    """Return which setting an owner documents to have its rule draw ports."""
    return _WORDS[owner].setting


def writes_again(owner: RuleOwner) -> str:
    """Say when an owner writes its rule again, and what its documentation offers."""
    words = _WORDS[owner]
    if not words.again:
        return f"who wrote this rule is not known, nor when it is written again; {words.setting}"
    return f"{owner} writes its rule again: {words.again}; {words.setting}"
