"""What versions of nft and iptables print of the same rules, recorded; each is read alike.

``nft_versions`` has the text and the JSON (one object a line) of a ruleset with the forms that nft knows;
``iptables_versions`` what ``iptables-nft-save -c`` prints of another.
"""

from pathlib import Path
from typing import Any

import pytest

from snat_race.results.findings import Unchangeable
from snat_race.rules.exposure import SnatRule
from snat_race.rules.iptables_save import IptablesSave
from snat_race.rules.nft_json import listing, translation_in_words
from snat_race.rules.nft_list import NftList
from snat_race.rules.traffic import ANY_PROTOCOL, protocol

HERE = Path(__file__).parent
NFT_VERSIONS = ("1.0.2", "1.0.6", "1.0.9", "1.1.3", "1.1.7")
IPTABLES_VERSIONS = ("1.8.7", "1.8.9", "1.8.10", "1.8.11", "1.8.13")
AMONG_IPTABLES = (
    "chain ip nat ts-postrouting handle 14 "
    "'meta mark & 0x00ff0000 == 0x00040000 counter packets 0 bytes 0 masquerade'"
)


def nft(version: str) -> NftList:
    folder = HERE / "nft_versions"
    return NftList("nft", (folder / f"{version}.txt").read_text(), (folder / f"{version}.json").read_text())


def facts(rules: tuple[SnatRule, ...]) -> list[tuple[Any, ...]]:
    """What is known of rules, without their words, which versions choose."""
    return [
        (
            rule.chain.key,
            rule.to_address,
            rule.flags,
            rule.ports,
            rule.source_network,
            [one.traffic[:5] for one in rule.translations[:1]],
            rule.comment,
            rule.reachable,
            rule.unchangeable,
        )
        for rule in rules
    ]


@pytest.mark.parametrize("version", NFT_VERSIONS)
def test_every_version_of_nft_is_read_alike(version: str) -> None:
    ruleset, known = nft(version), facts(nft("1.0.6").snat_rules)
    # Before 1.0.6, nft does not name iptables' targets: which rule translates sources is not known.
    named = version != "1.0.2"
    assert facts(ruleset.snat_rules) == [
        fact for fact in known if named or fact[-1] is not Unchangeable.iptables_does_not_print
    ]
    assert len(known) == 41
    assert ruleset.broken == []
    # 1.0.2 reads no verdicts in sets that a newer nft has made: they may be jumps.
    assert ruleset.not_understood == ([] if named else ["chain ip shapes post handle 52"])
    assert ("ip", "nat", "POSTROUTING") in ruleset.written_by_iptables
    assert ruleset.foreign_to_iptables("ip", "nat") == [AMONG_IPTABLES]


@pytest.mark.parametrize("version", NFT_VERSIONS)
def test_rules_in_anonymous_chains_are_known_by_their_words(version: str) -> None:
    inside = [
        rule for rule in nft(version).snat_rules if rule.unchangeable is Unchangeable.in_anonymous_chain
    ]
    assert [
        (rule.text, rule.source_network, rule.translations[0].traffic.protocols, set(rule.flags))
        for rule in inside
    ] == [
        ("ip saddr 10.81.0.0/16 masquerade", "10.81.0.0/16", ANY_PROTOCOL, set()),
        (
            (
                "ip saddr 10.82.0.0/16 ip daddr != 10.0.0.0/8 counter packets 0 bytes 0 snat to 192.0.2.8 "
                "fully-random"
            ),
            "10.82.0.0/16",
            ANY_PROTOCOL,
            {"fully-random"},
        ),
        ("ip protocol icmp masquerade", "", protocol("icmp"), set()),
        ('ip saddr 10.83.0.7 masquerade comment "a } b"', "10.83.0.7", ANY_PROTOCOL, set()),
    ]


@pytest.mark.parametrize("version", NFT_VERSIONS)
def test_words_say_what_json_says(version: str) -> None:
    ruleset = nft(version)
    rules = listing([(HERE / "nft_versions" / f"{version}.json").read_text()]).rules
    compared = 0
    for rule in rules:
        if rule.translation and not rule.inner_text:
            said = translation_in_words(ruleset._text_of(rule))
            assert said, rule
            assert (said.flags - {"netmap"}, said.ports) == (
                rule.translation.flags - {"netmap"},
                rule.translation.ports,
            )
            if "{" not in rule.translation.to_address:
                assert said.to_address == rule.translation.to_address
            compared += 1
    assert compared == 34


@pytest.mark.parametrize("version", IPTABLES_VERSIONS)
def test_every_version_of_iptables_is_read_alike(version: str) -> None:
    def ruleset(version: str) -> IptablesSave:
        text = (HERE / "iptables_versions" / f"{version}.rules").read_text()
        return IptablesSave("iptables-nft", text)

    known = facts(ruleset("1.8.9").snat_rules)
    assert facts(ruleset(version).snat_rules) == known
    assert len(known) == 14
    assert (ruleset(version).broken, ruleset(version).not_understood) == ([], [])
