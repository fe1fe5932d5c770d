"""Which rules are exposed, and who wrote them: pure."""

import pytest

from snat_race.rules import iptables_save
from snat_race.rules.exposure import Facts, Place, SnatRule, judged
from snat_race.rules.owners import UNKNOWN, owner_of


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
    text = f"*nat\n:POSTROUTING ACCEPT [0:0]\n{line}\nCOMMIT\n"
    (rule,) = judged(iptables_save.snat_rules("iptables", text), Facts())
    assert (rule.source, not rule.harmless) == (source, exposed)
    (old,) = judged(iptables_save.snat_rules("iptables", text), Facts(random_is_full=False))
    assert not old.harmless or source.endswith("/32")


def test_two_clients_race_by_rules_of_different_tools_too() -> None:
    def single(tool: str, family: str, source: str, address: str = "", protocol: str = "") -> SnatRule:
        place = Place(tool, family, "nat", "x")
        return SnatRule(place, 0, "", address, source=source, protocol=protocol)

    one = single("nft", "inet", "10.0.0.1")
    for other, races in (
        (single("iptables-nft", "ip", "10.0.0.2/32"), True),
        (single("iptables-nft", "ip", "10.0.0.2/32", "192.0.2.1"), True),
        (single("iptables-nft", "ip", "10.0.0.1/32"), False),
        (single("iptables-nft", "ip", "10.0.0.2", protocol="udp"), True),
        (single("nft", "inet", "fd00::1"), False),
    ):
        assert [not rule.harmless for rule in judged([one, other], Facts())] == [races, races]


@pytest.mark.parametrize(
    ("rule", "chain", "writer"),
    [
        ("-s 172.17.0.0/16 -o docker0 -m addrtype --src-type LOCAL -j MASQUERADE", "POSTROUTING", "Docker"),
        ("-o cali-x -j MASQUERADE", "POSTROUTING", UNKNOWN.name),
        ("-o FLANNEL0 -j MASQUERADE", "POSTROUTING", UNKNOWN.name),
        ("-j MASQUERADE", "POST_my-zone_allow", "firewalld"),
    ],
)
def test_a_writer_is_known_by_what_it_writes(rule: str, chain: str, writer: str) -> None:
    place = Place("iptables", "ip", "nat", chain)
    assert owner_of(SnatRule(place, 0, f"-A {chain} {rule}")).name == writer
