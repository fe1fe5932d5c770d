"""Large sets and maps of nft that rules ask for by name."""

import ipaddress
import json
import time
from typing import Any

import pytest

from snat_race.results.findings import NotExposed
from snat_race.rules.exposure import HostTraits, judged
from snat_race.rules.nft_list import NftList

MOST_CPU_S = 8.0  # some 4 s at the most when nothing else runs; 20 rules took 56 s
MEMBERS = 20_000
SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
CHAIN = {"family": "ip", "table": "t", "chain": "c"}


def address(number: int) -> str:
    return str(ipaddress.ip_address(int(ipaddress.ip_address("10.0.0.0")) + 2 * number))


def one_to_one(number: int) -> Any:
    return [address(number), address(MEMBERS + number)]


def client_and_port(number: int) -> Any:
    return {"concat": [address(number), number + 1]}


def judgement(kind: str, elements: list[Any], rules: int) -> set[NotExposed | None]:
    """What is said of rules, one a device, that ask for one set or map."""
    if kind == "map":
        words = "snat to ip saddr map @big"
        said: Any = [{"snat": {"addr": {"map": {"key": SADDR, "data": "@big"}}}}]
    else:
        words = "ip saddr . tcp dport @big masquerade"
        asked = {"op": "==", "left": {"concat": [SADDR, DPORT]}, "right": "@big"}
        said = [{"match": asked}, {"masquerade": None}]
    base = {"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    objects: list[Any] = [
        {"chain": {"family": "ip", "table": "t", "name": "c", "handle": 1} | base},
        {kind: {"family": "ip", "table": "t", "name": "big", "handle": 2, "elem": elements}},
    ]
    lines = []
    for handle in range(3, 3 + rules):
        device = {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": f"eth{handle}"}
        objects.append({"rule": CHAIN | {"handle": handle, "expr": [{"match": device}, *said]}})
        lines.append(f'\t\toifname "eth{handle}" {words} # handle {handle}\n')
    text = f"table ip t {{ # handle 1\n\tchain c {{ # handle 1\n{''.join(lines)}\t}}\n}}\n"
    ruleset = NftList("nft", text, json.dumps({"nftables": objects}))
    assert ruleset.broken == []
    assert len(ruleset.snat_rules) == rules
    return {rule.not_exposed for rule in judged(ruleset.snat_rules, HostTraits())}


@pytest.mark.parametrize(
    ("kind", "element", "rules", "reason"),
    [
        ("map", one_to_one, 1, NotExposed.address_per_client),
        ("map", one_to_one, 3, NotExposed.address_per_client),
        ("set", client_and_port, 1, NotExposed.tuples_apart),
        # Too many to be told apart, so they may be anything.
        ("map", one_to_one, 100, None),
        ("set", client_and_port, 100, None),
    ],
)
def test_what_many_rules_ask_for_is_judged_in_time(
    kind: str, element: Any, rules: int, reason: NotExposed | None
) -> None:
    elements = [element(number) for number in range(MEMBERS)]
    before = time.process_time()
    reasons = judgement(kind, elements, rules)
    assert time.process_time() - before < MOST_CPU_S
    assert reasons == {reason}


def test_a_small_set_is_told_apart_however_many_rules_ask_for_it() -> None:
    assert judgement("map", [one_to_one(number) for number in range(9)], 500) == {
        NotExposed.address_per_client
    }
