"""What ``doctor`` finds, and what ``mitigate`` changes, as JSON has it.

Everything here is data. The sentences that people read are made of it in ``report/wording/findings.py``.
"""

from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from snat_race.results.model import Model, Result

ToolName = Literal[
    "iptables",
    "iptables-nft",
    "iptables-legacy",
    "ip6tables",
    "ip6tables-nft",
    "ip6tables-legacy",
    "nft",
]
OWN_NAMESPACE = "this namespace"  # what ``spec.netns`` says of a process's own
OneLine = Annotated[str, Field(pattern=r"^[^\r\n]*$")]
Value = int | str | list[int] | list[str]


class Level(StrEnum):
    """How bad a finding is, the worst first."""

    exposed = "exposed"
    unknown = "unknown"
    warning = "warning"
    ok = "ok"


class Check(StrEnum):
    """What was looked at. Behind each: the values of its finding."""

    snat_rule = "snat_rule"  # no values, but the field ``rule``
    rules = "rules"  # no values, but the field ``unreadable``; if that is empty, there is no SNAT rule
    ipsets = "ipsets"  # sets: that exposed rules ask for and that could not be read; said: why not
    namespace = "namespace"  # name, device: a container's only device
    # version, differs: of shared_search, resolved_counted, drop_uncounted, those that are so
    kernel = "kernel"
    syn_retransmission = "syn_retransmission"  # waits_s: before each of the first retransmits
    # insert_failed, drop: since the host booted, or the namespace began
    clashes = "clashes"
    conntrack = "conntrack"  # no values: it is not loaded
    conntrack_table = "conntrack_table"  # entries, max, advised_max
    conntrack_buckets = "conntrack_buckets"  # buckets, max: the most entries
    conntrack_timeouts = "conntrack_timeouts"  # close_s, time_wait_s, established_s
    client_ports = "client_ports"  # low, high: both inclusive
    accept_queue = "accept_queue"  # somaxconn
    open_files = "open_files"  # soft, hard: limits; -1 is none
    cpus = "cpus"  # usable, workers: planned
    clock_source = "clock_source"  # name: "" if the kernel does not say
    vxlan_checksum_offload = "vxlan_checksum_offload"  # devices, of_vendor: 1, or 0
    dns_clashes = "dns_clashes"  # servers: that DNAT sends the queries of one socket to
    other = "other"  # of a file of version 1: see ``Finding.recorded``


class RuleOwner(StrEnum):
    """The program that wrote a rule, and writes it again; the value is its name for people."""

    kube_proxy = "kube-proxy"
    flannel = "flannel"
    calico = "Calico"
    ip_masq_agent = "ip-masq-agent"
    aws_vpc_cni = "AWS VPC CNI"
    cilium = "Cilium"
    antrea = "Antrea"
    kube_router = "kube-router"
    cni_portmap = "CNI portmap"
    cni_bridge = "CNI bridge or ptp"
    netavark = "Podman (netavark)"
    libvirt = "libvirt"
    firewalld = "firewalld"
    incus = "Incus or LXD"
    tailscale = "Tailscale"
    docker = "Docker"
    node_script = "a Kubernetes node's setup script"
    weave = "Weave Net"
    ovn_kubernetes = "OVN-Kubernetes"
    kube_ovn = "Kube-OVN"
    netbird = "NetBird"
    openwrt = "OpenWrt's firewall"
    neutron = "OpenStack Neutron"
    rancher = "Rancher 1.x"
    kubenet = "kubenet"
    kindnet = "kindnet"
    openshift_sdn = "OpenShift SDN"
    network_manager = "NetworkManager"
    systemd = "systemd-networkd or nspawn"
    vyos = "VyOS"
    shorewall = "Shorewall"
    unknown = "an unknown program or person"


class NotExposed(StrEnum):
    """Why a SNAT rule cannot lose SYNs to the race."""

    random_ports = "random_ports"
    address_per_client = "address_per_client"
    unreachable_chain = "unreachable_chain"
    no_ports = "no_ports"
    client_reaches_itself = "client_reaches_itself"
    single_client = "single_client"
    tuples_apart = "tuples_apart"
    single_port = "single_port"
    ports_apart = "ports_apart"
    behind_another = "behind_another"
    loop_back_set = "loop_back_set"
    tcp_draws_ports = "tcp_draws_ports"


class Unchangeable(StrEnum):
    """Why ``mitigate`` leaves an exposed rule as it is."""

    table_has_owner = "table_has_owner"
    comment_not_utf8 = "comment_not_utf8"
    ruleset_not_understood = "ruleset_not_understood"
    text_is_ambiguous = "text_is_ambiguous"
    in_anonymous_chain = "in_anonymous_chain"
    iptables_does_not_print = "iptables_does_not_print"
    not_for_tcp_alone = "not_for_tcp_alone"  # by --tcp-only


class UnreadableReason(StrEnum):
    """Why some rules could not be looked into. Behind each: what ``Unreadable.details`` holds."""

    no_tool = "no_tool"  # nothing
    tool_failed = "tool_failed"  # what the tool said
    not_one_line = "not_one_line"  # the rules, or where they are
    not_understood = "not_understood"  # where the rules are
    no_iptables = "no_iptables"  # the chains, of nft, that iptables has written
    nft_among_iptables = "nft_among_iptables"  # the rules of nft in a table of iptables
    no_legacy_iptables = "no_legacy_iptables"  # the loaded tables
    no_nft = "no_nft"  # nothing: iptables calls table nat incompatible
    no_result = "no_result"  # nothing: of a fleet's host, whose file is empty


