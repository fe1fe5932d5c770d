"""mitigate --tcp-only: TCP draws ports, and UDP keeps its own."""

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snat_race.errors import SnatRaceError, UsageError
from snat_race.kernel import netns_lookup
from snat_race.kernel.tools import where
from snat_race.lab.topology import IPV4, build
from snat_race.report.wording.findings import FindingWords, worded
from snat_race.report.wording.program import Program
from snat_race.results.findings import (
    ChainAddress,
    Check,
    DoctorResult,
    ExaminedRule,
    Finding,
    Level,
    NotExposed,
    RuleOwner,
    Unchangeable,
    Undo,
)
from snat_race.rules import reader
from snat_race.rules.iptables_save import IptablesSave
from snat_race.rules.nft_list import NftList
from snat_race.runs import mitigate
from snat_race.runs.run_metadata import RunMetadata
from tests.conftest import IPTABLES, NFT, PRIVATE, fork_cli, in_sandbox
from tests.test_mitigate import DOCKER, TOOLS, cases, listing, load, loader, rules

FOR_TCP = "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -p tcp -j MASQUERADE --random-fully"


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))


@pytest.mark.parametrize(
    ("rule", "for_tcp"),
    [
        (DOCKER, FOR_TCP),
        ("-A C -j MASQUERADE", "-A C -p tcp -j MASQUERADE --random-fully"),
        (
            '-A C -s 1.0.0.0/8 ! -d 9.0.0.9 -o a -m comment --comment "-p" -j SNAT',
            '-A C -s 1.0.0.0/8 ! -d 9.0.0.9 -o a -p tcp -m comment --comment "-p" -j SNAT --random-fully',
        ),
        ("-A C -p udp -j MASQUERADE", None),
        ("-A C -s 10.0.0.0/8 ! -p icmp -j MASQUERADE", None),
    ],
)
def test_a_rule_of_iptables_for_tcp(rule: str, for_tcp: str | None) -> None:
    assert IptablesSave.for_tcp(rule) == for_tcp


def test_a_rule_of_nft_for_tcp_counts_from_0() -> None:
    rule = 'oifname "eth0" counter packets 5 bytes 300 masquerade comment "x"'
    new = 'meta l4proto tcp oifname "eth0" counter masquerade fully-random comment "x"'
    assert NftList.for_tcp(rule) == new


@pytest.mark.parametrize(("name", "backend"), cases())
def test_every_exposed_rule_gets_one_for_tcp_and_loses_it_again(name: str, backend: str) -> None:
    tool = loader(name, backend)[0].removesuffix("-restore")

    def round_trip() -> tuple[Any, ...]:
        load(name, backend)
        here, saved = netns_lookup.here(), list[Undo]()
        before = listing(*TOOLS)
        exposed = [rule.text for rule in reader.read(here).exposed if rule.gets_tcp]
        done = mitigate.apply(here, saved.append, tcp_only=True)
        refused = [rule.unchangeable for rule in done.unchangeable]
        then, left = rules(listing(tool)), [rule for rule in reader.read(here).exposed if rule.gets_tcp]
        if saved:
            mitigate.revert(here, Undo.model_validate_json(saved[-1].model_dump_json()))
        return exposed, saved, refused, then, len(left), before, listing(*TOOLS)

    exposed, saved, refused, then, left, before, after = in_sandbox(round_trip)
    uncounted = reader.strategy_of(tool).uncounted  # type: ignore[arg-type]
    then = list(map(uncounted, then))
    assert after == before
    assert left <= len(refused)
    assert set(refused) <= {Unchangeable.not_for_tcp_alone}
    changes = saved[-1].changes if saved else []
    assert len(changes) + len(refused) == len(exposed)
    for change in changes:
        at = then.index(uncounted(change.new))
        assert not change.added or then[at + 1] == uncounted(change.old)


