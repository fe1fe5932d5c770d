"""What nft says in JSON: its own faults, and what other versions of it may say."""

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from snat_race.errors import EnvironmentLacks
from snat_race.kernel import netns_lookup
from snat_race.kernel.counters import CounterReader
from snat_race.kernel.netns_lookup import HERE
from snat_race.results.conclusions import MeasurementWarning, WarningKind
from snat_race.results.findings import Level, Unchangeable, UnreadableReason
from snat_race.rules import nft_commands, reader
from snat_race.rules.exposure import SnatRule
from snat_race.rules.nft_list import NftList
from snat_race.runs import doctor, watch
from snat_race.runs.settings import WatchSettings
from tests.conftest import NFT, PRIVATE, in_sandbox

if TYPE_CHECKING:
    from snat_race.results.schema import Started

TEXT = """table ip a { # handle 1
\tchain post { # handle 2
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip saddr 10.0.0.0/8 masquerade # handle 3
\t}
\tchain led { # handle 4
\t\tmasquerade # handle 5
\t}
}
"""
POST = {"family": "ip", "table": "a", "name": "post", "type": "nat", "hook": "postrouting", "handle": 2}
WHERE = {"family": "ip", "table": "a"}
LED = WHERE | {"chain": "led", "handle": 5, "expr": [{"masquerade": None}]}


def nft(statements: Any, *others: dict[str, Any], text: str = TEXT) -> NftList:
    rule = WHERE | {"chain": "post", "handle": 3, "expr": statements}
    objects = [{"metainfo": {}}, {"chain": POST}, {"rule": rule}, {"rule": LED}, *others]
    return NftList("nft", text, json.dumps({"nftables": objects}))


def rule_of(statements: Any) -> SnatRule:
    rules = nft(statements).snat_rules
    (rule,) = (rule for rule in rules if rule.chain.chain == "post")
    return rule


