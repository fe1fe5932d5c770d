"""Which rules are exposed, and why others are not: by the rules' own words, and by those around them."""

import ipaddress
import subprocess
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snat_race.kernel import netns_lookup
from snat_race.kernel.tools import where
from snat_race.results.findings import NotExposed, Unchangeable
from snat_race.results.nat import Nat
from snat_race.rules import clashes, ipsets, reader
from snat_race.rules.clashes import clashing, sharing
from snat_race.rules.exposure import HostTraits, Translation, judged
from snat_race.rules.iptables_save import IptablesSave
from snat_race.rules.paths import Step, arriving
from snat_race.rules.traffic import Devices, Traffic, addresses, both, covers, join, meet, without
from snat_race.runs.nat_properties import nat_of, rules_for
from tests.conftest import IPTABLES, PRIVATE, in_sandbox


def reasons(*rules: str, sets: str = "", traits: HostTraits | None = None) -> list[NotExposed | None]:
    """Why each SNAT rule is not exposed; None if it is. It may name its chain, ``-A CHAIN ...``."""
    lines = [rule if rule.startswith("-A") else f"-A POSTROUTING {rule}" for rule in rules]
    chains = dict.fromkeys(["POSTROUTING", *(line.split()[1] for line in lines)])
    text = "*nat\n" + "".join(f":{chain} - [0:0]\n" for chain in chains)
    text += "".join(f"[0:0] {line}\n" for line in lines) + "COMMIT\n"
    ruleset = IptablesSave("iptables", text, ipsets.parsed(sets))
    assert ruleset.broken == []
    order = {line: at for at, line in enumerate(lines)}
    rules_judged = judged(ruleset.snat_rules, traits or HostTraits())
    return [rule.not_exposed for rule in sorted(rules_judged, key=lambda rule: order[rule.text])]


def sets_of_numbers() -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    ends = st.tuples(st.integers(0, 23), st.integers(0, 6)).map(lambda pair: (pair[0], sum(pair)))
    return st.lists(ends, min_size=1, max_size=3).map(join)


def members(numbers: Any) -> set[int]:
    return {number for low, high in numbers for number in range(low, high + 1)}


@given(sets_of_numbers(), sets_of_numbers())
def test_intervals_are_sets(one: Any, other: Any) -> None:
    assert members(meet(one, other)) == members(one) & members(other)
    assert members(without(one, other)) == members(one) - members(other)
    assert meet(one, other) == join(meet(one, other))


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.tuples(*[sets_of_numbers()] * 3)),
        max_size=12,
    )
)
def test_claims_clash_as_comparing_all_pairs_says(claims: Any) -> None:
    assert clashing(claims) == [
        any(client != other and all(map(meet, parts, others)) for other, others in claims)
        for client, parts in claims
    ]


@given(*[st.lists(st.tuples(*[sets_of_numbers()] * 3), max_size=8)] * 2)
def test_claims_share_with_those_of_many_as_comparing_all_pairs_says(claims: Any, of_many: Any) -> None:
    expected = [any(all(map(meet, parts, others)) for others in of_many) for parts in claims]
    assert sharing(claims, of_many) == expected
    with pytest.MonkeyPatch.context() as patched:  # as if they were many
        patched.setattr(clashes, "_FEW_PAIRS", -1)
        assert sharing(claims, of_many) == expected


@given(*[st.tuples(sets_of_numbers(), sets_of_numbers())] * 2)
def test_what_covers_traffic_leaves_nothing_of_it(wider: Any, narrower: Any) -> None:
    one, other = Traffic(*wider), Traffic(*narrower)
    if covers(one, other):
        common = both(one, other)
        assert common
        assert common[:2] == other[:2]
    assert covers(one, one)
    assert not covers(one._replace(lasting=False), one)


