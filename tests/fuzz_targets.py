"""All parsers of the package, each with a few right inputs: ``fuzz_<name>`` takes a text that somebody
else has written, and does with it what the program does.

A target may raise errors of ``snat_race.errors`` with a message of one line, and nothing else.
``test_fuzz.py`` runs them for seconds, ``scripts/fuzz.py`` for as long as one likes.
"""

import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from snat_race.analysis.host_checks import Host, checkup
from snat_race.cli import arguments, parsing
from snat_race.errors import EnvironmentLacks, SnatRaceError, UsageError
from snat_race.kernel import counters, host, netns_lookup
from snat_race.lab.variants import variant_named, variant_of_command, variant_of_file
from snat_race.load.endpoint import Endpoint
from snat_race.report.document import Check, CheckList
from snat_race.report.renderers.csv import as_csv
from snat_race.report.renderers.html import page
from snat_race.report.renderers.ktap import ktap
from snat_race.report.renderers.markdown import markdown
from snat_race.report.renderers.text import text as rendered_text
from snat_race.report.renderers.text import verdict_line
from snat_race.report.terminal import Terminal
from snat_race.rules.exposure import HostTraits, judged
from snat_race.rules.nft_list import NftList
from snat_race.rules.owners import owner_of
from tests.fuzzing import target
from tests.test_hostile_text import DOES_SOMETHING, document


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


# ---- what users type

PARSERS = (
    parsing.duration_ns,
    parsing.count,
    parsing.share,
    parsing.port_range,
    parsing.cpu_list,
    parsing.above_zero,
)


@target("10s", "1m30s", "1.5h", "500us", "2M", "0.1%", "20000-29999", "0,2-5", "1e-3", "-5")
def fuzz_values_of_options(text: str) -> None:
    for parse in PARSERS:
        try:
            parse(text)
        except ValueError as refused:
            if type(refused) is not ValueError:  # a UnicodeError is none of ours
                raise


@target("10.0.0.1:8080", "[fd00::1%eth0]:80-90", ":http", "host.example:https")
def fuzz_endpoint(text: str) -> None:
    str(Endpoint.parse(text, "127.0.0.1"))


@target("client -r 10.0.0.1:80 -c=1 --go-routines 5", "help client", "report a.json -- -x", "-V")
def fuzz_command_line(text: str) -> None:
    remote, workers = arguments.Spelling("--remote-addr", True), arguments.Spelling("--workers", True)
    options = {"r": remote, "c": workers, "go-routines": workers}
    version = {"V": arguments.Spelling("--version", False)}
    words = arguments.rewritten(text.split(" "), version, {"client": options, "report": {}})
    assert all(isinstance(word, str) for word in words)


@target(
    "iptables -t nat -A POSTROUTING -o 'eth 0' -j MASQUERADE", "masquerade to-ports 1-2", "snat to-pool"
)
def fuzz_rules_to_measure(text: str) -> None:
    for parse in (variant_of_command, variant_named, lambda name: variant_of_file(Path(name))):
        with suppress(UsageError):
            parse(text)


@target("1", "host", "/proc/self/ns/net", "docker:web", "../x", "/proc/1/ns/uts")
def fuzz_netns(text: str) -> None:
    answer = (200, b'{"State": {"Pid": 1}}')
    with patch.object(netns_lookup, "_ask_docker", lambda _: answer):
        os.close(netns_lookup.find(text).fd)


@target('{"State": {"Pid": 0}}', '{"message": "no such container"}', '{"State": {"Pid": 4194304}}')
def fuzz_docker_answer(text: str) -> None:
    answer = text.encode(errors="surrogatepass")
    for status in (200, 404, 500):
        says = patch.object(netns_lookup, "_ask_docker", lambda _, status=status: (status, answer))
        with says, suppress(SnatRaceError):
            os.close(netns_lookup.find("docker:web").fd)


# ---- what is shown


@target("masquerade random", "-A POSTROUTING -j MASQUERADE", "| a | b |\n# c", "=1+1\x1b[2J")
def fuzz_renderers(text: str) -> None:
    """See test_hostile_text.py for what each format must hold."""
    words = document(text)
    for shown in (
        rendered_text(words, Terminal(width=40), full=True),
        verdict_line(words),
        markdown(words),
        as_csv([{text: text, "n": 1}]),
        ktap(CheckList(title=text, checks=(Check(name=text, passed=None, why_skipped=text),))),
    ):
        assert not DOES_SOMETHING.search(shown)


@target("a rule", "<b>", "--option 5 %", "{{x}}")
def fuzz_page(text: str) -> None:
    shown = page(document(text), ())
    assert not DOES_SOMETHING.search(shown)
    assert "<script" not in shown


# ---- add targets above this line, in the section that they belong to