@PRIVATE
@IPTABLES
def test_the_whole_way_as_a_user_goes_it(tmp_path: Path) -> None:
    def the_way() -> list[subprocess.CompletedProcess[str]]:
        load("docker.rules", "nft")
        undo = str(tmp_path / "undo.json")
        steps = (
            ("mitigate",),
            ("mitigate", "--tcp-only"),
            ("mitigate", "--tcp-only", "--apply", "--dump", undo),
            ("doctor",),
            ("mitigate", "--apply", "--dump", str(tmp_path / "none")),
            ("mitigate", "--revert", undo, "--tcp-only"),
            ("mitigate", "--revert", undo),
            ("doctor",),
        )
        return [fork_cli(*step) for step in steps]

    offered, shown, applied, healthy, nothing, wrong, reverted, sick = in_sandbox(the_way)
    assert "calls, games and VPNs of peers" in offered.stdout
    assert "mitigate --apply --tcp-only" in offered.stdout.replace(" --dump FILE", "").replace(
        "--tcp-only --apply", "--apply --tcp-only"
    )
    for diff in (shown.stdout, applied.stdout):
        assert f"\n+{FOR_TCP}\n {DOCKER}\n" in diff
    assert "--tcp-only --apply" in shown.stdout
    assert "# Applied, and read back." in applied.stdout
    assert healthy.returncode == 0
    assert "warning" in healthy.stdout
    assert "its TCP goes through a rule before it" in " ".join(healthy.stdout.split())
    assert "nothing to change" in nothing.stdout
    assert (wrong.returncode, "--tcp-only" in wrong.stderr) == (2, True)
    assert f"\n-{FOR_TCP}\n {DOCKER}\n" in reverted.stdout
    assert (reverted.returncode, sick.returncode) == (0, 3)


def translated_to(kind: socket.SocketKind, container: Any, server: socket.socket, port: int) -> int:
    """The port that a server sees of a client that connects from ``port``."""
    with container.entered(), socket.socket(type=kind) as client:
        client.settimeout(10)
        client.bind(("", port))
        client.connect(server.getsockname())
        if kind == socket.SOCK_STREAM:
            accepted, (_, seen) = server.accept()
            accepted.close()
        else:
            client.send(b"x")
            _, (_, seen) = server.recvfrom(1)
    return int(seen)


@PRIVATE
@pytest.mark.parametrize(
    ("loading", "text"),
    [
        pytest.param("iptables-nft-restore", f"*nat\n{DOCKER}\nCOMMIT\n", marks=IPTABLES),
        pytest.param("iptables-legacy-restore", f"*nat\n{DOCKER}\nCOMMIT\n", marks=IPTABLES),
        pytest.param(
            "nft -f -",
            "table ip a {\n chain p {\n type nat hook postrouting priority srcnat\n"
            ' oifname "eth0" counter masquerade\n }\n}\n',
            marks=NFT,
        ),
    ],
)
def test_tcp_draws_its_ports_and_udp_keeps_them(loading: str, text: str) -> None:
    tool, *options = loading.split()
    if not where(tool):
        pytest.skip(f"there is no {tool}")
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)

    def ports_seen() -> list[list[int]]:
        hosts = build(1)
        with hosts.destination.entered():
            servers = [socket.socket(type=kind) for kind in kinds]
        for server in servers:
            server.settimeout(10)
            server.bind((IPV4.destination_ip, 0))
        servers[0].listen()
        saved: list[Undo | None] = []
        with hosts.source.entered():
            subprocess.run([tool, *options], input=text, text=True, check=True)
        seen = []
        for change in (
            lambda: None,
            lambda: mitigate.apply(hosts.source, saved.append, tcp_only=True),
            lambda: mitigate.revert(hosts.source, saved[-1]),  # type: ignore[arg-type]
        ):
            change()
            first = 40_000 + 100 * len(seen)
            ports = range(first, first + 4)
            seen += [
                [
                    translated_to(kind, hosts.containers[0], server, port) - port
                    for kind, server in zip(kinds, servers, strict=True)
                ]
                for port in ports
            ]
        return seen

    seen = in_sandbox(ports_seen)
    kept, drawn, again = seen[:4], seen[4:8], seen[8:]
    assert kept == again == [[0, 0]] * 4
    assert [udp for _, udp in drawn] == [0] * 4
    assert any(tcp for tcp, _ in drawn)  # four times its own by chance: one in 10^18