def test_a_way_with_too_many_turns_leaves_everything_open() -> None:
    ways = [addresses(f"10.0.0.{number}") for number in range(40)]
    steps = [Step((Traffic(sources=way),), jumps=(((Traffic(sources=way),), "sub"),)) for way in ways]
    chains = {"root": steps, "sub": [Step((Traffic(),), wanted=True)]}
    (came,) = arriving(chains, {"root": Traffic()}).values()
    assert came == ((Traffic(), 0),)
    few = chains | {"root": steps[:2]}
    assert [one.sources for one, _ in arriving(few, {"root": Traffic()})["sub", 0]] == ways[:2]


@pytest.mark.parametrize(
    ("one", "other", "races"),
    [
        ("", "", True),
        ("-d 203.0.113.0/24", "-d 203.0.113.7/32", True),
        ("-d 203.0.113.0/24", "-d 198.51.100.0/24", False),
        ("-d 203.0.113.0/24", "! -d 203.0.113.0/24", False),
        ("! -d 10.0.0.0/8", "! -d 10.1.0.0/16", True),
        ("-o eth0", "-o eth1", False),
        ("-o eth0", "! -o eth0", False),
        ("-o eth0", "! -o eth1", True),
        ("-o eth+", "-o eth1", True),
        ("-o eth+", "-o wlan0", False),
        ("-o eth*", "-o eth1", False),
        ("-p tcp", "-p udp", False),
        ("-p tcp", "", True),
        ("-p tcp", "! -p tcp", False),
        ("-p tcp -m tcp --dport 80", "-p tcp -m tcp --dport 443", False),
        ("-p tcp -m multiport --dports 80,443", "-p tcp -m tcp --dport 440:450", True),
        ("-p tcp -m tcp --sport 500", "-p tcp -m tcp --sport 501", False),
        ("-m mark --mark 0x1", "-m mark --mark 0x2", True),
    ],
)
def test_two_clients_race_if_their_tuples_may_be_the_same(one: str, other: str, races: bool) -> None:
    target = "-j SNAT --to-source 192.0.2.1"
    expected = None if races else NotExposed.single_client
    pair = f"-s 10.0.0.1/32 {one} {target}", f"-s 10.0.0.2/32 {other} {target}"
    assert reasons(*[" ".join(rule.split()) for rule in pair]) == [expected] * 2


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        *[(f"-p {name} -j MASQUERADE", NotExposed.no_ports) for name in ("icmp", "esp", "ah", "gre", "47")],
        *[(f"-p {name} -j MASQUERADE", None) for name in ("tcp", "udp", "sctp", "dccp", "udplite", "132")],
        ("! -p tcp -j MASQUERADE", None),
        ("-p udp -m udp --sport 500 -j MASQUERADE", None),
        ("-p udp -m udp --sport 500 -j MASQUERADE --to-ports 1024-2000", NotExposed.ports_apart),
        ("-p tcp -j MASQUERADE --to-ports 40000", NotExposed.single_port),
        ("-s 10.0.0.1/32 -d 10.0.0.1/32 -j MASQUERADE", NotExposed.client_reaches_itself),
        ("-m iprange --src-range 10.0.0.1-10.0.0.1 -j MASQUERADE", NotExposed.single_client),
        ("-m iprange --src-range 10.0.0.1-10.0.0.2 -j MASQUERADE", None),
        ('-m string --string "-p" --algo bm -j MASQUERADE', None),
    ],
)
def test_a_rule_is_judged_by_what_its_clients_can_be_given(rule: str, reason: NotExposed | None) -> None:
    assert reasons(rule) == [reason]


def test_blocks_of_ports_are_apart_only_if_no_port_is_in_two() -> None:
    def block(client: int, ports: str) -> str:
        return f"-s 100.64.0.{client}/32 -p tcp -j SNAT --to-source 192.0.2.1:{ports}"

    apart = NotExposed.single_client
    assert reasons(block(1, "33024-41023"), block(2, "41024-49023")) == [apart, apart]
    assert reasons(block(1, "33024-41024"), block(2, "41024-49023")) == [None, None]
    # Before 5.0, ports of a range are handed out in order, whether the clients' own are in there or not.
    old = HostTraits(random_is_full=False)
    assert reasons(block(1, "1024-2023"), block(2, "2024-3023"), traits=old) == [apart, apart]
    assert reasons(block(1, "1024-2023"), block(2, "1024-2023"), traits=old) == [None, None]
    # What is left for a rule behind those for TCP has nothing to do with them.
    rest = [f"-s 100.64.0.{client}/32 -j SNAT --to-source 192.0.2.1" for client in (1, 2)]
    judgement = reasons(block(1, "33024-41023"), block(2, "41024-49023"), *rest)
    assert judgement == [apart, apart, None, None]


