"""What ``doctor`` finds, and what ``mitigate`` changes, as JSON has it.

Everything here is data. The sentences that people read are made of it in ``report/wording/findings.py``.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

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

    EXPOSED = "exposed"
    UNKNOWN = "unknown"
    WARNING = "warning"
    OK = "ok"


class Check(StrEnum):
    """What was looked at. Behind each: the values of its finding."""

    SNAT_RULE = "snat_rule"  # no values, but the field ``rule``
    RULES = "rules"  # no values, but the field ``unreadable``; if that is empty, there is no SNAT rule
    NAMESPACE = "namespace"  # name, device: a container's only device
    KERNEL = "kernel"  # version
    SYN_RETRANSMISSION = "syn_retransmission"  # waits_s: before each of the first retransmits
    CONNTRACK = "conntrack"  # no values: it is not loaded
    CONNTRACK_TABLE = "conntrack_table"  # entries, max, advised_max
    CONNTRACK_BUCKETS = "conntrack_buckets"  # buckets, max: the most entries
    CONNTRACK_TIMEOUTS = "conntrack_timeouts"  # close_s, time_wait_s, established_s
    CLIENT_PORTS = "client_ports"  # low, high: both inclusive
    ACCEPT_QUEUE = "accept_queue"  # somaxconn
    OPEN_FILES = "open_files"  # soft, hard: limits; -1 is none
    CPUS = "cpus"  # usable, workers: planned
    CLOCK_SOURCE = "clock_source"  # name: "" if the kernel does not say
    VXLAN_CHECKSUM_OFFLOAD = "vxlan_checksum_offload"  # devices
    OTHER = "other"  # of a file of version 1: see ``Finding.old_words``


class RuleOwner(StrEnum):
    """The program that wrote a rule, and writes it again; the value is its name for people."""

    KUBE_PROXY = "kube-proxy"
    FLANNEL = "flannel"
    CALICO = "Calico"
    IP_MASQ_AGENT = "ip-masq-agent"
    AWS_VPC_CNI = "AWS VPC CNI"
    CILIUM = "Cilium"
    ANTREA = "Antrea"
    KUBE_ROUTER = "kube-router"
    CNI_PORTMAP = "CNI portmap"
    CNI_BRIDGE = "CNI bridge or ptp"
    NETAVARK = "Podman (netavark)"
    LIBVIRT = "libvirt"
    FIREWALLD = "firewalld"
    INCUS = "Incus or LXD"
    TAILSCALE = "Tailscale"
    DOCKER = "Docker"
    UNKNOWN = "an unknown program or person"


class NotExposed(StrEnum):
    """Why a SNAT rule cannot lose SYNs to the race."""

    RANDOM_PORTS = "random_ports"
    ADDRESS_PER_CLIENT = "address_per_client"
    UNREACHABLE_CHAIN = "unreachable_chain"
    NO_PORTS = "no_ports"
    CLIENT_REACHES_ITSELF = "client_reaches_itself"
    SINGLE_CLIENT = "single_client"
    SINGLE_PORT = "single_port"
    PORTS_APART = "ports_apart"


class Unchangeable(StrEnum):
    """Why ``mitigate`` leaves an exposed rule as it is."""

    TABLE_HAS_OWNER = "table_has_owner"
    COMMENT_NOT_UTF8 = "comment_not_utf8"


class UnreadableReason(StrEnum):
    """Why some rules could not be looked into. Behind each: what ``Unreadable.details`` holds."""

    NO_TOOL = "no_tool"  # nothing
    TOOL_FAILED = "tool_failed"  # what the tool said
    NOT_ONE_LINE = "not_one_line"  # the rules, or where they are
    NO_IPTABLES = "no_iptables"  # the chains, of nft, that iptables has written
    NO_LEGACY_IPTABLES = "no_legacy_iptables"  # the loaded tables
    NO_NFT = "no_nft"  # nothing: iptables calls table nat incompatible


class ChainAddress(Model):
    """Which chain of which tool."""

    tool: ToolName
    family: str  # ip, ip6 or, of nft only, inet
    table: str
    chain: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Family, table and name of the chain."""
        return self.family, self.table, self.chain

    def __str__(self) -> str:
        # The name of an iptables begins with its family already; nft's does not.
        family = "" if self.tool.startswith(self.family) else f" {self.family}"
        return f"{self.tool}{family} {self.table} {self.chain}"


class ExaminedRule(Model):
    """What ``doctor`` says of one SNAT rule. It is exposed if there is no reason why not."""

    address: ChainAddress
    text: str  # as its tool prints it
    owner: RuleOwner
    not_exposed: NotExposed | None = None
    unchangeable: Unchangeable | None = None
    ports: tuple[int, int] | None = None  # that the rule may give to clients, both inclusive; None is any
    client_ports: tuple[int, int]  # from which clients connect, both inclusive


class Unreadable(Model):
    """Rules that could not be looked into."""

    reason: UnreadableReason
    tool: str = ""  # which could not, or is wanted; "" if none is here
    details: tuple[str, ...] = ()


class OldWords(Model):
    """A finding as schema version 1 had it: in sentences."""

    check: str
    evidence: str
    advice: str = ""


class Finding(Model):
    """One thing that was looked at."""

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, document: Any) -> Any:  # noqa: ANN401 - JSON
        """Take a finding of schema version 1 too: level, check, evidence and advice, all in words."""
        if not isinstance(document, dict) or "evidence" not in document:
            return document
        words = {name: document[name] for name in ("check", "evidence", "advice") if name in document}
        return {"level": document.get("level"), "check": Check.OTHER, "old_words": words}

    level: Level
    check: Check
    values: dict[str, Value] = {}  # what was read: see the members of ``Check``
    rule: ExaminedRule | None = None  # for ``Check.SNAT_RULE``
    unreadable: tuple[Unreadable, ...] = ()  # for ``Check.RULES``
    old_words: OldWords | None = None  # for ``Check.OTHER``


class DoctorResult(Result):
    """A run of ``doctor``. ``sysctls``: those that shape losses and measurements."""

    kind: Literal["doctor"] = "doctor"
    sysctls: dict[str, str]
    findings: list[Finding]

    def has(self, level: Level) -> bool:
        """Whether there is any finding of this level."""
        return any(finding.level == level for finding in self.findings)


class Change(Model):
    """One rule that was replaced: ``old`` as it was, ``new`` without what its counters count.

    ``nth``: which of the ``copies`` rules of its chain that read like ``new``, counted from 0.
    """

    tool: ToolName
    family: OneLine
    table: OneLine
    chain: OneLine
    old: OneLine
    new: OneLine
    nth: int
    copies: int

    @property
    def address(self) -> ChainAddress:
        """The chain that the rule is in."""
        return ChainAddress(tool=self.tool, family=self.family, table=self.table, chain=self.chain)


class Undo(Model):
    """What ``mitigate --apply`` changed, or was about to, in the network namespace of inode ``netns``,
    and a dump of all rules as they were before.
    """

    # Its own, not that of results: undo files have not changed, and any version can revert any.
    schema_version: Literal[1] = 1
    kind: Literal["undo"] = "undo"
    written_at: str
    environment: dict[str, Any]
    netns: int
    changes: list[Change] = Field(min_length=1)
    dumps: dict[str, str]
