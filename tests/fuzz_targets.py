"""All parsers of the package, each with a few right inputs: ``fuzz_<name>`` takes a text that somebody
else has written, and does with it what the program does.

A target may raise errors of ``snat_race.errors`` with a message of one line, and nothing else.
``test_fuzz.py`` runs them for seconds, ``scripts/fuzz.py`` for as long as one likes.
"""

import json
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from snat_race.analysis.host_checks import Host, checkup
from snat_race.errors import EnvironmentLacks
from snat_race.kernel import counters, host, netns_lookup
from snat_race.rules.exposure import HostTraits, judged
from snat_race.rules.nft_list import NftList
from snat_race.rules.owners import owner_of
from tests.fuzzing import target


def seed(name: str) -> str:
    """Return a file of right input."""
    return (Path(__file__).parent / "fuzz_seeds" / name).read_text()


# ---- the kernel's counters and settings


@target(
    "entries  searched found new invalid ignore delete delete_list insert insert_failed drop early_drop "
    "icmp_error  expect_new expect_create expect_delete search_restart\n"
    "0000005a  00000000 00000003 00000000 00000000 00000007 00000000 00000000 00000000 0000000c 0000000c "
    "00000000 00000000  00000000 00000000 00000000 00000001\n",
    "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop "
    "icmp_error  expect_new expect_create expect_delete search_restart\n"
    "0 0 3 0 0 7 0 0 0 c c 0 0 0 0 0 1\n0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 ffffffff\n",
)
def fuzz_proc_conntrack(text: str) -> None:
    counters.parse_stat(text)


NETSTAT = """TcpExt: SyncookiesSent TCPTimeouts ListenDrops
TcpExt: 3 4 -1
IpExt: InNoRoutes InOctets
IpExt: 0 18446744073709551615
"""
SNMP = """Ip: Forwarding DefaultTTL OutNoRoutes
Ip: 1 64 0
Icmp: InMsgs InDestUnreachs
Icmp: 0 0
Tcp: RtoAlgorithm MaxConn RetransSegs
Tcp: 1 -1 5
"""


@target(NETSTAT + SNMP)
def fuzz_proc_netstat(text: str) -> None:
    before = counters.parse_tcp(NETSTAT + SNMP)
    after = counters.tcp_only(counters.parse_tcp(text))
    after.since(counters.tcp_only(before), netns="here")


STAT = "entries insert_failed drop\n0 1 2\n3 4 5\n"


@target(f"{STAT}---{STAT}")
def fuzz_two_snapshots(text: str) -> None:
    """What a later reading may hold, whatever an earlier one did."""
    before, _, after = text.partition("---")
    snapshots = [
        counters.Snapshot(conntrack=counters.parse_stat(half), tcp={}, count=0, max=0)
        for half in (before, after)
    ]
    snapshots[1].since(snapshots[0], netns="here")


class Row(dict[str, Any]):
    """A reply of conntrack's netlink, as pyroute2 has it."""

    def get_attr(self, name: str) -> object:
        return self.get(name)


ROWS = [
    {"res_id": 0, "CTA_STATS_INSERT_FAILED": 1, "CTA_STATS_DROP": 2, "CTA_STATS_FOUND": 3},
    {"res_id": 1, "CTA_STATS_INSERT_FAILED": 0, "CTA_STATS_DROP": 0, "CTA_STATS_FOUND": 0},
]


@target(json.dumps(ROWS))
def fuzz_netlink_stat(text: str) -> None:
    with suppress(ValueError):
        rows = json.loads(text)
        if isinstance(rows, list):
            counters.parse_netlink_stat([Row(row) for row in rows if isinstance(row, dict)])


@target("4096", "32768\t60999", "tsc", "6.5.13-generic", "")
def fuzz_proc_values(text: str) -> None:
    """One text in place of every file of /proc and /sys that holds a value."""
    with patch.object(host, "proc_text", lambda _: text), patch.object(platform, "release", lambda: text):
        settings = host.sysctls(netns_lookup.here())
        version, clock = host.kernel_version(), host.clock_source()
        with suppress(EnvironmentLacks):
            host.local_port_range()
        with suppress(EnvironmentLacks):
            counters.parse_number(Path("/proc/any"))
    facts = Host(
        kernel=version,
        sysctls=settings,
        usable_cpus=1,
        workers=0,
        open_files=(1, 1),
        clock_source=clock,
        checksumming_vxlans=("vxlan0",),
    )
    list(checkup(facts))


# ---- rules

NFT_TEXT, NFT_JSON = seed("nft.txt"), seed("nft.json")


def looked_into(nft: NftList) -> None:
    """Do with a ruleset of nft what ``doctor`` and ``mitigate`` do."""
    for rule in judged(nft.snat_rules, HostTraits()):
        owner_of(rule)
        NftList.cured(rule.text)
    for read in (nft.broken, nft.not_understood, nft.written_by_iptables):
        assert isinstance(read, list | set)


@target(NFT_JSON)
def fuzz_nft_json(text: str) -> None:
    looked_into(NftList("nft", NFT_TEXT, text))


@target(NFT_TEXT)
def fuzz_nft_text(text: str) -> None:
    looked_into(NftList("nft", text, NFT_JSON))
    NftList.json_commands_without_flags("nft", text)


# ---- add targets above this line, in the section that they belong to
