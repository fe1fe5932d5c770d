"""Rules of nft in words: what an anonymous chain says, and what cannot be told."""

import json
import subprocess
from typing import Any

import pytest

from snat_race.kernel import netns_lookup
from snat_race.results.findings import NotExposed
from snat_race.rules import nft_text, reader
from snat_race.rules.exposure import HostTraits, judged
from snat_race.rules.nft_list import NftList
from snat_race.rules.nft_matches import translations_of
from snat_race.rules.nft_words import WordedRule, anonymous_chain, worded
from snat_race.rules.traffic import protocol
from tests.conftest import NFT, PRIVATE, in_sandbox


def statements(text: str) -> list[dict[str, Any]]:
    rule = worded(text)
    assert rule
    assert rule.understood
    return list(rule.statements)


def equal(left: dict[str, Any], right: Any) -> dict[str, Any]:
    return {"match": {"op": "==", "left": left, "right": right}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("masquerade", [{"masquerade": None}]),
        ("counter packets 1 bytes 2 masquerade random,persistent", ["random", "persistent"]),
        ("tcp dport 80 snat ip to 192.0.2.1:1024-2000", {"range": [1024, 2000]}),
        ("snat ip6 to [2001:db8::1]:1024", 1024),
        ('ip saddr 10.0.0.0/8 masquerade comment "snat # handle 3"', {"addr": "10.0.0.0", "len": 8}),
        ("ip saddr { 10.0.0.1, 10.1.0.0/16 } accept", {"set": ["10.0.0.1", {"prefix": {}}]}),
        ('oifname != "eth0" accept', "eth0"),
        ("ip saddr 10.0.0.1-10.0.0.9 accept", {"range": ["10.0.0.1", "10.0.0.9"]}),
        ("ip protocol { tcp, udp } accept", {"set": ["tcp", "udp"]}),
    ],
)
def test_what_a_rule_says_is_found_in_its_words(text: str, expected: Any) -> None:
    """``expected`` is somewhere in the statements, but for what is empty in it."""

    def holds(said: Any, wanted: Any) -> bool:
        if isinstance(wanted, dict) and isinstance(said, dict):
            return all(key in said and holds(said[key], value) for key, value in wanted.items())
        if isinstance(wanted, list) and isinstance(said, list):
            return len(said) == len(wanted) and all(map(holds, said, wanted))
        return bool(said == wanted)

    def somewhere(said: Any) -> bool:
        below = said.values() if isinstance(said, dict) else said if isinstance(said, list) else ()
        return holds(said, expected) or any(map(somewhere, below))

    assert somewhere(statements(text))


@pytest.mark.parametrize(
    "text",
    [
        "ct original ip saddr 10.0.0.1 accept",
        "ip saddr . tcp dport { 10.0.0.1 . 80 } accept",
        "ip saddr & 0.0.0.255 == 1 accept",
        "ip saddr @clients . 80 accept",
        "ip protocol vmap { tcp : accept }",
        "meta l4proto . th dport vmap { tcp . 80 : accept }",
        "update @seen { ip saddr timeout 1m }",
        "vxlan ip saddr 10.0.0.1 accept",
        'log prefix "ip saddr 10.0.0.1 snat to 10.0.0.2" accept',
        "ct status snat accept",
        "ct status != snat,dnat accept",
    ],
)
def test_what_is_no_such_match_is_taken_for_none(text: str) -> None:
    assert statements(text) == []


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("jump sub", [{"jump": {"target": "sub"}}]),
        (
            "tcp dport vmap { 80 : jump a, 81 : goto b, 82 : accept }",
            [{"vmap": {"data": {"set": [{"jump": {"target": "a"}}, {"goto": {"target": "b"}}]}}}],
        ),
    ],
)
def test_where_a_rule_leads_is_found(text: str, targets: list[Any]) -> None:
    assert statements(text) == targets


@pytest.mark.parametrize(
    "text",
    [
        "snat",
        "snat to",
        "masquerade to",
        "masquerade hard",
        "snat 10.0.0.1",
        "masquerade to :x",
        "snat via x",
    ],
)
def test_a_translation_in_other_words_is_not_understood(text: str) -> None:
    rule = worded(text)
    assert rule
    assert not rule.understood


DEEP = "jump { " * 40 + "masquerade" + " }" * 40


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jump {",
        "jump { masquerade",
        'log prefix "x',
        "a; b",
        "masquerade }",
        "ip saddr { 10.0.0.1",
        DEEP,
    ],
)
def test_what_is_no_rule_is_none(text: str) -> None:
    assert worded(text) is None


