"""Which rules are exposed, and who wrote them: pure."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snat_race.results.findings import ChainAddress, RuleOwner, ToolName
from snat_race.rules.exposure import HostTraits, SnatRule, Translation, judged
from snat_race.rules.iptables_save import IptablesSave
from snat_race.rules.iptables_words import NatRule, words_of
from snat_race.rules.owners import owner_of
from snat_race.rules.ruleset import RuleLine
from snat_race.rules.traffic import Traffic, addresses, protocol


@pytest.mark.parametrize(
    ("line", "source", "exposed"),
    [
        ('-A POSTROUTING -m string --string "-j" --algo bm -j MASQUERADE', "", True),
        ("-A POSTROUTING -s 10.1.0.0/16 -j MASQUERADE --to-ports 1024-2000", "10.1.0.0/16", False),
        ("-A POSTROUTING -s 10.1.0.0/16 -j MASQUERADE --to-ports 1024-40000", "10.1.0.0/16", True),
        ("-A POSTROUTING -s 10.1.0.1/32 -j MASQUERADE", "10.1.0.1/32", False),
        ("-A POSTROUTING -m comment --comment --random-fully -j MASQUERADE", "", True),
        ("-A POSTROUTING -m comment --comment --to-ports -j MASQUERADE", "", True),
    ],
)
def test_a_rule_is_judged_by_its_own_words(line: str, source: str, exposed: bool) -> None:
    text = f"*nat\n:POSTROUTING ACCEPT [0:0]\n[0:0] {line}\nCOMMIT\n"
    rules = IptablesSave("iptables", text).snat_rules
    (rule,) = judged(rules, HostTraits())
    assert (rule.source_network, rule.exposed) == (source, exposed)
    (old,) = judged(rules, HostTraits(random_is_full=False))
    assert old.exposed or source.endswith("/32")


def test_two_clients_race_by_rules_of_different_tools_too() -> None:
    def single(tool: ToolName, family: str, source: str, address: str = "", named: str = "") -> SnatRule:
        chain = ChainAddress(tool=tool, family=family, table="nat", chain="x")
        traffic = Traffic(sources=addresses(source), protocols=protocol(named or "all"))
        translation = Translation(traffic, addresses(address) if address else None)
        return SnatRule(chain=chain, index=0, text="", translations=(translation,))

    one = single("nft", "inet", "10.0.0.1")
    for other, races in (
        (single("iptables-nft", "ip", "10.0.0.2/32"), True),
        (single("iptables-nft", "ip", "10.0.0.2/32", "192.0.2.1"), True),
        (single("iptables-nft", "ip", "10.0.0.1/32"), False),
        (single("iptables-nft", "ip", "10.0.0.2", named="udp"), True),
        (single("nft", "inet", "fd00::1"), False),
    ):
        assert [rule.exposed for rule in judged([one, other], HostTraits())] == [races, races]


@pytest.mark.parametrize(
    ("rule", "chain", "owner"),
    [
        ("-o cali-x -j MASQUERADE", "POSTROUTING", RuleOwner.unknown),
        ("-o FLANNEL0 -j MASQUERADE", "POSTROUTING", RuleOwner.unknown),
        ("-j MASQUERADE", "POST_my-zone_allow", RuleOwner.firewalld),
    ],
)
def test_an_owner_is_known_by_what_it_writes(rule: str, chain: str, owner: RuleOwner) -> None:
    address = ChainAddress(tool="iptables", family="ip", table="nat", chain=chain)
    assert owner_of(SnatRule(chain=address, index=0, text=f"-A {chain} {rule}")) == owner


JUMPS = ("-j", "--jump", "-g", "--goto")
PARTS = (
    *JUMPS,
    "ACCEPT",
    "KUBE-X",
    "-s",
    '"a -j DROP"',
    '"',
    '\\"',
    '"say \\" -j X "',
    "\\",
    '"-j"',
    "",
    "\n",
)


@settings(max_examples=2000, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=9), st.sampled_from(["", " -j KUBE-Y", " -j KUBE-Y -g"]))
def test_a_rule_jumps_where_its_words_say_that_it_does(parts: list[str], end: str) -> None:
    text = f"-A POSTROUTING {' '.join(parts)}{end}"
    words = [] if "\n" in text else words_of(text)
    named = [target for option, target in pairwise(words) if option in JUMPS and not target.startswith("-")]
    rule = NatRule(RuleLine(number=0, text=text, uncounted=text))
    assert rule.target == (named[-1] if named else "")
