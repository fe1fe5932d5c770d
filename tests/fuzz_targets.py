"""All parsers of the package, each with a few right inputs: ``fuzz_<name>`` takes a text that somebody
else has written, and does with it what the program does.

A target may raise errors of ``snat_race.errors`` with a message of one line, and nothing else.
``test_fuzz.py`` runs them for seconds, ``scripts/fuzz.py`` for as long as one likes.
"""

import errno
import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pydantic import ValidationError

from snat_race.analysis.histogram import Histogram
from snat_race.analysis.host_checks import Host, checkup
from snat_race.analysis.summary import from_histogram
from snat_race.cli import arguments, parsing
from snat_race.cli.result_writer import json_text
from snat_race.errors import EnvironmentLacks, SnatRaceError, UsageError
from snat_race.kernel import counters, host, netlink, netns_lookup, nftables
from snat_race.lab.variants import variant_named, variant_of_command, variant_of_file
from snat_race.load.endpoint import Endpoint
from snat_race.report.document import Check, CheckList
from snat_race.report.renderers.csv import as_csv
from snat_race.report.renderers.hgrm import distribution
from snat_race.report.renderers.html import page
from snat_race.report.renderers.ktap import ktap
from snat_race.report.renderers.markdown import markdown
from snat_race.report.renderers.text import text as rendered_text
from snat_race.report.renderers.text import verdict_line
from snat_race.report.terminal import Terminal
from snat_race.results.findings import Undo
from snat_race.rules.exposure import HostTraits, judged
from snat_race.rules.iptables_save import IptablesSave
from snat_race.rules.kernel_list import KernelList, Unclear, by_chain
from snat_race.rules.nft_commands import of_json_without_flags
from snat_race.rules.nft_list import NftList
from snat_race.rules.owners import owner_of
from snat_race.rules.rewrite import cure
from snat_race.rules.undo import back, planned
from tests.conftest import ROOT
from tests.fuzz_results import reported
from tests.fuzz_rulesets import all_looked_into, hosts
from tests.fuzzing import HostTarget, target
from tests.results import small_client, small_lab, small_trace, small_watch
from tests.streams import client_events, lines_of, watch_events
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
    before = counters.tcp_only(counters.parse_tcp(NETSTAT + SNMP))
    after = counters.tcp_only(counters.parse_tcp(text))
    after.since(before, netns="here")


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
        here = netns_lookup.here()
        settings = host.sysctls(here)
        os.close(here.fd)
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


class Answers:
    """A netlink socket that has one answer."""

    def __init__(self, answer: bytes) -> None:
        self._answers = [answer]

    def recv(self, _: int) -> bytes:
        if not self._answers:
            raise BlockingIOError
        return self._answers.pop()

    def getblocking(self) -> bool:
        return False


RULE = nftables._message(
    nftables._NEW_RULE, 0, 1, "ip", netlink.attribute(1, b"nat\0") + netlink.attribute(2, b"post\0")
)
GENERATION = nftables._message(nftables._NEW_GENERATION, 0, 2, "ip", netlink.attribute(1, b"\0\0\0\5"))


@target((RULE + GENERATION).decode("latin-1"), RULE.decode("latin-1"))
def fuzz_nftables_netlink(text: str) -> None:
    try:
        for _, _, _, body in netlink.answers(Answers(text.encode("latin-1", "ignore"))):
            dict(netlink.attributes(body[4:]))
            rules = by_chain([nftables.KernelRule("ip", "nat", "post", body[4:])])
            chain = nftables.KernelChain(
                family="ip", table="nat", name="post", translates=True, table_has_flags=False
            )
            with suppress(Unclear):
                KernelList([chain], rules).of_interest(most=9)
    except OSError as refused:
        if refused.errno != errno.EBADMSG:
            raise


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
    of_json_without_flags("nft", text, NftList("nft", text).chains)


@target(seed("iptables-save.txt"), seed("iptables-save.txt").replace("172.17.0.0/16", "fd00::/64"))
def fuzz_iptables_save(text: str) -> None:
    for tool in ("iptables", "ip6tables-nft"):
        ruleset = IptablesSave(tool, text)
        rules = judged(ruleset.snat_rules, HostTraits())
        for rule in rules:
            owner_of(rule)
        assert isinstance(ruleset.broken, list)
        assert isinstance(ruleset.incompatible_tables, list)
        if not ruleset.broken:
            rewrite = cure(ruleset, [rule for rule in rules if rule.exposed])
            assert rewrite.script is not None
            assert rewrite.diff is not None


@target(*hosts(), kind=HostTarget)
def fuzz_host(text: str) -> None:
    """All rules of a host, from what its tools print to what people read."""
    all_looked_into(text)


SAVED = IptablesSave("iptables-nft", seed("iptables-save.txt"))
CURED = cure(SAVED, [rule for rule in judged(SAVED.snat_rules, HostTraits()) if rule.exposed])
UNDO = Undo(
    written_at="2026-01-01T00:00:00Z",
    environment={},
    netns=1,
    changes=planned(CURED),
    dumps={"iptables-nft": SAVED.text},
).model_dump_json()


@target(UNDO)
def fuzz_undo(text: str) -> None:
    """What an undo file may hold, against the rules that it was made for, and those that came out."""
    try:
        undo = Undo.model_validate_json(text.encode(errors="surrogatepass"))
    except ValidationError:
        return
    by_tool = [change for change in undo.changes if change.tool == SAVED.tool]
    for ruleset in (SAVED, IptablesSave("iptables-nft", SAVED.text.replace("-j MASQ", "-j  MASQ"))):
        rewrite, _ = back(ruleset, by_tool)
        assert rewrite.script is not None
        assert rewrite.diff is not None


# ---- what users type

PARSERS = (
    parsing.duration_ns,
    parsing.count,
    parsing.share,
    parsing.port_range,
    parsing.cpu_list,
    parsing.destination,
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


# ---- results: files of --output, and streams


@target(
    *(
        json_text(result)
        for result in (small_client("a", failed=9), small_lab(), small_watch("w", 7), small_trace())
    )
)
def fuzz_result(text: str) -> None:
    reported(text)


@target(
    *(
        (ROOT / "docs" / "examples" / f"{name}.json").read_text()
        for name in ("racing", "lab", "racing-watch")
    )
)
def fuzz_result_of_a_run(text: str) -> None:
    reported(text)


@target(*(path.read_text() for path in sorted((ROOT / "tests" / "results_v1").iterdir())))
def fuzz_result_of_version_1(text: str) -> None:
    reported(text)


@target(
    "\n".join(lines_of(client_events("a"))),
    "\n".join(lines_of(watch_events("w"), ended=False)),
    "\n".join(
        [
            *lines_of(client_events("a"), ended=False),
            *lines_of(client_events("b")),
            *lines_of(watch_events()),
        ]
    ),
)
def fuzz_stream(text: str) -> None:
    reported(text)


@target(
    small_client("a").summary.histogram_all or "", small_client("b", failed=70).summary.histogram_all or ""
)
def fuzz_histogram(text: str) -> None:
    histogram = Histogram.of([text])
    if histogram.count:
        distribution(histogram, 1000.0)
        assert from_histogram(histogram)


# ---- add targets above this line, in the section that they belong to
