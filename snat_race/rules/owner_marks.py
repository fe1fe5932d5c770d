"""What each program writes where it translates sources: the marks by which ``owners.py`` knows its rules.

Where a comment names a file, the chain and the words of the rule were read there, in the source of that
program. "Seen" means that they are known from rulesets of hosts only.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from snat_race.results.findings import RuleOwner

IPTABLES_NAT = "ip6? nat"  # table nat of iptables, of both IP versions; nft lists that of iptables-nft
_ANYTHING = ".*"
ANY = (_ANYTHING,)
_MARK = r"--mark \S+"
_FROM = r"-s \S+"
_NETWORKS = (r"(! )?-[sd] \S+",)
_DOCKER_DEVICE = "(docker0|br-[0-9a-f]{12}|docker_gwbridge)"
_NOT_MULTICAST = r"! -d (224\.0\.0\.0/4|ff00::/8)"
# Rules that programs write one behind the other, and only two of which say who wrote them.
_OVN_OWN = r"(169\.254\.(0|169)\.1/32|fd69::1/128)"
_POD = "-A POSTROUTING -s"
_FLANNEL_PAIR = (
    rf"{_POD} (\S+) ! -d 224\.0\.0\.0/4 -j MASQUERADE.*\n-A POSTROUTING ! -s \1 -d \1 -j MASQUERADE.*",
    rf"-A POSTROUTING ! -s (\S+) -d \1 -j MASQUERADE.*\n{_POD} \1 ! -d 224\.0\.0\.0/4 -j MASQUERADE.*",
)
_LIBVIRT_PAIR = (
    rf"{_POD} (\S+) ! -d \1 (-p tcp |-p udp |)-j MASQUERADE.*\n"
    rf"{_POD} \1 ! -d \1 (?!\2-j)-p (tcp|udp) -j MASQUERADE --to-ports 1024-65535.*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A chain that a program makes or uses, and the rules that it writes there. All patterns are whole.

    The matches of a rule are those of iptables, without comment; those of nft are put in the same words.
    """

    chain: str  # pattern of its name
    table: str = IPTABLES_NAT  # pattern of the family and the name of its table
    has: tuple[str, ...] = ()  # patterns: the rule has a match like each of these
    may: tuple[str, ...] = ()  # patterns: it has no other match, but those of ``has``
    to: str = _ANYTHING  # pattern of what it translates to; "" is the address of the device, with any port
    comment: str = _ANYTHING  # pattern of its comment, "" if it has none
    with_chain: str = ""  # a table and a chain without which this proves nothing
    # Likewise, pattern of the rule, a newline and the SNAT rule before or behind; another kind of rule may
    # be between the two.
    next_to: str = ""

    def fits(self, matches: Sequence[str], to: str, comment: str) -> bool:
        """Whether a rule of such a chain reads as the program writes it."""
        if len(matches) < len(self.has) or (len(matches) > len(self.has) and not self.may):
            return False  # most rules are not this program's, and this is the quickest way to tell
        return (
            (self.comment == _ANYTHING or bool(re.fullmatch(self.comment, comment, re.DOTALL)))
            and (self.to == _ANYTHING or bool(re.fullmatch(self.to, to)))
            and all(any(re.fullmatch(pattern, match) for match in matches) for pattern in self.has)
            and (self.may == ANY or all(self._knows(match) for match in matches))
        )

    def _knows(self, match: str) -> bool:
        return any(re.fullmatch(pattern, match, re.DOTALL) for pattern in (*self.has, *self.may))