@pytest.mark.parametrize(
    ("first", "second", "gets_packets"),
    [
        ("-s 10.0.0.0/8 -j MASQUERADE --random-fully", "-s 10.0.0.0/8 -j MASQUERADE", False),
        ("-s 10.0.0.0/8 -j MASQUERADE --random-fully", "-s 10.1.0.0/16 -o eth0 -j MASQUERADE", False),
        ("-s 10.1.0.0/16 -j MASQUERADE --random-fully", "-s 10.0.0.0/8 -j MASQUERADE", True),
        ("-j ACCEPT", "-s 10.0.0.0/8 -j MASQUERADE", False),
        ("-s 10.0.0.0/8 -j RETURN", "-s 10.2.3.0/24 -j MASQUERADE", False),
        ("-s 10.0.0.0/8 -d 10.0.0.0/8 -j RETURN", "-s 10.0.0.0/8 -j MASQUERADE", True),
        ("-m limit --limit 5/sec -j MASQUERADE --random-fully", "-j MASQUERADE", True),
        (
            "-m limit --limit 5/sec -j MASQUERADE --random-fully",
            "-m limit --limit 5/sec -j MASQUERADE",
            True,
        ),
        ("-m mark --mark 0x1 -j ACCEPT", "-m mark --mark 0x2 -j MASQUERADE", True),
        ("-m mark --mark 0x1 -j ACCEPT", "-s 10.0.0.0/8 -m mark --mark 0x1 -j MASQUERADE", False),
        ("-o eth+ -j ACCEPT", "-o eth1 -j MASQUERADE", False),
        ("-o eth* -j ACCEPT", "-o eth1 -j MASQUERADE", True),
        ("-o eth* -j ACCEPT", "-o eth* -j MASQUERADE", False),
        ("-s 10.0.0.0/8 -j MASQUERADE", "-s 10.0.0.0/8 -j MASQUERADE --persistent", True),
    ],
)
def test_a_rule_behind_others_gets_what_they_leave(first: str, second: str, gets_packets: bool) -> None:
    *_, last = reasons(first, second)
    assert last == (None if gets_packets else NotExposed.behind_another)


def test_a_chain_is_entered_by_those_who_are_sent_there() -> None:
    inside = "-A INSIDE -p tcp -j SNAT --to-source 192.0.2.1"
    assert reasons("-s 10.0.0.1/32 -j INSIDE", inside) == [NotExposed.single_client]
    assert reasons("-s 10.0.0.1/32 -j INSIDE", "-s 10.0.0.2/32 -g INSIDE", inside) == [None]
    assert reasons("-p udp -j INSIDE", inside) == [NotExposed.behind_another]
    assert reasons("-j ACCEPT", "-j INSIDE", inside) == [NotExposed.behind_another]


LOOP_BACK = "-m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE"
CREATED = "create KUBE-LOOP-BACK hash:ip,port,ip family inet hashsize 1024\n"
ITSELF = CREATED + "add KUBE-LOOP-BACK 10.244.0.25,tcp:8000,10.244.0.25\n"
ANOTHER = ITSELF + "".join(
    f"add KUBE-LOOP-BACK 10.244.0.25,tcp:8000,10.244.0.{client}\n" for client in (7, 8)
)


