"""Large rulesets: nft is asked only for the chains that have to do with the translation of sources."""

import re
import subprocess
from typing import Any

import pytest

from snat_race.kernel import netns_lookup, nftables
from snat_race.kernel.tools import where
from snat_race.rules import reader
from snat_race.rules.kernel_list import KernelList, Unclear, by_chain
from snat_race.runs import mitigate
from tests.conftest import IPTABLES, NFT, PRIVATE, in_sandbox
from tests.ruleset_generator import TOOLS
from tests.test_rulesets import round_trip

RULES = """
table ip services {
  map numbers { type inet_service : ipv4_addr; elements = { 80 : 10.0.0.1 } }
  chain far { accept; }
  chain endpoint { meta l4proto tcp dnat to 10.0.0.1:80; }
  chain lonely { ip saddr 10.9.0.0/16 snat to 192.0.2.1; }
  chain masquerading { ip saddr 10.0.0.0/8 jump deeper; }
  chain deeper { snat to tcp dport map @numbers; ip daddr 10.1.0.0/16 goto last; }
  chain last { masquerade; }
  chain post { type nat hook postrouting priority srcnat; jump masquerading; }
  chain pre { type nat hook prerouting priority dstnat; goto endpoint; jump far; }
}
table inet filter { chain forward { type filter hook forward priority 0; accept; }; }
"""


def run(*command: str, text: str = "") -> None:
    subprocess.run(command, input=text, text=True, check=True)


def wanted_chains(most: int = 9) -> list[str]:
    here = netns_lookup.here()
    return [
        key[2]
        for key in KernelList(nftables.chains(here), by_chain(nftables.rules(here))).of_interest(most)
    ]


@PRIVATE
@NFT
def test_the_kernel_says_which_chains_have_to_do_with_sources() -> None:
    def wanted() -> list[str]:
        run("nft", "-f", "-", text=RULES)
        return wanted_chains()

    assert sorted(in_sandbox(wanted)) == ["deeper", "last", "lonely", "masquerading", "post"]


@PRIVATE
@NFT
@pytest.mark.parametrize(
    "rule",
    [
        "ip daddr vmap { 10.0.0.1 : jump far }",
        "tcp dport vmap { 80 : goto far, 81 : drop }",
        "ip daddr vmap @leads",
    ],
)
def test_a_map_of_chains_may_lead_anywhere(rule: str) -> None:
    leads = "map leads { type ipv4_addr : verdict; elements = { 10.0.0.1 : goto far } }"

    def wanted() -> bool:
        text = RULES.replace("map numbers", f"{leads}\n  map numbers")
        run("nft", "-f", "-", text=text.replace("jump masquerading", rule))
        with pytest.raises(Unclear):
            wanted_chains()
        return True

    assert in_sandbox(wanted)


@PRIVATE
@NFT
def test_chains_of_too_many_rules_are_not_told() -> None:
    def refused() -> list[bool]:
        run("nft", "-f", "-", text=RULES)
        at_most = []
        for most in (4, 5, 6):
            try:
                wanted_chains(most)
            except Unclear:
                at_most.append(False)
            else:
                at_most.append(True)
        return at_most

    assert in_sandbox(refused) == [False, False, True], "six rules are in them"


def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What nft is asked for from now on."""
    commands: list[list[str]] = []
    output = reader._output

    def kept(namespace: Any, command: list[str]) -> str:
        commands.append(command)
        return output(namespace, command)

    monkeypatch.setattr(reader, "_output", kept)
    return commands


@PRIVATE
@NFT
def test_the_same_is_found_in_parts_as_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = asked_for(monkeypatch)

    def both() -> tuple[Any, Any, list[list[str]]]:
        run("nft", "-f", "-", text=RULES)
        run(
            "nft",
            "-f",
            "-",
            text="add table ip many\nadd chain ip many a\n" + "add rule ip many a accept\n" * 30,
        )
        whole = reader.read(netns_lookup.here())
        reader._FEW_RULES = 5
        commands.clear()
        part = reader.read(netns_lookup.here())
        return (whole.snat_rules, whole.unreadable), (part.snat_rules, part.unreadable), commands

    monkeypatch.setattr(reader, "_FEW_RULES", 1000)
    whole, part, asked = in_sandbox(both)
    assert part == whole
    assert len(whole[0]) == 3
    of_nft = [command for command in asked if command[0] == "nft"]
    listed = [command[3] for command in of_nft]
    assert sorted(listed) == [*["chain"] * 2 * 5, "maps", "sets"]


@PRIVATE
@NFT
def test_what_is_changed_in_parts_is_read_back_and_reverted_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "_FEW_RULES", 5)

    def changed() -> tuple[str, str, str, str]:
        def listed() -> str:
            return subprocess.check_output(["nft", "list", "ruleset"], text=True)

        run("nft", "-f", "-", text=RULES)
        run(
            "nft",
            "-f",
            "-",
            text="add table ip many\nadd chain ip many a\n" + "add rule ip many a accept\n" * 30,
        )
        before = listed()
        saved: list[Any] = []
        done = mitigate.apply(netns_lookup.here(), saved.append)
        after = listed()
        mitigate.revert(netns_lookup.here(), saved[-1])
        return before, after, listed(), done.rewrites[0].diff

    before, after, reverted, diff = in_sandbox(changed)
    assert reverted == before
    old = ["\t\tsnat to tcp dport map @numbers", "\t\tmasquerade"]
    assert re.findall(r"(.*) fully-random", after) == old
    changes = re.findall("^[-+]\t.*", diff, re.MULTILINE)
    assert changes == [f"-{old[0]}", f"+{old[0]} fully-random", f"-{old[1]}", f"+{old[1]} fully-random"]


@PRIVATE
@NFT
@IPTABLES
def test_nft_is_not_asked_for_what_iptables_prints_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    if not where("iptables-nft"):
        pytest.skip("there is no iptables-nft")
    commands = asked_for(monkeypatch)

    def read() -> tuple[list[list[str]], int, int]:
        run("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "10.0.0.0/8", "-j", "MASQUERADE")
        rules = reader.read(netns_lookup.here()).snat_rules
        alone = [command for command in commands if command[0] == "nft"]
        run(
            "nft",
            "add table ip mine { chain post { type nat hook postrouting priority 90; masquerade; }; }",
        )
        more = reader.read(netns_lookup.here()).snat_rules
        return alone, len(rules), len(more)

    assert in_sandbox(read) == ([], 1, 2)


@PRIVATE
@pytest.mark.parametrize("tool", TOOLS)
def test_a_round_trip_in_parts_leaves_every_rule_as_it_was(
    tool: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not where(tool):
        pytest.skip(f"there is no {tool}")
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    monkeypatch.setattr(reader, "_FEW_RULES", 0)
    assert in_sandbox(lambda: sum(round_trip(tool, seed) for seed in range(4))) > 0