def test_nested_anonymous_chains_are_read() -> None:
    rule = anonymous_chain(
        'jump {\n\t\t\ttcp dport 25 log prefix "{ no snat; " drop\n\t\t\tip saddr 10.0.0.1 goto {\n'
        '\t\t\t\tmasquerade comment "a } b" # handle 7\n\t\t\t}\n\t\t}'
    )
    assert isinstance(rule, WordedRule)
    assert rule.understood
    assert [inner.text for inner in rule.inside] == [
        'tcp dport 25 log prefix "{ no snat; " drop',
        "ip saddr 10.0.0.1 goto",
        'masquerade comment "a } b"',
    ]
    assert rule.inside[-1].comment == "a } b"


@pytest.mark.parametrize("text", ["jump sub", "notrack", "", "masquerade", "jump"])
def test_what_is_no_anonymous_chain_is_none(text: str) -> None:
    assert anonymous_chain(text) is None


NESTED = """table inet r { # handle 1
\tchain post { # handle 2
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\toifname "eth0" jump {
\t\t\tip saddr 10.1.0.0/16 masquerade # handle 6
\t\t\tip saddr 10.2.0.0/16 goto {
\t\t\t\tip daddr 10.9.9.9 masquerade random
\t\t}
\t\t} comment "out { " # handle 8
\t\tip saddr 10.9.0.0/16 masquerade # handle 9
\t}
}
"""


def test_a_rule_with_an_anonymous_chain_is_one_line() -> None:
    (lines,) = nft_text.chains(NESTED).values()
    assert [(line.number, line.handle, line.text) for line in lines] == [
        (
            3,
            8,
            (
                'oifname "eth0" jump { ip saddr 10.1.0.0/16 masquerade; ip saddr 10.2.0.0/16 goto { '
                'ip daddr 10.9.9.9 masquerade random } } comment "out { "'
            ),
        ),
        (9, 9, "ip saddr 10.9.0.0/16 masquerade"),
    ]


@pytest.mark.parametrize("line", ["} jump {", "} goto {", "}", "} }"])
def test_a_line_that_closes_what_nobody_opened_is_no_rule(line: str) -> None:
    text = f"table ip a {{\n\tchain t {{\n\t\t{line}\n\t}}\n}}\n"
    assert nft_text.chains(text) == {("ip", "a", "t"): []}


def in_json(said: Any) -> NftList:
    where = {"family": "inet", "table": "r", "chain": "post"}
    of_source = equal(payload("ip", "saddr"), "10.7.0.1")
    objects = [
        {"chain": where | {"name": "post", "type": "nat", "hook": "postrouting"}},
        {"rule": where | {"handle": 8, "expr": [of_source, said]}},
        {"rule": where | {"handle": 9, "expr": [{"masquerade": None}]}},
    ]
    return NftList("nft", NESTED, json.dumps({"nftables": objects}))


def test_what_the_outer_rule_asks_for_the_inner_one_asks_for_too() -> None:
    inner, outer = in_json("jump {\n\t\t\tmeta l4proto tcp masquerade\n\t\t}").snat_rules
    assert (inner.text, inner.source_network, inner.translations[0].traffic.protocols) == (
        "meta l4proto tcp masquerade",
        "10.7.0.1",
        protocol("tcp"),
    )
    assert (outer.text, outer.source_network) == ("ip saddr 10.9.0.0/16 masquerade", "")


@pytest.mark.parametrize(
    "said",
    ["jump {\n\t\t\tmasquerade sideways\n\t\t}", "jump {\n\t\t\tmasquerade", "snat", 'jump {\n"}', 7, []],
)
def test_a_chain_that_cannot_be_read_makes_its_rule_unknown(said: Any) -> None:
    ruleset = in_json(said)
    assert ruleset.not_understood == ["chain inet r post handle 8"]
    assert ruleset.broken == []


def listed(*rules: tuple[str, list[Any]], **map_: Any) -> NftList:
    """A ruleset whose chain 'led' masquerades, and what leads there: rules of chain 'post'."""
    where = {"family": "ip", "table": "r"}
    objects: list[dict[str, Any]] = [
        {"chain": where | {"name": "post", "type": "nat", "hook": "postrouting"}},
        {"chain": where | {"name": "led"}},
        {"rule": where | {"chain": "led", "handle": 3, "expr": [{"masquerade": None}]}},
    ]
    lines = []
    for handle, (text, said) in enumerate(rules, 4):
        objects.append({"rule": where | {"chain": "post", "handle": handle, "expr": said}})
        lines.append(f"\t\t{text} # handle {handle}\n")
    if map_:
        objects.append({"map": where | {"name": "v"} | map_})
    text = (
        "table ip r { # handle 1\n\tchain led { # handle 1\n\t\tmasquerade # handle 3\n\t}\n"
        f"\tchain post {{ # handle 2\n{''.join(lines)}\t}}\n}}\n"
    )
    return NftList("nft", text, json.dumps({"nftables": objects}))