@pytest.mark.parametrize(
    ("rule", "sets", "reason"),
    [
        (LOOP_BACK, "", NotExposed.loop_back_set),
        (LOOP_BACK, CREATED, NotExposed.loop_back_set),
        (LOOP_BACK, ITSELF, NotExposed.client_reaches_itself),
        (LOOP_BACK, ANOTHER, None),
        (LOOP_BACK.replace("dst,dst,src", "src,dst,dst"), "", None),
        (LOOP_BACK.replace("-m set", "-m set !"), ITSELF, None),
        (LOOP_BACK.replace("KUBE-LOOP-BACK", "MINE"), "", None),
        ("-m set --match-set one src -j MASQUERADE", "create one hash:ip\nadd one 10.0.0.1\n", "single"),
        ("-m set --match-set one src -j MASQUERADE", "create one hash:ip\n", None),
        ("-m set --match-set two src -j MASQUERADE", "create two hash:net\nadd two 10.0.0.0/8\n", None),
        (
            "-m set --match-set two src -j MASQUERADE",
            "create two hash:net\nadd two 10.0.0.1\nadd two 10.0.0.0/8 nomatch\n",
            None,
        ),
    ],
)
def test_sets_say_whose_packets_a_rule_is_for(rule: str, sets: str, reason: Any) -> None:
    assert reasons(rule, sets=sets) == [NotExposed.single_client if reason == "single" else reason]


@PRIVATE
@IPTABLES
@pytest.mark.parametrize(
    ("create", "member", "rules"),
    [
        ("hash:ip netmask 24", "10.0.0.0", []),
        ("hash:ip timeout 60", "10.0.0.1 timeout 33", []),
        ("hash:ip timeout 0", "10.0.0.1 timeout 33", []),
        ("hash:ip family inet", "10.0.0.1", ["-j SET --add-set s src"]),
        ("list:set size 8", "other", ["-m set --match-set s dst -j RETURN"]),
    ],
)
def test_a_set_that_may_hold_more_says_nothing(create: str, member: str, rules: list[str]) -> None:
    sets = f"create s {create}\nadd s {member}\n"
    assert reasons(*rules, "-m set --match-set s src -j MASQUERADE", sets=sets) == [None]


@pytest.mark.parametrize(
    "between",
    [["-j MARK --set-xmark 0x1/0xffffffff"], ["-j SUB", "-A SUB -j CONNMARK --restore-mark"]],
)
def test_a_mark_that_was_set_meanwhile_is_another(between: list[str]) -> None:
    asked = "-m mark --mark 0x1 -j"
    assert reasons(f"{asked} RETURN", f"{asked} MASQUERADE") == [NotExposed.behind_another]
    assert reasons(f"{asked} RETURN", *between, f"{asked} MASQUERADE") == [None]
    rest = reasons(f"{asked} RETURN", "-j RETURN", *between, f"{asked} MASQUERADE")
    assert rest == [NotExposed.behind_another]


@PRIVATE
@IPTABLES
@pytest.mark.parametrize(
    "harmless",
    [
        "-s 172.17.0.2 -d 172.17.0.2 -p tcp --dport 80 -j MASQUERADE",  # Docker's, of a published port
        "-p icmp -j MASQUERADE",
        "-s 172.17.0.0/24 -j MASQUERADE",
    ],
)
def test_a_nat_draws_ports_if_all_rules_do_that_translate_dials(harmless: str) -> None:
    def look() -> Nat:
        for rule in ("-s 172.17.0.0/16 -j MASQUERADE --random-fully", harmless):
            subprocess.run(["iptables", "-t", "nat", "-A", "POSTROUTING", *rule.split()], check=True)
        return nat_of(rules_for([netns_lookup.here()]), 1000)

    nat = in_sandbox(look)
    assert nat.drawn
    assert nat.same_draws


def test_sets_are_read_where_rules_ask_for_them() -> None:
    if not where("ipset"):
        pytest.skip("there is no ipset")

    def look() -> list[NotExposed | None]:
        subprocess.run(["ipset", "restore"], input=ITSELF, text=True, check=True)
        rule = f"iptables -t nat -A POSTROUTING {LOOP_BACK}"
        subprocess.run(rule.split(), check=True)
        return [rule.not_exposed for rule in reader.read(netns_lookup.here()).snat_rules]

    try:
        assert in_sandbox(look) == [NotExposed.client_reaches_itself]
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no ipsets, or does not let us make any")