@PRIVATE
@IPTABLES
@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("old", "-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE"),
        ("old", "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -p tcp -j MASQUERADE"),
        ("new", "-A POSTROUTING -s 172.17.0.0/16 -j ACCEPT"),
        ("added", False),
    ],
)
def test_an_undo_file_takes_no_other_rule_away(field: str, wrong: Any) -> None:
    def tried() -> tuple[list[str], list[str]]:
        load("docker.rules", "nft")
        here, saved = netns_lookup.here(), list[Undo]()
        mitigate.apply(here, saved.append, tcp_only=True)
        document = json.loads(saved[-1].model_dump_json())
        document["changes"][0][field] = wrong
        before = listing("iptables-nft")
        with pytest.raises(UsageError):
            mitigate.revert(here, Undo.model_validate(document))
        return before, listing("iptables-nft")

    before, after = in_sandbox(tried)
    assert before == after


@PRIVATE
@IPTABLES
@pytest.mark.parametrize(
    "others",
    [
        lambda: subprocess.run(["iptables-nft", "-t", "nat", "-F", "POSTROUTING"], check=True),
        lambda: load("docker.rules", "nft"),
    ],
    ids=["flushed", "written again"],
)
def test_what_its_owner_took_away_needs_no_undo(others: Callable[[], Any]) -> None:
    def tried() -> tuple[list[str], list[str], int]:
        load("docker.rules", "nft")
        here, saved = netns_lookup.here(), list[Undo]()
        mitigate.apply(here, saved.append, tcp_only=True)
        others()
        before = rules(listing("iptables-nft"))
        return before, rules(listing("iptables-nft")), len(mitigate.revert(here, saved[-1]).rewrites)

    before, after, made = in_sandbox(tried)
    assert (before, made) == (after, 0)


@PRIVATE
@NFT
@pytest.mark.parametrize(
    ("rule", "becomes"),
    [
        ('oifname { "eth0", "wg*" } ip daddr != 10.0.0.0/8 counter masquerade comment "x"', "two"),
        ("ip saddr 10.0.0.0/8 snat to ip saddr map { 10.0.0.0/9 : 1.1.1.1 }", "two"),
        ("ct mark 1 meta mark & 0xff == 2 masquerade", "two"),
        ("meta l4proto { tcp, udp } masquerade", "two"),
        ("tcp dport 80 limit rate 5/second masquerade", "cured"),
        ("meta l4proto != udp masquerade", "cured"),
        ("meta l4proto { tcp, udp } th dport 53 masquerade", "refused"),
        ("@th,16,16 53 masquerade", "refused"),
        ("ip saddr 10.0.0.0/8 snat to jhash ip saddr mod 2 map { 0 : 1.1.1.1, 1 : 1.1.1.2 }", "refused"),
        ("ip saddr 10.0.0.0/8 jhash ip saddr mod 2 0 snat to 1.1.1.1", "refused"),
        ("numgen inc mod 2 0 masquerade", "refused"),
        ("limit rate 5/second masquerade", "refused"),
        ("ct count 5 masquerade", "refused"),
        ("meta mark 1 meta mark set 2 masquerade", "refused"),
        ('log prefix "x" ip saddr 10.0.0.0/8 masquerade', "refused"),
        ("ip saddr @passing masquerade", "refused"),
        ("ip saddr @counting masquerade", "refused"),
        ("udp length > 8 masquerade", "left"),
        ("meta l4proto udp masquerade", "left"),
        ("icmp type echo-request snat to 192.0.2.1", "left"),
    ],
)
def test_a_rule_of_nft_is_asked_twice_only_if_nobody_notices(rule: str, becomes: str) -> None:
    sets = """set passing { type ipv4_addr; flags timeout; }
 set counting { type ipv4_addr; limit rate 5/second; elements = { 10.0.0.1, 10.0.0.2 } }"""
    chain = f"chain p {{\n type nat hook postrouting priority srcnat\n {rule}\n }}"
    text = f"table ip a {{\n {sets}\n {chain}\n}}\n"

    def tried() -> tuple[str, list[list[str]], int, bool]:
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        here, saved = netns_lookup.here(), list[Undo | None]()
        before = listing("nft")
        done = mitigate.apply(here, saved.append, tcp_only=True)
        then = listing("nft")
        loads = subprocess.run(["nft", "-c", "-f", "-"], input="\n".join(then), text=True, check=False)
        if saved and saved[-1]:
            mitigate.revert(here, saved[-1])
        assert listing("nft") == before
        kinds = {1: "two", 0: "cured" if then != before else "left"}
        what = "refused" if done.unchangeable else kinds[len(then) - len(before)]
        exposed = [each for each in reader.read(here).exposed if each.gets_tcp]
        return what, [then], len(exposed), loads.returncode == 0

    what, then, exposed, loads = in_sandbox(tried)
    assert (what, loads) == (becomes, True), then
    assert exposed == (becomes != "left")