ONE_CLIENT = (
    "ip saddr 10.9.9.9 jump led",
    [equal(payload("ip", "saddr"), "10.9.9.9"), {"jump": {"target": "led"}}],
)
BY_MAP = ("oifname vmap @v", [{"vmap": {"key": {"meta": {"key": "oifname"}}, "data": "@v"}}])
TO_LED = {"jump": {"target": "led"}}


@PRIVATE
@NFT
@pytest.mark.parametrize(
    ("first", "second", "takes"),
    [
        ("wg*", "wg1", True),
        ("wg*", "wg*", True),
        ("wg1", "wg*", False),
        ("wg+", "wg1", False),
        ("wg+", "wg+", True),
        (r"wg\*", "wg1", False),
        (r"wg\*", r"wg\*", True),
        ("wg*", r"wg\*", True),
        ("wg*", "wg+", True),
    ],
)
def test_only_an_asterisk_at_its_end_stands_for_other_devices(first: str, second: str, takes: bool) -> None:
    rules = f'oifname "{first}" accept; oifname "{second}" masquerade;'
    text = f"table ip t {{ chain c {{ type nat hook postrouting priority 100; {rules} }}; }}"

    def look() -> list[NotExposed | None]:
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        return [rule.not_exposed for rule in reader.read(netns_lookup.here()).snat_rules]

    assert in_sandbox(look) == [NotExposed.behind_another if takes else None]


@pytest.mark.parametrize(
    ("range_", "ports"), [([1024, 0], ((1024, 1024),)), ([1024, 2047], ((1024, 2047),)), ([9, 1], None)]
)
def test_a_range_that_nft_has_lost_the_end_of_is_one_port(range_: list[int], ports: Any) -> None:
    """nft 1.0.6: its elements hold the first port only, and its rule takes that for both ends."""
    data = {"set": [["10.0.0.1", {"range": range_}]]}
    said = {"port": {"map": {"key": payload("ip", "saddr"), "data": data}}}
    (given,) = translations_of([("masquerade", said)], {})
    assert given.ports == ports


@PRIVATE
@NFT
def test_a_map_of_ranges_of_ports_gives_what_the_kernel_has() -> None:
    rule = (
        "meta l4proto tcp snat to 192.0.2.1:ip saddr map { 10.0.0.1 : 33000-60000, 10.0.0.2 : 33000-60000 }"
    )
    text = f"table ip t {{ chain c {{ type nat hook postrouting priority 100; {rule}; }}; }}"

    def look() -> tuple[bool, list[NotExposed | None]]:
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        printed = subprocess.check_output(["nft", "list", "ruleset"], text=True)
        rules = reader.read(netns_lookup.here()).snat_rules
        return "33000-0" in printed, [rule.not_exposed for rule in rules]

    lost, reasons = in_sandbox(look)
    assert reasons == [NotExposed.single_port if lost else None]


@pytest.mark.parametrize(
    ("lead", "map_", "exposed"),
    [
        (("jump { ... }", ["jump {\n\t\t\tip saddr 10.0.0.0/8 goto led\n\t\t}"]), {}, True),
        (("jump { ... }", ["jump {\n\t\t\ttcp dport vmap { 80 : jump led }\n\t\t}"]), {}, True),
        (("jump { ... }", ["jump {\n\t\t\toifname vmap @v\n\t\t}"]), {"elem": [["eth0", TO_LED]]}, True),
        (("jump { ... }", ["jump {\n\t\t\ttcp dport 80 accept\n\t\t}"]), {}, False),
        (BY_MAP, {"elem": [["eth0", TO_LED]], "flags": ["timeout"]}, True),
        (BY_MAP, {"elem": [{"odd": ["eth0", TO_LED]}]}, True),
        (BY_MAP, {"elem": [["eth0", {"accept": None}]]}, False),
    ],
)
def test_what_leads_in_a_hidden_way_leads(lead: Any, map_: dict[str, Any], exposed: bool) -> None:
    """Else the chain would be for one client only, because of the other rule that leads there."""
    assert [rule.exposed for rule in judged(listed(ONE_CLIENT).snat_rules, HostTraits())] == [False]
    rules = judged(listed(lead, ONE_CLIENT, **map_).snat_rules, HostTraits())
    assert [rule.exposed for rule in rules] == [exposed]