MANY = 5_000
MOST_CPU_S = 4.0  # some 0.2 s when nothing else runs; comparing all pairs takes 10 s and more


def clients() -> list[str]:
    first = int(ipaddress.ip_address("100.64.0.0"))
    return [str(ipaddress.ip_address(first + number)) for number in range(MANY)]


@pytest.mark.parametrize(
    "shape",
    [
        "-s {client}/32 -j SNAT --to-source 192.0.2.1",
        "-s {client}/32 -d 11.{low}.{high}.0/24 -j SNAT --to-source 192.0.2.1",
        "-s {client}/32 -o ppp{number} -j SNAT --to-source 192.0.2.1",
        "-s {client}/32 ! -d 10.0.0.0/8 -j SNAT --to-source 198.{low}.{high}.1",
        "-s {client}/32 -p tcp -j SNAT --to-source 198.18.{high}.{low}:{block}",
    ],
)
def test_many_rules_are_judged_without_comparing_all_pairs(shape: str) -> None:
    lines = []
    for number, client in enumerate(clients()):
        low, high = number % 250, number // 250
        block = f"{33000 + high * 1000}-{33999 + high * 1000}"
        filled = shape.format(client=client, number=number, low=low, high=high, block=block)
        lines.append(f"[0:0] -A POSTROUTING {filled}\n")
    text = "".join(["*nat\n:POSTROUTING ACCEPT [0:0]\n", *lines, "COMMIT\n"])
    rules = IptablesSave("iptables", text).snat_rules
    before = time.process_time()
    all_judged = judged(rules, HostTraits())
    assert time.process_time() - before < MOST_CPU_S
    same = shape.endswith("-s {client}/32 -j SNAT --to-source 192.0.2.1")
    assert {rule.exposed for rule in all_judged} == {same}


def test_one_to_one_rules_are_harmless_beside_a_masquerade() -> None:
    for masquerade in ("-o eth0 -j MASQUERADE", "-s 10.0.0.0/8 -j MASQUERADE"):
        *each_own, pool = reasons(
            "-s 10.0.0.1/32 -j SNAT --to-source 192.0.2.1",
            "-s 10.0.0.2/32 -j SNAT --to-source 192.0.2.2",
            masquerade,
        )
        assert (each_own, pool) == ([NotExposed.single_client] * 2, None)


@PRIVATE
@IPTABLES
@pytest.mark.parametrize(
    ("pool", "races"),
    [
        ("-j SNAT --to-source 192.0.2.1-192.0.2.9", True),
        ("-j MASQUERADE", True),
        ("-p tcp -j SNAT --to-source 192.0.2.1:40000-50000", True),
        ("-j SNAT --to-source 192.0.2.7", False),
        ("-p udp -j SNAT --to-source 192.0.2.1", False),
        ("-d 198.51.100.0/24 -j SNAT --to-source 192.0.2.1", False),
        ("-o eth9 -j SNAT --to-source 192.0.2.1", False),
    ],
)
def test_a_single_client_races_with_a_rule_for_many_that_stays_as_it_is(pool: str, races: bool) -> None:
    """No tool of ours can load a comment that is not UTF-8, so the rule for many keeps its ports."""

    def look(comment: bytes) -> list[tuple[bool, bool]]:
        for setting in ("link set lo up", "addr add 192.0.2.1 dev lo", "addr add 192.0.2.9 dev lo"):
            subprocess.run(["ip", *setting.split()], check=True)
        alone = "-s 10.0.0.1/32 -d 203.0.113.0/24 -o eth0 -p tcp -j SNAT --to-source 192.0.2.1"
        for rule in (alone, f"-s 10.0.0.0/8 {pool}"):
            append = ["iptables", "-t", "nat", "-A", "POSTROUTING", "-m", "comment", "--comment", comment]
            subprocess.run([*append, *rule.split()], check=True)
        rules = reader.read(netns_lookup.here()).snat_rules
        return [(rule.exposed, bool(rule.unchangeable)) for rule in rules]

    assert in_sandbox(lambda: look(b"\xff")) == [(races, True), (True, True)]
    assert in_sandbox(lambda: look(b"y")) == [(False, False), (True, False)]