@PRIVATE
@IPTABLES
@pytest.mark.parametrize(
    ("rule", "is_added"),
    [
        ("-m mark --mark 0x1 -m conntrack --ctstate NEW -j MASQUERADE", True),
        ("-m addrtype ! --src-type LOCAL -m iprange --src-range 10.0.0.1-10.0.0.9 -j MASQUERADE", True),
        ("-m statistic --mode random --probability 0.5 -j MASQUERADE", False),
        ("-m limit --limit 5/sec -j MASQUERADE", False),
        ("-m recent --set --name x -j MASQUERADE", False),
        ("-m connlimit --connlimit-above 3 -j MASQUERADE", False),
        ("! -p icmp -j MASQUERADE", False),
    ],
)
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_a_rule_of_iptables_is_asked_twice_only_if_nobody_notices(
    backend: str, rule: str, is_added: bool
) -> None:
    if not where(f"iptables-{backend}"):
        pytest.skip(f"there is no iptables-{backend}")

    def tried() -> bool:
        subprocess.run([f"iptables-{backend}", "-t", "nat", "-A", "POSTROUTING", *rule.split()], check=True)
        done = mitigate.apply(netns_lookup.here(), lambda _: None, tcp_only=True)
        assert bool(done.rewrites) != bool(done.unchangeable)
        return bool(done.rewrites)

    assert in_sandbox(tried) == is_added


@PRIVATE
@IPTABLES
def test_as_many_rules_for_the_same_addresses_as_one_likes() -> None:
    """A router with a tunnel for each of its branches."""

    def tried() -> tuple[int, int]:
        rules_of_tunnels = "".join(f"-A POSTROUTING -o tun{n} -j MASQUERADE\n" for n in range(80))
        text = f"*nat\n{rules_of_tunnels}COMMIT\n"
        subprocess.run(["iptables-nft-restore"], input=text, text=True, check=True)
        here, saved = netns_lookup.here(), list[Undo]()
        mitigate.apply(here, saved.append, tcp_only=True)
        left = len(reader.read(here).exposed)
        mitigate.revert(here, saved[-1])
        return left, len(reader.read(here).exposed)

    assert in_sandbox(tried) == (0, 80)


