"""Sets that iptables' rules ask for: huge ones, and ones that no tool here prints."""

import ipaddress
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from snat_race.kernel import netns_lookup, tools
from snat_race.kernel.tools import where
from snat_race.report.wording.snat_rules import of_unread_sets
from snat_race.results.findings import Check, Level, NotExposed
from snat_race.rules import ipsets
from snat_race.rules.exposure import HostTraits, judged
from snat_race.rules.ipsets import Sets
from snat_race.rules.iptables_save import IptablesSave
from snat_race.rules.traffic import Traffic, meet
from snat_race.runs import doctor, mitigate
from tests.conftest import IPTABLES, PRIVATE, in_sandbox

MOST_CPU_S = 4.0  # some 0.5 s when nothing else runs; 26 s and more, if each rule has its own members
MEMBERS = 100_000


class Kind(NamedTuple):
    """A kind of set: which ends its parts are, and what the rule of one that holds many clients is."""

    directions: str
    member: str  # with the addresses of two hosts, and a port
    not_exposed: NotExposed | None


KINDS = {
    "hash:ip": Kind("src", "{one}", None),
    "hash:net": Kind("src", "{one}/31", None),
    "hash:ip,port": Kind("src,dst", "{one},tcp:{port}", None),
    "hash:ip,port,ip": Kind("dst,dst,src", "{one},udp:{port},{one}", NotExposed.client_reaches_itself),
    "hash:ip,port,net": Kind("dst,dst,src", "{one},{port},{two}/32", None),
    "hash:net,net": Kind("src,dst", "{one}/31,{one}/31", None),
}


def saved(kind: str, members: int) -> str:
    first = int(ipaddress.ip_address("10.0.0.0"))
    hosts = [str(ipaddress.ip_address(first + 4 * number)) for number in range(members + 1)]
    lines = (
        KINDS[kind].member.format(one=hosts[number], two=hosts[number + 1], port=1 + number % 60_000)
        for number in range(members)
    )
    return f"create s {kind} family inet\n" + "".join(f"add s {line}\n" for line in lines)


def rules_asking(times: int, directions: str, *, negated: str = "") -> str:
    lines = (
        f"[0:0] -A POSTROUTING -o eth{number} -m set {negated}--match-set s {directions} -j MASQUERADE\n"
        for number in range(times)
    )
    return "".join(["*nat\n:POSTROUTING ACCEPT [0:0]\n", *lines, "COMMIT\n"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [1, 1000])
def test_rules_that_ask_for_a_huge_set_are_judged_quickly(kind: str, times: int) -> None:
    text, rules = saved(kind, MEMBERS), rules_asking(times, KINDS[kind].directions)
    before = time.process_time()
    ruleset = IptablesSave("iptables", rules, ipsets.parsed(text))
    reasons = {rule.not_exposed for rule in judged(ruleset.snat_rules, HostTraits())}
    assert time.process_time() - before < MOST_CPU_S
    assert reasons == {KINDS[kind].not_exposed}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("members", [1, 2, 40])
def test_members_that_are_taken_together_are_no_fewer(
    kind: str, members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = ipsets.parsed(saved(kind, members))
    directions = KINDS[kind].directions
    asked = rules_asking(1, directions)
    apart = Sets(parsed, asked).packets("s", directions)
    monkeypatch.setattr(ipsets, "_MOST_ASKED_FOR", 0)
    monkeypatch.setattr(ipsets, "_MOST_RANGES", 10)
    together = Sets(parsed, asked).packets("s", directions)
    assert apart
    assert together
    (one,) = together
    assert f"--match-set s {directions}" in one.others
    for member in apart:
        assert all(meet(wide, part) == part for wide, part in zip(one[:5], member[:5], strict=True))
    assert one.to_itself == all(member.to_itself for member in apart)


def test_small_sets_are_told_apart_next_to_a_huge_one() -> None:
    text = saved("hash:ip,port,ip", MEMBERS) + "create few hash:ip\nadd few 10.0.0.1\n"
    rules = (
        "*nat\n:POSTROUTING ACCEPT [0:0]\n"
        "[0:0] -A POSTROUTING -m set --match-set few src -j SNAT --to-source 192.0.2.1\n"
        "[0:0] -A POSTROUTING -m set --match-set s src,dst,dst -j SNAT --to-source 192.0.2.2\n"
        "COMMIT\n"
    )
    parsed = ipsets.parsed(text)
    (few,) = Sets(parsed, rules).packets("few", "src") or ()
    assert few.one_client
    (huge,) = Sets(parsed, rules).packets("s", "src,dst,dst") or ()
    assert huge != Traffic()
    snat_rules = IptablesSave("iptables", rules, parsed).snat_rules
    assert [rule.not_exposed for rule in judged(snat_rules, HostTraits())] == [
        NotExposed.single_client,
        NotExposed.client_reaches_itself,
    ]


@pytest.mark.parametrize(
    ("member", "known"),
    [("10.0.0.0/8,eth1", True), ("10.0.0.0/8,eth+", True), ("0.0.0.0/0,eth wildcard", False)],
)
def test_devices_of_sets_are_no_patterns_but_those_that_say_so(member: str, known: bool) -> None:
    parsed = ipsets.parsed(f"create s hash:net,iface\nadd s {member}\n")
    packets = Sets(parsed, rules_asking(1, "src,dst")).packets("s", "src,dst")
    assert bool(packets) == known
    names = {name for traffic in packets or () for name in traffic.devices.names}
    assert names == ({member.partition(",")[2]} if known else set())


@PRIVATE
@IPTABLES
@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (["-A POSTROUTING -m set --match-set clients src -j MASQUERADE"], ["clients"]),
        (["-A POSTROUTING -m set --match-set clients src -j MINE", "-A MINE -j MASQUERADE"], ["clients"]),
        # What they hold cannot change what is said of these.
        (["-A POSTROUTING -m set ! --match-set clients dst -j MASQUERADE"], []),
        (["-A POSTROUTING -m set --match-set clients src -j MASQUERADE --random-fully"], []),
        (["-A POSTROUTING -m set --match-set clients src -j ACCEPT", "-A POSTROUTING -j MASQUERADE"], []),
    ],
)
def test_sets_that_no_tool_prints_are_named_if_a_rule_may_be_cleared_by_them(
    rules: list[str], named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("/usr/sbin", "/usr/bin", "/sbin"):
        for pattern in ("*tables*", "nft"):
            for tool in Path(folder).glob(pattern):
                (tmp_path / tool.name).exists() or (tmp_path / tool.name).symlink_to(tool)

    def look() -> None:
        subprocess.run(["ipset", "create", "clients", "hash:ip"], check=True)
        for rule in ("-N MINE", *rules):
            subprocess.run(["iptables", "-t", "nat", *rule.split()], check=True)
        here = netns_lookup.here()
        assert [finding.check for finding in doctor.examine(here, 1).findings].count(Check.ipsets) == 0
        monkeypatch.setattr(tools, "_PATH", str(tmp_path))
        findings = [one for one in doctor.examine(here, 1).findings if one.check == Check.ipsets]
        said = "there is no ipset here"
        assert [(one.level, one.values) for one in findings] == [
            (Level.warning, {"sets": named, "said": said})
        ] * bool(named)
        planned = mitigate.look(here)
        assert planned.unread_sets == tuple(named)
        assert planned.complete
        assert said in of_unread_sets(", ".join(named), planned.ipsets_failure)

    if not where("ipset"):
        pytest.skip("there is no ipset")
    try:
        in_sandbox(look)
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no ipsets, or does not let us make any")