def test_many_single_clients_are_met_with_many_rules_that_stay_as_they_are() -> None:
    rules = []
    for number, client in enumerate(clients()):
        low, high = number % 250, number // 250
        for source, to in ((f"{client}/32", "198.18"), ("10.0.0.0/8", "198.19")):
            rule = f"-s {source} ! -d 10.0.0.0/8 -o ppp{low} -j SNAT --to-source {to}.{high}.{low}"
            rules.append(f"[0:0] -A POSTROUTING {rule}\n")
    text = "".join(["*nat\n:POSTROUTING ACCEPT [0:0]\n", *rules, "COMMIT\n"])
    kept = Unchangeable.in_anonymous_chain
    listed = [replace(rule, unchangeable=kept) for rule in IptablesSave("iptables", text).snat_rules]
    everything = replace(
        listed[1],
        translations=(Translation(Traffic(devices=Devices(frozenset({"ppp7"}), excluded=False))),),
    )
    for rules_of_host, racing in ((listed, 0), ([*listed, everything], MANY // 250)):
        before = time.process_time()
        all_judged = judged(rules_of_host, HostTraits())
        assert time.process_time() - before < MOST_CPU_S
        assert sum(rule.exposed for rule in all_judged if rule.source_network.endswith("/32")) == racing


def test_a_masquerade_gives_an_address_of_the_host() -> None:
    rules = "-s 10.0.0.1/32 -j SNAT --to-source 192.0.2.1", "-s 10.0.0.2/32 -j MASQUERADE"
    for held, races in ((None, True), ("192.0.2.1", True), ("192.0.2.9", False)):
        traits = HostTraits(addresses=addresses(held) if held else None)
        assert reasons(*rules, traits=traits) == [None if races else NotExposed.single_client] * 2


@pytest.mark.parametrize(
    ("first", "second", "last"),
    [
        ("-p tcp -j MASQUERADE --random-fully", "-j MASQUERADE", NotExposed.tcp_draws_ports),
        (
            "-s 10.0.0.0/8 -p tcp -j MASQUERADE --random-fully",
            "-s 10.1.0.0/16 -o eth0 -j MASQUERADE",
            NotExposed.tcp_draws_ports,
        ),
        ("-p tcp -j MASQUERADE --random-fully", "-p udp -j MASQUERADE", None),
        ("-p tcp -j MASQUERADE --random-fully", "-p sctp -j MASQUERADE", None),
        ("-p tcp -j MASQUERADE --random-fully", "! -p icmp -j MASQUERADE", NotExposed.tcp_draws_ports),
        ("-p tcp -j MASQUERADE --random-fully", "-p tcp -j MASQUERADE", NotExposed.behind_another),
        ("-p tcp -j MASQUERADE", "-j MASQUERADE", None),
        ("-p tcp -j ACCEPT", "-j MASQUERADE", None),
        ("-p udp -j MASQUERADE --random-fully", "-j MASQUERADE", None),
        ("-s 10.0.0.0/8 -p tcp -j MASQUERADE --random-fully", "-j MASQUERADE", None),
        ("-o eth0 -p tcp -j MASQUERADE --random-fully", "-o eth1 -j MASQUERADE", None),
        ("-p tcp -m limit --limit 5/sec -j MASQUERADE --random-fully", "-j MASQUERADE", None),
        ("-p tcp -m tcp --dport 80 -j MASQUERADE --random-fully", "-j MASQUERADE", None),
    ],
)
def test_a_rule_whose_tcp_another_takes_loses_no_syn(
    first: str, second: str, last: NotExposed | None
) -> None:
    assert reasons(first, second)[-1] == last
