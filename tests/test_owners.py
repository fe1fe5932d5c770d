"""Who wrote a SNAT rule: what each program writes, and what others write that looks like it."""

import re
from collections.abc import Iterator

import pytest

from snat_race.results.findings import ChainAddress, RuleOwner
from snat_race.rules.exposure import SnatRule
from snat_race.rules.iptables_save import IptablesSave
from snat_race.rules.owner_marks import MARKS
from snat_race.rules.owners import Owners, owner_of
from tests.conftest import ROOT

NFT_RULE = re.compile(r"nft (\S+) (\S+) (\S+): (.+)")
COMMENT = re.compile(r' comment "([^"]*)"$')
FLAGS = ("", " --random", " --random-fully", " --persistent", " --random-fully --persistent")


def rules_of(version: int, *lines: str) -> list[SnatRule]:
    """The SNAT rules of a table nat of iptables, as the parser hands them on."""
    chains = dict.fromkeys(["POSTROUTING", *(line.split()[1] for line in lines)])
    head = "".join(f":{chain} - [0:0]\n" for chain in chains)
    body = "".join(f"[0:0] {line}\n" for line in lines)
    ruleset = IptablesSave("ip6tables" if version == 6 else "iptables", f"*nat\n{head}{body}COMMIT\n")
    assert ruleset.broken == []
    return list(ruleset.snat_rules)


def rule_of(line: str) -> SnatRule:
    """A line of owners.txt."""
    tool, _, text = line.partition(" ")
    if tool != "nft":
        (rule,) = rules_of(6 if tool == "ip6tables" else 4, text)
        return rule
    shape = NFT_RULE.fullmatch(line)
    assert shape, line
    address = ChainAddress(tool="nft", family=shape[1], table=shape[2], chain=shape[3])
    comment = COMMENT.search(shape[4])
    return SnatRule(chain=address, index=0, text=shape[4], comment=comment[1] if comment else "")


def owner_in(line: str, chain: str) -> RuleOwner:
    """Who wrote a rule on a host with another chain, TABLE and NAME; "" is none."""
    table, _, name = chain.partition(" ")
    rule = rule_of(line)
    return Owners([rule], [rule.chain.key, (rule.chain.family, table, name)]).owner_of(rule)


def examples() -> Iterator[tuple[RuleOwner, str, str]]:
    owner = RuleOwner.unknown
    for line in (ROOT / "tests" / "owners.txt").read_text().splitlines():
        if line.startswith("== "):
            owner = RuleOwner(line.removeprefix("== "))
        elif line and not line.startswith("#"):
            shape = re.fullmatch(r"(?:\[(.+?)\] )?(.+)", line)
            assert shape
            yield owner, shape[2], shape[1] or ""


EXAMPLES = list(examples())


@pytest.mark.parametrize(("owner", "line", "chain"), EXAMPLES)
def test_a_rule_belongs_to_the_program_that_writes_it_so_and_there(
    owner: RuleOwner, line: str, chain: str
) -> None:
    assert owner_in(line, chain) == owner


@pytest.mark.parametrize(("line", "chain"), [row[1:] for row in EXAMPLES if row[2]])
def test_a_rule_that_anybody_may_write_is_nobodys_without_the_chain_of_a_program(
    line: str, chain: str
) -> None:
    assert owner_of(rule_of(line)) == RuleOwner.unknown
    assert owner_in(line, f"{chain}-2") == RuleOwner.unknown


@pytest.mark.parametrize(
    ("owner", "line", "chain"), [row for row in EXAMPLES if not row[1].startswith("nft")]
)
def test_a_rule_has_the_same_owner_whatever_its_flags_are(owner: RuleOwner, line: str, chain: str) -> None:
    plain = re.sub(r"( --random| --random-fully| --persistent)+$", "", line)
    assert {owner_in(f"{plain}{flags}", chain) for flags in FLAGS} == {owner}


def test_every_owner_but_shorewall_has_an_example() -> None:
    assert set(MARKS) - {owner for owner, *_ in EXAMPLES} == {RuleOwner.shorewall}


def test_the_pods_of_ovn_kubernetes_are_known_by_the_rule_next_to_theirs() -> None:
    pods = "-A POSTROUTING -s 10.244.1.0/24 -j MASQUERADE"
    own = "-A POSTROUTING -s 169.254.0.1/32 -j MASQUERADE"
    other = "-A POSTROUTING -s 10.9.0.0/16 -o eth0 -j MASQUERADE"
    for lines, owner in (
        ([own, pods], RuleOwner.ovn_kubernetes),
        ([pods, own], RuleOwner.ovn_kubernetes),
        ([own, other, pods], RuleOwner.unknown),
    ):
        rules = rules_of(4, *lines)
        (rule,) = [rule for rule in rules if rule.text == pods]
        chains = [("ip", "nat", "OVN-KUBE-SNAT-MGMTPORT")]
        assert Owners(rules, chains).owner_of(rule) == owner
        assert Owners(rules).owner_of(rule) == RuleOwner.unknown


FLANNEL = (
    "-A POSTROUTING -s 10.244.0.0/16 -d 10.244.0.0/16 -j RETURN",
    "-A POSTROUTING -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE",
    "-A POSTROUTING ! -s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN",
    "-A POSTROUTING ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE",
)
LIBVIRT = (
    "-A POSTROUTING -s 10.7.0.0/24 ! -d 10.7.0.0/24 -p tcp -j MASQUERADE --to-ports 1024-65535",
    "-A POSTROUTING -s 10.7.0.0/24 ! -d 10.7.0.0/24 -p udp -j MASQUERADE --to-ports 1024-65535",
    "-A POSTROUTING -s 10.7.0.0/24 ! -d 10.7.0.0/24 -j MASQUERADE",
)


@pytest.mark.parametrize(("owner", "lines"), [(RuleOwner.flannel, FLANNEL), (RuleOwner.libvirt, LIBVIRT)])
@pytest.mark.parametrize("flag", ["", " --random-fully"])
def test_old_flannel_and_libvirt_are_known_by_rules_of_one_network_only(
    owner: RuleOwner, lines: tuple[str, ...], flag: str
) -> None:
    """``flag``: as it is written by a flannel that can, or by ``mitigate``."""

    def owners(*lines: str) -> set[RuleOwner]:
        rules = rules_of(4, *lines)
        return {Owners(rules).owner_of(rule) for rule in rules}

    written = [f"{line}{flag if 'MASQUERADE' in line else ''}" for line in lines]
    assert owners(*written) == {owner}
    for line in written:
        assert owners(line) <= {RuleOwner.unknown}
    of_two = [written[-1].replace(".0/", ".128/"), *written[:-1]]
    assert RuleOwner.unknown in owners(*of_two)
    assert owners(written[1], written[1]) == {RuleOwner.unknown}


def test_shorewall_is_known_by_the_chain_that_says_it_is_started() -> None:
    (rule,) = rules_of(4, "-A eth0_masq -s 10.0.0.0/24 -j MASQUERADE")
    started = Owners([rule], [("ip", "filter", "shorewall"), ("ip", "nat", "eth0_masq")])
    assert started.owner_of(rule) == RuleOwner.shorewall
    assert Owners([rule], [("ip", "filter", "INPUT")]).owner_of(rule) == RuleOwner.unknown