@pytest.mark.parametrize("flag", ["dormant", "owner"])
@pytest.mark.parametrize("tables", [["tx0"], ["t", "txxxxxx"], ["own" * 20]])
@PRIVATE
@NFT
@pytest.mark.parametrize("cut", [False, True])
def test_rules_are_read_whatever_flags_a_table_has(
    flag: str, tables: list[str], cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nft 1.0.6 now and then ends its JSON at a table's flags, and exits 0: as its memory happens to be."""
    output = reader._output
    if cut:
        monkeypatch.setattr(
            reader, "_output", lambda *args: re.sub('"flags": .*', '"flags": ', output(*args), count=1)
        )
    chain = "chain post {\ntype nat hook postrouting priority srcnat\nmasquerade\n}\n"
    script = "".join(f"table inet {name} {{\nflags {flag}\n{chain}}}\n" for name in tables)
    script += f"table ip other {{\n{chain}}}\n"

    def read() -> tuple[set[str], dict[str, bool], set[Level]]:
        # A table's owner is the socket that made it: it is gone with that.
        owner = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert owner.stdin
        assert owner.stdout
        for line in (script.replace("\n", "; ").replace("{;", "{").strip("; ") + "\n").splitlines():
            owner.stdin.write(f"{line}\nlist tables\n")
            owner.stdin.flush()
        for _ in range(len(tables) + 1):
            owner.stdout.readline()
        rules = reader.read(netns_lookup.here())
        levels = {finding.level for finding in doctor.examine(netns_lookup.here(), 0).findings}
        owner.kill()
        owner.communicate()
        return (
            {unreadable.reason for unreadable in rules.unreadable},
            {rule.chain.table: rule.reachable for rule in rules.snat_rules},
            levels,
        )

    reasons, reachable, levels = in_sandbox(read)
    assert reasons == set()
    assert reachable == dict.fromkeys(tables, flag != "dormant") | {"other": True}
    assert Level.unknown not in levels


DEEP = "[" * 100_000
NO_LISTINGS = ["", "{", "[]", "null", "1" * 5000, '{"nftables": 1}', '{"nftables": [1]}', DEEP]
NO_LISTINGS += ['{"nftables": [{"rule": null}]}', '{"nftables": [{"chain": ["nat"]}]}']
NO_LISTINGS += ['{"nftables": [{"rule": {"family": "ip"}}]}']


@pytest.mark.parametrize("document", NO_LISTINGS)
def test_what_is_no_listing_says_so(document: str) -> None:
    with pytest.raises(EnvironmentLacks, match=r"its JSON could not be read: .+"):
        NftList("nft", TEXT, document)


@pytest.mark.parametrize(
    "statements",
    [
        [{"new_snat": {}}],
        ["snat to 10.0.0.1"],
        [{}],
        [None],
        None,
        [],
        7,
        [{"jump": "led"}],
        [{"jump": {"chain": ["masquerade"]}}],
        [{"masquerade": 5}],
        [{"masquerade": {"flags": {"fully-random": True}}}],
        [{"masquerade": {"flags": ["fully-random", 1]}}],
    ],
)
def test_what_is_not_known_is_unknown(statements: Any) -> None:
    ruleset = nft(statements)
    assert ruleset.not_understood == ["chain ip a post handle 3"]
    assert all("fully-random" not in rule.flags for rule in ruleset.snat_rules)


def test_a_range_of_protocols_may_have_no_end() -> None:
    protocols = {"payload": {"protocol": "ip", "field": "protocol"}}
    match = {"match": {"op": "==", "left": protocols, "right": {"range": [6, float("inf")]}}}
    assert rule_of([match, {"masquerade": None}]).translations


SOURCE = {"payload": {"protocol": "ip", "field": "saddr"}}
DRAWN = {"numgen": {"mode": "random", "mod": 2, "offset": 0}}
MARK = {"meta": {"key": "mark"}}


def is_it(left: Any) -> dict[str, Any]:
    return {"match": {"op": "==", "left": left, "right": 0}}


def mapped(key: Any, data: Any) -> list[dict[str, Any]]:
    return [{"snat": {"addr": {"map": {"key": key, "data": data}}, "flags": "fully-random"}}]


@pytest.mark.parametrize(
    ("before", "conditions", "gets_packets"),
    [
        ([mapped(SOURCE, "@filled_later")], [], True),
        ([mapped({"ct": {"key": "mark"}}, {"set": [[1, "192.0.2.1"]]})], [], True),
        ([mapped(DRAWN, {"set": [[0, "192.0.2.1"], [1, "192.0.2.2"]]})], [], False),
        ([[is_it(DRAWN), {"accept": None}]], [is_it(DRAWN)], True),
        ([[is_it(MARK), {"accept": None}]], [is_it(MARK)], False),
        ([[is_it(MARK), {"accept": None}], [{"mangle": {"key": MARK, "value": 0}}]], [is_it(MARK)], True),
    ],
)
def test_a_rule_gets_what_earlier_ones_may_leave(
    before: list[Any], conditions: list[Any], gets_packets: bool
) -> None:
    rules = [*before, [*conditions, {"masquerade": None}]]
    numbered = [
        {"rule": WHERE | {"chain": "post", "handle": handle, "expr": statements}}
        for handle, statements in enumerate(rules, 10)
    ]
    lines = "".join(f"\t\trule # handle {10 + number}\n" for number in range(len(rules)))
    text = f"table ip a {{\n\tchain post {{\n{lines}\t}}\n}}\n"
    last = NftList("nft", text, json.dumps({"nftables": [{"chain": POST}, *numbered]})).snat_rules[-1]
    assert bool(last.translations) == gets_packets


def test_unknown_statements_elsewhere_do_not_matter() -> None:
    filtering = WHERE | {"chain": "filter", "handle": 9, "expr": [{"new": 1}]}
    assert nft([{"masquerade": None}], {"rule": filtering}).not_understood == []


@pytest.mark.parametrize(
    ("port", "ports"),
    [
        (80, (80, 80)),
        ("80", (80, 80)),
        ({"range": [1, 2]}, (1, 2)),
        ({"range": ["1024", "2000"]}, (1024, 2000)),
        ({"range": [2, 1]}, None),
        ({"range": [1]}, None),
        ({"range": [1, 70000]}, None),
        ({"map": {"key": 1, "data": "@m"}}, None),
        (None, None),
        (True, None),
        (-1, None),
        ("9" * 5000, None),
    ],
)
def test_ports_that_cannot_be_are_any(port: Any, ports: tuple[int, int] | None) -> None:
    assert rule_of([{"snat": {"addr": "10.0.0.1", "port": port}}]).ports == ports


def test_a_handle_that_is_missing_or_of_no_rule_in_the_text_is_shown() -> None:
    for statements, text in (([{"masquerade": None}], TEXT.replace("handle 3", "handle 4")), ([], TEXT)):
        ruleset = nft(statements, {"rule": LED | {"handle": None}}, text=text)
        assert "chain ip a led" in ruleset.broken
    assert nft([{"masquerade": None}]).broken == []


def test_a_rule_of_the_text_that_json_does_not_have_is_shown() -> None:
    only_chains = json.dumps({"nftables": [{"chain": POST}]})
    assert NftList("nft", TEXT, only_chains).broken == ["chain ip a led", "chain ip a post"]


@pytest.mark.parametrize(
    "comment",
    ["a\n\t\tmasquerade # handle 5", 'a" # handle 3\n\t\tmasquerade # handle 4\n\t\tcomment "b', "a\n}"],
)
def test_a_comment_that_reads_like_rules_is_shown(comment: str) -> None:
    text = TEXT.replace("masquerade # handle 3", f'masquerade comment "{comment}" # handle 3')
    assert nft([{"masquerade": None}], text=text).broken


def of_set(name: str) -> dict[str, Any]:
    source = {"payload": {"protocol": "ip", "field": "saddr"}}
    return {"match": {"op": "==", "left": source, "right": name}}


def test_what_nft_can_quote_is_changed() -> None:
    rule = WHERE | {"chain": "post", "handle": 3, "expr": [of_set("@clients_1"), {"masquerade": None}]}
    document = {"nftables": [{"rule": rule | {"comment": "@team; dns # {"}}]}
    assert NftList("nft", TEXT, json.dumps(document)).snat_rules[0].unchangeable is None


@pytest.mark.parametrize(
    ("expression", "comment"),
    [
        ({"masquerade": None}, 'a"b'),
        ({"masquerade": None}, "a\nb"),
        ({"log": {"prefix": 'a"'}}, "a"),
        (of_set("@s ; flush ruleset"), "a"),
        ({"jump": {"target": "x; flush ruleset #"}}, "a"),
        (
            {
                "vmap": {
                    "key": {"meta": {"key": "mark"}},
                    "data": {"set": [[1, {"goto": {"target": "x;"}}]]},
                }
            },
            "a",
        ),
        ({"meter": {"name": "m; flush ruleset #", "key": 1, "stmt": {"limit": None}}}, "a"),
    ],
)
def test_what_nft_cannot_quote_is_not_changed(expression: dict[str, Any], comment: str) -> None:
    rule = WHERE | {"chain": "post", "handle": 3, "expr": [expression, {"masquerade": None}]}
    (strange,) = NftList(
        "nft", TEXT, json.dumps({"nftables": [{"rule": rule | {"comment": comment}}]})
    ).snat_rules
    assert strange.unchangeable is Unchangeable.text_is_ambiguous


@pytest.mark.parametrize("name", ["a;flush", "-f/tmp/file"])
def test_a_name_that_nft_would_take_for_a_command_is_not_handed_to_it(name: str) -> None:
    text = TEXT.replace("table ip a", f"table ip {name}").replace(
        "{ # handle 1\n", "{ # handle 1\n\tflags owner\n", 1
    )
    with pytest.raises(EnvironmentLacks, match="no name to nft"):
        nft_commands.of_json_without_flags("nft", text, NftList("nft", text).chains)


@PRIVATE
@NFT
def test_a_watch_goes_on_without_the_rules_and_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft_commands, "of_json", lambda tool, _: [[tool, "--version"]])

    def watched() -> tuple[list[MeasurementWarning], list[MeasurementWarning], bool]:
        subprocess.run(["nft", "add table ip a; add chain ip a b"], check=True)
        heads: list[Started] = []
        result, ended = watch.run(
            WatchSettings(netns=HERE, interval_s=0.1, duration_s=0.2),
            CounterReader(netns_lookup.here()),
            lambda _: None,
            on_start=heads.append,
        )
        assert ended is None
        return heads[0].warnings, result.warnings, result.nat.known

    at_start, at_end, known = in_sandbox(watched)
    assert not known
    assert at_start == at_end
    assert [(warning.kind, warning.values) for warning in at_end] == [
        (WarningKind.some_rules_unread, {"tools": "nft"})
    ]


def test_rules_that_cannot_be_read_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft_commands, "of_json", lambda tool, _: [[tool, "--version"]])

    def read() -> list[tuple[str, str]]:
        subprocess.run(["nft", "add table ip a; add chain ip a b"], check=True)
        return [(bad.reason, bad.details[0]) for bad in reader.read(netns_lookup.here()).unreadable]

    ((reason, why),) = in_sandbox(read)
    assert reason == UnreadableReason.tool_failed
    assert why.startswith("its JSON could not be read: ")
