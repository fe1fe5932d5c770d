"""What the kernel does under rulesets, beside what is said of them: each is judged, and then raced by two
clients that dial the same server from the same port at once.
"""

import subprocess
from pathlib import Path

from snat_race.kernel import netns_lookup
from snat_race.lab.topology import IPV4
from snat_race.rules import reader
from tests.conftest import NFT, PRIVATE, TWO_CPUS, in_sandbox, lab

ONE, OTHER = IPV4.container_ip(0), IPV4.container_ip(1)
ADDRESS, SECOND_ADDRESS = IPV4.source_ip, IPV4.pool[0]
TCP = "meta l4proto tcp"
LOW, HIGH = "20000-44999", "45000-61000"  # ports
# Each with whether two clients can be given the same tuple. The clients' ports are of ip_local_port_range.
RULESETS = {
    "a block of ports each": (
        False,
        f"ip saddr {ONE} {TCP} snat to {ADDRESS}:{LOW}",
        f"ip saddr {OTHER} {TCP} snat to {ADDRESS}:{HIGH}",
    ),
    "blocks that overlap": (
        True,
        f"ip saddr {ONE} {TCP} snat to {ADDRESS}:20000-60999",
        f"ip saddr {OTHER} {TCP} snat to {ADDRESS}:32000-61000",
    ),
    "a map of an address each": (
        False,
        f"snat to ip saddr map {{ {ONE} : {ADDRESS}, {OTHER} : {SECOND_ADDRESS} }}",
    ),
    "a map of one address": (True, f"snat to ip saddr map {{ {ONE} : {ADDRESS}, {OTHER} : {ADDRESS} }}"),
    "a map of blocks": (
        False,
        f"{TCP} snat ip to ip saddr map {{ {ONE} : {ADDRESS} . {LOW}, {OTHER} : {ADDRESS} . {HIGH} }}",
    ),
    "behind one that draws": (False, f"{TCP} masquerade fully-random", f"{TCP} masquerade"),
}


def script(rules: tuple[str, ...]) -> str:
    lines = "\n".join(rules)
    return (
        f"table ip mine {{\n chain post {{\n type nat hook postrouting priority srcnat\n{lines}\n }}\n}}\n"
    )


def exposed(text: str) -> bool:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    return bool(reader.read(netns_lookup.here()).exposed)


@NFT
@PRIVATE
@TWO_CPUS
def test_a_ruleset_loses_syns_if_and_only_if_it_is_called_exposed(tmp_path: Path) -> None:
    arguments = []
    for name, (races, *rules) in RULESETS.items():
        text = script(tuple(rules))
        assert in_sandbox(lambda text=text: exposed(text)) == races, name
        file = tmp_path / f"{name}.nft"
        file.write_text(text)
        arguments += ["--nft", str(file)]
    variants = lab(*arguments, first_s=0.5, fewest=100).result["variants"]
    outcomes = {name: variant["outcome"] for name, variant in zip(RULESETS, variants, strict=True)}
    assert outcomes == {
        name: "reproduced" if races else "not_seen" for name, (races, *_) in RULESETS.items()
    }
    assert all(variant["translated"] for variant in variants)
