"""Text and JSON that tools print now and then: it is read, or shown as what could not be read."""

import json
from typing import Any

import pytest

from snat_race.errors import EnvironmentLacks
from snat_race.results.findings import Unchangeable
from snat_race.rules.exposure import HostTraits, judged
from snat_race.rules.iptables_save import IptablesSave
from snat_race.rules.nft_list import NftList

RULE = "-A POSTROUTING -s 10.1.0.0/16 -j MASQUERADE"


def saved(*lines: str) -> IptablesSave:
    return IptablesSave("iptables", "\n".join(("*nat", ":POSTROUTING ACCEPT [0:0]", *lines, "COMMIT", "")))


def exposed(ruleset: IptablesSave | NftList) -> list[str]:
    return [rule.text for rule in judged(ruleset.snat_rules, HostTraits()) if rule.exposed]


@pytest.mark.parametrize(
    "text",
    [
        (
            "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"
            f"*nat\n:POSTROUTING ACCEPT [0:0]\n[0:0] {RULE}\nCOMMIT\n"
        ),
        f"*nat\n:POSTROUTING ACCEPT [0:0]\n[0:0] {RULE}\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n",
        (
            "*raw\n:OUTPUT ACCEPT [0:0]\n[0:0] -A OUTPUT -p tcp -j NOTRACK\nCOMMIT\n"
            f"*nat\n:POSTROUTING ACCEPT [0:0]\n[18446744073709551615:1] {RULE}\nCOMMIT\n"
        ),
    ],
)
def test_what_stands_around_a_rule_does_not_matter(text: str) -> None:
    ruleset = IptablesSave("iptables", text)
    assert (exposed(ruleset), ruleset.broken, ruleset.not_understood) == ([RULE], [], [])


@pytest.mark.parametrize(
    "text",
    [
        f"*nat\n:POSTROUTING ACCEPT [0:0]\n[0:0] {RULE}\n",
        f"*nat\n:POSTROUTING ACCEPT [0:0]\n{RULE}\nCOMMIT\n",
        f"*nat\n[0:0] {RULE}\nCOMMIT\n",
        f"*nat\n:POSTROUTING ACCEPT [0:0]\n[0:0] {RULE}\nCOMMIT\r\n",
        f"[0:0] {RULE}\n",
        f'*nat\n:POSTROUTING ACCEPT [0:0]\n[0:0] {RULE} -m comment --comment "a\nCOMMIT\n',
    ],
)
def test_what_iptables_does_not_print_so_is_shown(text: str) -> None:
    assert IptablesSave("iptables", text).broken


@pytest.mark.parametrize(
    "rule",
    [
        f"{RULE} [unsupported revision]",
        "-A POSTROUTING -m set [unsupported revision] -j MASQUERADE",
        "-A POSTROUTING [16 bytes of unknown match] -j MASQUERADE",
        f"{RULE} [8 bytes of unknown target data] ",
    ],
)
def test_a_rule_that_is_not_printed_whole_is_shown_and_left(rule: str) -> None:
    ruleset = saved(f"[0:0] {rule}")
    assert ruleset.not_understood == [rule]
    assert [one.unchangeable for one in ruleset.snat_rules] == [Unchangeable.iptables_does_not_print]


@pytest.mark.parametrize("comment", ["[unsupported revision]", "[3 bytes of unknown match] -j SNAT"])
def test_a_comment_that_reads_so_is_a_comment(comment: str) -> None:
    rule = f'-A POSTROUTING -m comment --comment "{comment}" -j MASQUERADE'
    ruleset = saved(f"[0:0] {rule}")
    assert (exposed(ruleset), ruleset.not_understood) == ([rule], [])


NFT_TEXT = (
    "table ip t { # handle 1\n\tchain post { # handle 1\n"
    "\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\tmasquerade # handle 2\n\t}\n}\n"
)
WHERE = {"family": "ip", "table": "t"}
POST = {"chain": WHERE | {"name": "post", "type": "nat", "hook": "postrouting"}}
MASQUERADE = {"rule": WHERE | {"chain": "post", "handle": 2, "expr": [{"masquerade": None}]}}


def listed(*more: Any) -> NftList:
    return NftList("nft", NFT_TEXT, json.dumps({"nftables": [POST, MASQUERADE, *more]}))


@pytest.mark.parametrize(
    "thing",
    [
        {"flowtable": WHERE | {"name": "f", "hook": "ingress", "prio": 0, "dev": ["lo"]}},
        {"secmark": WHERE | {"name": "s", "context": "x"}},
        {"tunnel": {"anything": 10**400}},
        {"chain": WHERE | {"name": "no-hook"}},
        {"map": WHERE | {"name": "m", "elem": {"odd": [None, 1.5, [[]]]}}},
        {"set": WHERE | {"name": "s", "type": {"typeof": {"concat": []}}, "elem": 7}},
        {
            "rule": WHERE
            | {"chain": "elsewhere", "handle": 1 << 70, "expr": [{"snat?": None}, None, 3, "x"]}
        },
        {},
    ],
)
def test_objects_that_are_not_known_do_not_matter(thing: Any) -> None:
    ruleset = listed(thing)
    assert (exposed(ruleset), ruleset.broken, ruleset.not_understood) == (["masquerade"], [], [])


@pytest.mark.parametrize("thing", [None, 7, "x", [], {"rule": None}, {"rule": {}}, {"map": {"name": 1}}])
def test_what_is_no_object_makes_the_listing_unread(thing: Any) -> None:
    with pytest.raises(EnvironmentLacks, match="its JSON could not be read"):
        listed(thing)


def test_the_last_of_two_keys_counts_and_bytes_that_are_no_utf_8_are_kept() -> None:
    document = json.dumps({"nftables": [POST, MASQUERADE]})
    twice = document.replace('"handle": 2', '"handle": 9, "handle": 2')
    assert exposed(NftList("nft", NFT_TEXT, twice)) == ["masquerade"]
    text = NFT_TEXT.replace("masquerade", 'masquerade comment "caf\udce9"')
    said = document.replace('"handle": 2', '"handle": 2, "comment": "caf\udce9"')
    assert exposed(NftList("nft", text, said)) == ['masquerade comment "caf\udce9"']


def test_a_match_without_its_name_and_a_field_that_is_none_are_read() -> None:
    assert exposed(saved("[0:0] -A POSTROUTING -m ! -j MASQUERADE")) == [
        "-A POSTROUTING -m ! -j MASQUERADE"
    ]
    for left in ({"payload": {"protocol": ["ip"], "field": [""]}}, {"meta": {"key": [1]}}, {"ct": []}, 7):
        match = {"match": {"op": "==", "left": left, "right": {"set": [[], {}]}}}
        rule = MASQUERADE["rule"] | {"expr": [match, {"masquerade": None}]}
        ruleset = NftList("nft", NFT_TEXT, json.dumps({"nftables": [POST, {"rule": rule}]}))
        assert exposed(ruleset) == ["masquerade"]