MARKS: dict[RuleOwner, tuple[Mark, ...]] = {
    # kubernetes v1.30: pkg/proxy/iptables, ipvs, nftables/proxier.go; kubelet wrote the same until v1.27.
    RuleOwner.kube_proxy: (
        Mark(chain="KUBE-POSTROUTING", may=(_MARK, r"--match-set KUBE-(6-)?LOOP-BACK \S+")),
        Mark(chain="POSTROUTING", has=(_MARK,), comment="kubernetes service traffic requiring SNAT"),
        Mark(table="ip6? kube-proxy", chain="masquerading", may=(_MARK,)),
    ),
    # flannel v0.26: pkg/trafficmngr/iptables, nftables; in POSTROUTING until v0.19, without a comment until
    # v0.12 (seen).
    RuleOwner.flannel: (
        Mark(chain="FLANNEL-POSTRTG", may=_NETWORKS, comment="flanneld masq"),
        Mark(chain="POSTROUTING", has=(_FROM,), may=_NETWORKS, comment="flanneld masq"),
        Mark(chain="POSTROUTING", may=_NETWORKS, has=(r"! -s \S+", r"-d \S+"), comment="flanneld masq"),
        Mark(
            chain="POSTROUTING",
            has=(_FROM, r"! -d 224\.0\.0\.0/4"),
            comment="",
            next_to=_FLANNEL_PAIR[0],
        ),
        Mark(
            chain="POSTROUTING",
            has=(r"! -s \S+", r"-d \S+"),
            comment="",
            next_to=_FLANNEL_PAIR[1],
        ),
        Mark(table="ip flannel-ipv4|ip6 flannel-ipv6", chain="postrtg", may=ANY),
    ),
    # calico v3.29: felix/rules/nat.go, static.go; felix/fv/nft_*.go for the names in nft.
    RuleOwner.calico: (
        Mark(chain="cali-(nat-outgoing|POSTROUTING|fip-snat)", may=ANY, comment=r"cali:[\w-]{16}"),
        Mark(table="ip6? calico", chain="nat-cali-(nat-outgoing|POSTROUTING|fip-snat)", may=ANY),
    ),
    # ip-masq-agent v2.12: cmd/ip-masq-agent/ip-masq-agent.go; GKE calls the chain IP-MASQ (--masq-chain).
    RuleOwner.ip_masq_agent: (
        Mark(chain="IP-MASQ(-AGENT)?", comment="ip-masq-agent: outbound traffic .*"),
    ),
    # kubernetes v1.30: cluster/gce/gci/configure-helper.sh; kops v1.30: nodeup/pkg/model/containerd.go.
    RuleOwner.node_script: (Mark(chain="IP-MASQ", comment="ip-masq: outbound traffic .*"),),
    # amazon-vpc-cni-k8s v1.18: pkg/networkutils/network.go; in POSTROUTING until v1.1.
    RuleOwner.aws_vpc_cni: (
        Mark(
            chain=r"AWS-SNAT-CHAIN-\d+",
            has=("! --dst-type LOCAL",),
            may=(r"! -o vlan\+",),
            to=r"\S+",
            comment="AWS, SNAT",
        ),
        Mark(
            chain="POSTROUTING",
            has=(r"! -d \S+", "! --dst-type LOCAL"),
            to=r"\S+",
            comment="AWS, SNAT",
        ),
    ),
    # cilium v1.16: pkg/datapath/iptables/iptables.go; CILIUM_POST until v1.6.
    RuleOwner.cilium: (
        Mark(
            chain="(OLD_)?CILIUM_POST(_nat)?",
            may=ANY,
            comment="(cilium (.* )?(masquerade|snat)|hairpin traffic)( .*)?",
        ),
    ),
    # antrea v2.2: pkg/agent/route/route_linux.go.
    RuleOwner.antrea: (Mark(chain="ANTREA-POSTROUTING", may=ANY, comment="Antrea: .+"),),
    # kube-router v2.1: pkg/controllers/routing/pod_egress.go, proxy/network_services_controller.go.
    RuleOwner.kube_router: (
        Mark(
            chain="POSTROUTING",
            has=("--match-set (inet6:)?kube-router-pod-subnets src",),
            may=(r"! --match-set (inet6:)?kube-router-\S+ dst",),
        ),
        Mark(
            chain="POSTROUTING",
            has=("--ipvs", "--vdir ORIGINAL", "--vmethod MASQ"),
            may=(r"! -[sd] \S+",),
            comment="",
            with_chain="filter KUBE-ROUTER-SERVICES",
        ),
        Mark(chain="KUBE-ROUTER-HAIRPIN", has=(_FROM, "--ipvs"), may=ANY),
    ),
    # containernetworking/plugins v1.6: plugins/meta/portmap/portmap_iptables.go, portmap_nftables.go.
    RuleOwner.cni_portmap: (
        Mark(chain="CNI-HOSTPORT-(MASQ|SNAT)", has=(_MARK,)),
        Mark(chain="CNI-SN-[0-9a-f]{21}", has=(_FROM, r"-d \S+"), may=ANY),
        Mark(table="ip6? cni_hostport", chain="masquerading", may=ANY),
    ),
    # containernetworking/plugins v1.6: pkg/ip/ipmasq_iptables_linux.go, ipmasq_nftables_linux.go.
    RuleOwner.cni_bridge: (
        Mark(chain="CNI-[0-9a-f]{24}", has=(_NOT_MULTICAST,), comment='name: ".*" id: ".*"'),
        Mark(table="inet cni_plugins_masquerade", chain="masq_checks", may=ANY),
    ),
    # netavark v1.12: src/firewall/varktables/types.rs, nft.rs.
    RuleOwner.netavark: (
        Mark(chain="NETAVARK-HOSTPORT-MASQ", has=(_MARK,)),
        Mark(chain="NETAVARK-[0-9A-F]{13}", has=(_NOT_MULTICAST,)),
        Mark(table="inet netavark", chain="POSTROUTING", has=(_MARK,)),
        Mark(table="inet netavark", chain="nv_.+", may=ANY),
    ),
    # libvirt v10.8: src/network/network_iptables.c, network_nftables.c; in POSTROUTING until v5.0 (seen).
    RuleOwner.libvirt: (
        Mark(chain="LIBVIRT_PRT", has=(_FROM, r"! -d \S+"), may=("-p (tcp|udp)",)),
        Mark(
            chain="POSTROUTING",
            has=(_FROM, r"! -d \S+"),
            may=("-p (tcp|udp)",),
            to="(1024-65535)?",
            comment="",
            next_to=_LIBVIRT_PAIR,
        ),
        Mark(table="ip6? libvirt_network", chain="guest_nat", may=ANY),
    ),
    # firewalld v2.2: src/firewall/core/ipXtables.py, nftables.py.
    RuleOwner.firewalld: (
        Mark(chain="POST_.+_(pre|allow|post)", has=("! -o lo",), may=ANY),
        Mark(chain="POST_.+_allow"),  # seen
        Mark(
            table="(inet|ip|ip6) firewalld",
            chain="nat_POST_.+_(pre|allow|post)",
            has=("! -o lo",),
            may=ANY,
        ),
    ),
    # incus v6.6: internal/server/firewall/drivers/drivers_xtables.go, drivers_nftables_templates.go.
    RuleOwner.incus: (
        Mark(
            chain="POSTROUTING",
            has=(_FROM,),
            may=ANY,
            comment=r"generated for (Incus|LXD) network(-forward|-load-balancer)? \S+",
        ),
        Mark(table="(inet|ip|ip6) (incus|lxd)", chain=r"(fwd)?pstrt\..+", has=(_FROM,), may=ANY),
    ),
    # tailscale v1.76: util/linuxfw/iptables_runner.go, nftables_runner.go.
    RuleOwner.tailscale: (Mark(chain="ts-postrouting", has=(_MARK,)),),
    # weave v2.8: net/expose.go, net/bridge.go; the bridge weave has no IPv6.
    RuleOwner.weave: (Mark(table="ip nat", chain="WEAVE", has=(r"(! )?-s \S+",), may=_NETWORKS),),
    # ovn-kubernetes, December 2025: go-controller/pkg/node/gateway_iptables.go, gateway_nftables.go,
    # managementport/, controllers/egressip/. A rule for the pods of a node bears no mark of its own; next
    # to it stands the one for OVN's own masquerade address: getLocalGatewayNATRules().
    RuleOwner.ovn_kubernetes: (
        Mark(chain="OVN-KUBE-SNAT-MGMTPORT", has=(r"-o ovn-k8s-mp\d+",)),
        Mark(chain="OVN-KUBE-EGRESS-IP-(MULTI-NIC|Multi-NIC)", has=(_FROM, r"-o \S+")),
        Mark(chain="OVN-KUBE-(EGRESS-SVC|UDN-MASQUERADE)", may=ANY),
        Mark(
            chain="POSTROUTING",
            has=(f"-s {_OVN_OWN}",),
            to="",
            comment="",
            with_chain="nat OVN-KUBE-SNAT-MGMTPORT",
        ),
        Mark(
            chain="POSTROUTING",
            has=(_FROM,),
            to="",
            comment="",
            with_chain="nat OVN-KUBE-SNAT-MGMTPORT",
            next_to=rf".*\n-A POSTROUTING -s {_OVN_OWN} -j MASQUERADE.*",
        ),
        Mark(
            table="inet ovn-kubernetes",
            chain="mgmtport-snat|egress-services|ovn-kube-(local-gw|pod-subnet|udn)-masq",
            may=ANY,
        ),
    ),
    # kube-ovn v1.13: pkg/daemon/gateway_linux.go; gateway_nft_linux.go of the main branch.
    RuleOwner.kube_ovn: (
        Mark(
            chain="OVN-(POSTROUTING|MASQUERADE|NAT-POLICY|NAT-PSUBNET-.+)",
            may=(
                _MARK,
                r"-[spo] \S+",
                r"(! )?--match-set ovn[46]0\S+ \S+",
                r"--(tcp-flags|ctstate|ctdir|ctorigdst) .*",
            ),
        ),
        Mark(
            table="ip6? kube-ovn",
            chain="nat-(host-service|postrouting|policy)|nodeport-local-action",
            may=ANY,
        ),
    ),
    # netbird, November 2025: client/firewall/iptables, nftables/router_linux.go; netbird-rt-nat before.
    RuleOwner.netbird: (
        Mark(chain="NETBIRD-RT-NAT", may=ANY),
        Mark(table="ip6? netbird", chain="netbird-rt-(nat|postrouting)", may=ANY),
    ),
    # OpenWrt 23.05: firewall4, root/usr/share/firewall4/templates/zone-masq.uc; fw3 until 21.02 (seen).
    RuleOwner.openwrt: (
        Mark(table="inet fw4", chain="srcnat(_.+)?", may=ANY, comment="!fw4: .+"),
        Mark(chain=r"zone_\w+_postrouting", may=ANY, comment="!fw3(: .+)?"),
    ),
    # neutron 2024.2: neutron/agent/l3/router_info.py, linux/iptables_manager.py, which names its chains
    # after the first 16 letters of the agent.
    RuleOwner.neutron: (
        Mark(
            chain="neutron-(l3-agent|linuxbri|openvswi|vpn-agen|ovn-vpn-|metering)-(float-)?snat",
            may=ANY,
            to=r"\S+",
        ),
    ),
    # rancher/plugin-manager, the last one: hostnat/, hostports/; CATTLE_POSTROUTING before (seen).
    RuleOwner.rancher: (
        Mark(
            chain="CATTLE_(NAT_|HOSTPORTS_)?POSTROUTING",
            may=(
                *_NETWORKS,
                r"(! )?-o \S+",
                "-p (tcp|udp)",
                _MARK,
                "! --match-set RANCHER_DISABLE_HOST_NAT_IPSET dst",
                "--src-type LOCAL",
                "--dst-type UNICAST",
            ),
        ),
    ),
    # kubernetes v1.23: pkg/kubelet/dockershim/network/kubenet/kubenet_linux.go, the last one.
    RuleOwner.kubenet: (
        Mark(
            chain="POSTROUTING",
            has=(r"! -d \S+", "! --dst-type LOCAL"),
            comment="kubenet: SNAT for outbound traffic from cluster",
        ),
    ),
    # kind v0.24: images/kindnetd/cmd/kindnetd/masq.go.
    RuleOwner.kindnet: (Mark(chain="KIND-MASQ-AGENT", comment="kind-masq-agent: outbound traffic .*"),),
    # openshift/sdn 4.14: pkg/network/node/iptables.go.
    RuleOwner.openshift_sdn: (
        Mark(chain="OPENSHIFT-MASQUERADE", has=(_FROM,), may=(r"! -d \S+", _MARK)),
        Mark(chain="OPENSHIFT-MASQUERADE-2"),
    ),
    # NetworkManager 1.50: src/core/nm-firewall-utils.c (seen).
    RuleOwner.network_manager: (
        Mark(table="ip6? nm-shared-.+", chain="nat_postrouting", has=(_FROM, r"! -d \S+")),
        Mark(chain="POSTROUTING", has=(_FROM, r"! -d \S+"), comment="nm-shared-.+"),
    ),
    # systemd 256: src/shared/firewall-util-nft.c.
    RuleOwner.systemd: (Mark(table="ip6? io.systemd.nat", chain="postrouting", has=("-s @masq_saddr",)),),
    # vyos-1x 1.4: python/vyos/nat.py; table nat until 1.3 (seen).
    RuleOwner.vyos: (
        Mark(
            table="ip6? (vyos_(static_)?nat|nat)",
            chain="POSTROUTING",
            may=ANY,
            comment=r"(STATIC-)?SRC-NAT(66)?-\d+",
        ),
    ),
    # shorewall 5.2: Perl/Shorewall/Chains.pm, Compiler.pm. The empty chain says that it is started. What
    # its optimiser moves into POSTROUTING bears no mark.
    RuleOwner.shorewall: (Mark(chain=r"\S+_masq", may=ANY, with_chain="filter shorewall"),),
    # moby v29: daemon/libnetwork/drivers/bridge, service_linux.go (the network namespace of ingress),
    # resolver_unix.go (that of a container). It marks nothing in POSTROUTING, but names the devices of its
    # networks, and makes its chains. Where it is told to leave iptables alone, people write the same rules.
    RuleOwner.docker: (
        Mark(
            chain="POSTROUTING",
            has=(_FROM, f"! -o {_DOCKER_DEVICE}"),
            comment="",
            with_chain="nat DOCKER",
        ),
        Mark(
            chain="POSTROUTING",
            has=(f"-o {_DOCKER_DEVICE}", "--src-type LOCAL"),
            may=(_FROM,),
            comment="",
            with_chain="nat DOCKER",
        ),
        Mark(
            chain="POSTROUTING",
            has=(r"-d \S+", "--ipvs"),
            to=r"\S+",
            comment="",
            with_chain="nat DOCKER_POSTROUTING",
        ),
        Mark(chain="DOCKER_POSTROUTING", has=(r"-s 127\.0\.0\.11(/32)?",), may=ANY),
        Mark(table="ip6? docker-bridges", chain="nat-postrouting-(in|out)__.+", may=ANY),
    ),
}