@PRIVATE
@pytest.mark.parametrize(
    ("tool", "text", "words"),
    [
        pytest.param("iptables-nft", f"*nat\n{DOCKER}\nCOMMIT\n", ("-p tcp", "-p 6"), marks=IPTABLES),
        pytest.param("iptables-legacy", f"*nat\n{DOCKER}\nCOMMIT\n", ("-p tcp", "-p 6"), marks=IPTABLES),
        pytest.param(
            "nft",
            "table ip a {\n chain p {\n type nat hook postrouting priority srcnat\n masquerade\n }\n}\n",
            ("meta l4proto tcp", "meta l4proto 6"),
            marks=NFT,
        ),
    ],
)
def test_what_reads_back_in_other_words_is_removed_again(
    tool: str, text: str, words: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not where(tool):
        pytest.skip(f"there is no {tool}")
    strategy = reader.strategy_of(tool)  # type: ignore[arg-type]
    for_tcp = strategy.for_tcp
    monkeypatch.setattr(strategy, "for_tcp", staticmethod(lambda rule: str(for_tcp(rule)).replace(*words)))

    def tried() -> tuple[list[str], list[str], str, list[Undo | None]]:
        load_words = ["nft", "-f", "-"] if tool == "nft" else [f"{tool}-restore"]
        subprocess.run(load_words, input=text, text=True, check=True)
        saved: list[Undo | None] = []
        before = rules(listing(*TOOLS))
        with pytest.raises(SnatRaceError) as failed:
            mitigate.apply(netns_lookup.here(), saved.append, tcp_only=True)
        return before, rules(listing(*TOOLS)), str(failed.value), saved

    before, after, said, saved = in_sandbox(tried)
    assert after == before
    assert "nothing is changed" in said
    assert saved[-1] is None


@PRIVATE
@IPTABLES
def test_what_may_be_all_that_translates_is_not_taken_away() -> None:
    """Its owner has taken away the rule behind it, or has written both of his own."""

    def tried() -> tuple[list[str], list[str], str]:
        load("docker.rules", "nft")
        here, saved = netns_lookup.here(), list[Undo]()
        mitigate.apply(here, saved.append, tcp_only=True)
        subprocess.run(["iptables-nft", "-t", "nat", *DOCKER.replace("-A", "-D", 1).split()], check=True)
        before = rules(listing("iptables-nft"))
        with pytest.raises(UsageError) as failed:
            mitigate.revert(here, saved[-1])
        return before, rules(listing("iptables-nft")), str(failed.value)

    before, after, said = in_sandbox(tried)
    assert after == before
    assert "in front of" in said


@PRIVATE
@IPTABLES
def test_where_no_tcp_comes_it_says_so() -> None:
    def tried() -> subprocess.CompletedProcess[str]:
        rule = "-t nat -A POSTROUTING -p udp -j MASQUERADE"
        subprocess.run(["iptables-nft", *rule.split()], check=True)
        return fork_cli("mitigate", "--tcp-only")

    done = in_sandbox(tried)
    assert (done.returncode, "No TCP comes to the rules that are exposed" in done.stdout) == (0, True)


def evidence(owner: RuleOwner, **fields: Any) -> str:
    return words(owner, **fields).evidence


def advice(owner: RuleOwner, **fields: Any) -> str:
    return words(owner, **fields).advice


def words(owner: RuleOwner, **fields: Any) -> FindingWords:
    rule = ExaminedRule(
        address=ChainAddress(tool="nft", family="inet", table="fw4", chain="srcnat"),
        text="masquerade",
        owner=owner,
        client_ports=(32768, 60999),
        **fields,
    )
    result = DoctorResult(**RunMetadata().fields(), spec={"netns": "x"}, sysctls={}, findings=[])
    return worded(result, Finding(level=Level.exposed, check=Check.snat_rule, rule=rule), Program())


def test_a_rule_for_udp_alone_loses_no_syn() -> None:
    assert "its SYNs can race" in evidence(RuleOwner.docker)
    assert "its packets of UDP can race" in evidence(RuleOwner.docker, gets_tcp=False)


def test_it_is_advised_where_holes_are_punched() -> None:
    for owner in (RuleOwner.openwrt, RuleOwner.tailscale, RuleOwner.netbird):
        assert "mitigate --netns x --tcp-only --apply (UDP keeps its ports" in advice(owner)
    assert "--tcp-only" not in advice(RuleOwner.kube_proxy)
    assert not advice(RuleOwner.docker, not_exposed=NotExposed.tcp_draws_ports)