class ChainAddress(Model):
    """Which chain of which tool."""

    tool: ToolName
    """The tool that prints the chain, and loads its rules."""
    family: str
    """ip, ip6 or, of nft only, inet and others."""
    table: str
    """The table that the chain is in."""
    chain: str
    """The chain's own name."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Family, table and name of the chain."""
        return self.family, self.table, self.chain

    def __str__(self) -> str:
        # The name of an iptables begins with its family already; nft's does not.
        family = "" if self.tool.startswith(self.family) else f" {self.family}"
        return f"{self.tool}{family} {self.table} {self.chain}"


class ExaminedRule(Model):
    """One SNAT rule. It is exposed if there is no reason why not."""

    address: ChainAddress
    """The chain that the rule is in."""
    text: str
    """The rule as its tool prints it."""
    owner: RuleOwner
    """Who wrote it, as far as can be told by its marks."""
    not_exposed: NotExposed | None = None
    """Why it cannot lose SYNs to the race; null: it can."""
    unchangeable: Unchangeable | None = None
    """Why ``mitigate`` does not change it; null: it can."""
    ports: tuple[int, int] | None = None
    """The ports that it may give to clients, the lowest and the highest; null: any."""
    client_ports: tuple[int, int]
    """The ports that clients connect from, the lowest and the highest."""
    gets_tcp: bool = True
    """Whether connections of TCP can come to it; else only packets of UDP and others are lost."""


class Unreadable(Model):
    """Rules that could not be looked into."""

    reason: UnreadableReason
    """Why not."""
    tool: str = ""
    """The tool that could not read them, or that is wanted; "": none is here."""
    details: tuple[str, ...] = ()
    """Which rules, chains or tables, or what the tool said: see the members of ``UnreadableReason``."""


class RecordedFinding(Model):
    """The words of a file of version 1, which held no evidence as data."""

    check: str
    """What was looked at."""
    evidence: str
    """What the file says of it."""
    advice: str = ""
    """What the file says is to be done; "": nothing."""


class Finding(Model):
    """One thing that was looked at."""

    level: Level
    """How bad it is."""
    check: Check
    """What was looked at."""
    values: dict[str, Value] = {}
    """What was read there, by name: see the members of ``Check``."""
    rule: ExaminedRule | None = None
    """The rule, if the check is snat_rule."""
    unreadable: tuple[Unreadable, ...] = ()
    """What could not be looked into, if the check is rules."""
    recorded: RecordedFinding | None = None
    """The words of a file of version 1; null: written by this version."""


class DoctorResult(Result):
    """A run of ``doctor``."""

    kind: Literal["doctor"] = "doctor"
    """The kind of this result."""
    host: str = ""
    """Name of the host, as its kernel has it; "": a file that does not say."""
    sysctls: dict[str, str]
    """Settings that shape losses and measurements, by their full names."""
    findings: list[Finding]
    """Everything that was looked at, good things too."""

    def has(self, level: Level) -> bool:
        """Whether there is any finding of this level."""
        return any(finding.level == level for finding in self.findings)


@lru_cache(maxsize=1)  # changes of a chain follow one another, and a file may hold 10,000
def _address(tool: ToolName, family: str, table: str, chain: str) -> ChainAddress:
    return ChainAddress(tool=tool, family=family, table=table, chain=chain)


class Change(Model):
    """One rule that was replaced, or that got one for TCP in front of it."""

    tool: ToolName
    """The tool that printed and loaded the rule."""
    family: OneLine
    """Of the chain; see ``ChainAddress``."""
    table: OneLine
    """Of the chain."""
    chain: OneLine
    """The chain's own name."""
    old: OneLine
    """The rule as it was."""
    new: OneLine
    """The rule as it is now, or the one in front of it, without what its counters have counted."""
    added: bool = False
    """Whether ``new`` was put in front of ``old``, which is still there."""
    nth: int = Field(ge=0)
    """Which of the ``copies`` it is, counted from 0."""
    copies: int = Field(ge=1)
    """How many rules of its chain read like ``new``."""

    @model_validator(mode="after")
    def _nth_is_one_of_the_copies(self) -> Self:
        if self.nth >= self.copies:
            raise ValueError("'nth' is not one of the 'copies'")
        return self

    @property
    def address(self) -> ChainAddress:
        """The chain that the rule is in."""
        return _address(self.tool, self.family, self.table, self.chain)


class Undo(Model):
    """What ``mitigate`` changed, or was about to, and a dump of all rules as they were before."""

    schema_version: Literal[1] = 1
    """Its own, not that of results. An older version refuses changes that it does not make itself."""
    kind: Literal["undo"] = "undo"
    """The kind of this file."""
    written_at: str
    """When, as ISO 8601 in UTC."""
    environment: dict[str, Any]
    """The machine and its software."""
    netns: int
    """The inode of the network namespace that the rules are in."""
    changes: list[Change] = Field(min_length=1, max_length=100_000)
    """What to undo."""
    dumps: dict[str, str]
    """What each tool printed before, by its name; for people, in need."""
