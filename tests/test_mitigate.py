"""doctor and mitigate on rulesets as programs write them, loaded by the real tools."""

import errno
import fcntl
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snat_race.cli import mitigate as cli_mitigate
from snat_race.cli import undo_file
from snat_race.errors import EnvironmentLacks
from snat_race.kernel import netns, netns_lookup, tools
from snat_race.kernel.tools import where
from snat_race.report.wording.snat_rules import why_unreadable
from snat_race.results.findings import NotExposed, Unchangeable, Undo, Unreadable, UnreadableReason
from snat_race.rules import reader
from snat_race.rules.iptables_save import IptablesSave
from snat_race.rules.nft_list import NftList
from snat_race.runs import mitigate
from tests.conftest import IPTABLES, NFT, PRIVATE, ROOT, SOON_S, fork_cli, in_sandbox, start_cli

RULESETS = ROOT / "tests" / "rulesets"
EXPOSED: dict[str, list[list[str]]] = json.loads((RULESETS / "exposed.json").read_text())
FILES = sorted(EXPOSED)
DOCKER = "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"


def loader(name: str, backend: str) -> list[str]:
    if name.endswith(".nft"):
        return ["nft", "-f"]
    return [f"ip{'6' if name.endswith('6') else ''}tables-{backend}-restore"]


def cases() -> list[Any]:
    every = []
    for name in FILES:
        for backend in ("nft",) if name.endswith(".nft") else ("nft", "legacy"):
            tool = loader(name, backend)[0]
            lacking = pytest.mark.skipif(not where(tool), reason=f"there is no {tool}")
            every.append(pytest.param(name, backend, id=f"{name} {backend}", marks=lacking))
    return every


def load(name: str, backend: str) -> None:
    subprocess.run([*loader(name, backend), str(RULESETS / name)], check=True)


TOOLS = ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy", "nft")


def listing(*tools: str) -> list[str]:
    """Everything that these tools print here."""
    lines = []
    for tool in tools:
        command = ["nft", "list", "ruleset"] if tool == "nft" else [f"{tool}-save", "-c"]
        if where(command[0]):
            lines += subprocess.check_output(command, text=True).splitlines()
    return [line for line in lines if not line.startswith("#")]


def rules(lines: list[str]) -> list[str]:
    return [re.sub(r"^\[\d+:\d+\] ", "", line).strip() for line in lines]


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's lock is not an ordinary user's to open, and the rules are not the host's."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))


@PRIVATE
@NFT
def test_an_undo_that_cannot_be_kept_changes_nothing_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full: there is nothing to revert, so no command to do that is given."""
    dump = tmp_path / "undo.json"

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def tried() -> str:
        load("handwritten.nft", "nft")
        before = subprocess.run(
            ["nft", "list", "ruleset"], capture_output=True, text=True, check=True
        ).stdout
        monkeypatch.setattr(undo_file.os, "link", full)
        try:
            cli_mitigate.mitigate(apply=True, dump=dump)
        except EnvironmentLacks as failed:
            message = str(failed)
        after = subprocess.run(
            ["nft", "list", "ruleset"], capture_output=True, text=True, check=True
        ).stdout
        assert after == before
        return message

    said = in_sandbox(tried)
    assert "No space" in said
    assert "--revert" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["xtables.lock"]


@pytest.mark.parametrize(("name", "backend"), cases())
def test_every_exposed_rule_is_found_cured_and_put_back(name: str, backend: str) -> None:
    """Doctor's finding and mitigate's round trip, as functions: a process each would take minutes."""
    tool = loader(name, backend)[0].removesuffix("-restore")

    def round_trip() -> tuple[Any, ...]:
        load(name, backend)
        here, saved = netns_lookup.here(), list[Undo]()
        before, plain = listing(*TOOLS), rules(listing(tool))
        read = reader.read(here)
        found = [(str(read.owners.owner_of(rule)), rule.text) for rule in read.exposed]
        mitigate.apply(here, saved.append)
        cured, left = rules(listing(tool)), reader.read(here)
        if saved:
            mitigate.revert(here, Undo.model_validate_json(saved[0].model_dump_json()))
        return before, listing(*TOOLS), plain, cured, found, left.exposed, left.unreadable

    before, after, plain, cured, found, left, unreadable = in_sandbox(round_trip)
    assert sorted(found) == sorted((writer, rule) for writer, rule in EXPOSED[name])
    assert (left, unreadable) == ([], ())
    assert after == before
    changed = [(old, new) for old, new in zip(plain, cured, strict=True) if old != new]
    assert sorted(old for old, _ in changed) == sorted(rule for _, rule in EXPOSED[name])
    assert all("random-fully" in new or "fully-random" in new for _, new in changed)


@PRIVATE
@IPTABLES
def test_the_whole_way_as_a_user_goes_it(tmp_path: Path) -> None:
    """Docker's rule: found, shown, changed, found no more, changed back."""

    def the_way() -> list[subprocess.CompletedProcess[str]]:
        load("docker.rules", "nft")
        undo = str(tmp_path / "undo.json")
        steps = (
            ("doctor",),
            ("doctor", "--json"),
            ("mitigate",),
            ("mitigate", "--apply", "--dump", undo),
            ("doctor",),
            ("mitigate",),
            ("mitigate", "--apply", "--dump", undo),
            ("mitigate", "--revert", undo),
            ("mitigate", "--revert", undo),
            ("doctor",),
        )
        return [fork_cli(*step) for step in steps]

    (sick, as_json, shown, applied, healthy, nothing, kept, reverted, again, sick_again) = in_sandbox(
        the_way
    )
    assert sick.returncode == 3, sick
    assert "Docker" in sick.stdout
    assert DOCKER in " ".join(sick.stdout.split())
    found = json.loads(as_json.stdout)
    assert [each["level"] for each in found["findings"]].count("exposed") == 2
    for diff in (shown.stdout, applied.stdout):
        assert f"\n-{DOCKER}\n" in diff
        assert f"\n+{DOCKER} --random-fully\n" in diff
    assert "dockerd" in shown.stdout
    assert "--revert" in applied.stdout
    assert (applied.returncode, healthy.returncode, nothing.returncode) == (0, 0, 0)
    assert "nothing to change" in nothing.stdout
    assert (kept.returncode, "exists" in kept.stderr) == (2, True)
    assert (tmp_path / "undo.json").stat().st_mode & 0o777 == 0o600
    assert f"\n+{DOCKER}\n" in reverted.stdout
    assert (again.returncode, "nothing to revert" in again.stdout) == (0, True)
    assert sick_again.returncode == 3


@PRIVATE
@IPTABLES
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_what_others_changed_meanwhile_stays_and_so_do_counters(backend: str) -> None:
    if not where(f"iptables-{backend}"):
        pytest.skip(f"there is no iptables-{backend}")
    tool = f"iptables-{backend}"
    other = "-s 10.9.0.0/16 -j MASQUERADE --random-fully"

    def meanwhile() -> list[list[str]]:
        subprocess.run([*loader("x", backend), "--counters"], input=COUNTED, text=True, check=True)
        saved: list[Undo] = []
        mitigate.apply(netns_lookup.here(), saved.append)
        applied = nat_rules(tool)
        subprocess.run([tool, "-t", "nat", "-I", "POSTROUTING", *other.split()], check=True)
        mitigate.revert(netns_lookup.here(), saved[0])
        return [applied, nat_rules(tool)]

    applied, reverted = in_sandbox(meanwhile)
    assert applied == [
        "[7:420] -A POSTROUTING -s 10.1.0.0/16 -j MASQUERADE --random-fully",
        "[5:300] -A POSTROUTING -s 10.2.0.0/16 -j MASQUERADE --random-fully",
        "[6:360] -A POSTROUTING -s 10.3.0.0/16 -j ACCEPT",
        "[4:240] -A POSTROUTING -s 10.2.0.0/16 -j MASQUERADE --random-fully",
    ]
    assert reverted == [
        f"[0:0] -A POSTROUTING {other}",
        "[7:420] -A POSTROUTING -s 10.1.0.0/16 -j MASQUERADE",
        "[5:300] -A POSTROUTING -s 10.2.0.0/16 -j MASQUERADE",
        "[6:360] -A POSTROUTING -s 10.3.0.0/16 -j ACCEPT",
        "[4:240] -A POSTROUTING -s 10.2.0.0/16 -j MASQUERADE --random-fully",
    ]


# The last rule was random before; the second then reads like it, and only that one is put back.
COUNTED = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
[7:420] -A POSTROUTING -s 10.1.0.0/16 -j MASQUERADE
[5:300] -A POSTROUTING -s 10.2.0.0/16 -j MASQUERADE
[6:360] -A POSTROUTING -s 10.3.0.0/16 -j ACCEPT
[4:240] -A POSTROUTING -s 10.2.0.0/16 -j MASQUERADE --random-fully
COMMIT
"""


def nat_rules(tool: str) -> list[str]:
    saved = subprocess.check_output([f"{tool}-save", "-c", "-t", "nat"], text=True)
    return [line for line in saved.splitlines() if " -A " in line]


@PRIVATE
@IPTABLES
def test_two_at_once_do_not_get_into_each_others_way(tmp_path: Path) -> None:
    def two() -> tuple[list[int], list[str]]:
        load("docker.rules", "nft")
        started = [
            start_cli("mitigate", "--apply", "--dump", str(tmp_path / f"{n}.json")) for n in range(2)
        ]
        said = [each.communicate(timeout=SOON_S) for each in started]
        assert sum("nothing to change" in out for out, _ in said) == 1, said
        return [each.returncode for each in started], rules(listing("iptables-nft"))

    codes, present = in_sandbox(two)
    assert codes == [0, 0]
    assert present.count(f"{DOCKER} --random-fully") == 1
    assert DOCKER not in present


OWN_CHAIN = """table ip nat {
 chain post { type nat hook postrouting priority 100; oifname "eth9" masquerade
 }
}
"""


@PRIVATE
@IPTABLES
def test_a_tool_that_refuses_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not where("iptables-legacy-restore"):
        pytest.skip("there is no iptables-legacy-restore")
    path = f"{wrapper(tmp_path, 'exit 1', 'iptables-legacy-restore')}:/usr/sbin:/usr/bin"

    def refused() -> tuple[str, list[str], list[str]]:
        load("docker.rules", "legacy")
        before, saved = listing("iptables-legacy"), list[Undo]()
        monkeypatch.setattr(tools, "_PATH", path)
        with pytest.raises(EnvironmentLacks) as caught:
            mitigate.apply(netns_lookup.here(), saved.append)
        assert saved == []
        return str(caught.value), before, listing("iptables-legacy")

    said, before, after = in_sandbox(refused)
    assert "refused the new rules" in said
    assert after == before


@PRIVATE
@IPTABLES
def test_an_old_iptables_takes_the_lock_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that knows no XTABLES_LOCKFILE finds the lock taken, by us."""
    if not where("iptables-legacy-restore"):
        pytest.skip("there is no iptables-legacy-restore")
    lock, real = tmp_path / "xtables.lock", where("iptables-legacy-restore")
    script = f'XTABLES_LOCKFILE={lock} exec {real} "$@"'
    path = f"{wrapper(tmp_path, script, 'iptables-legacy-restore')}:/usr/sbin:/usr/bin"

    def cured() -> list[str]:
        load("docker.rules", "legacy")
        monkeypatch.setattr(tools, "_PATH", path)
        mitigate.apply(netns_lookup.here(), lambda _: None)
        return rules(listing("iptables-legacy"))

    assert f"{DOCKER} --random-fully" in in_sandbox(cured)


def wrapper(folder: Path, script: str, name: str) -> Path:
    folder = folder / "bin"
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return folder


@PRIVATE
@NFT
@IPTABLES
def test_what_iptables_calls_incompatible_is_read_with_nft() -> None:
    """iptables-nft-save prints the table as if it were empty, but for a comment."""

    def read() -> tuple[list[str], list[str], tuple[Unreadable, ...]]:
        subprocess.run(["nft", "-f", "-"], input=OWN_CHAIN, text=True, check=True)
        saved = subprocess.run(["iptables-nft-save"], capture_output=True, text=True, check=False)
        found = reader.read(netns_lookup.here())
        printed = IptablesSave("iptables-nft", saved.stdout + saved.stderr)
        return [rule.chain.tool for rule in found.exposed], printed.incompatible_tables, found.unreadable

    assert in_sandbox(read) == (["nft"], ["nat"], ())


@PRIVATE
@NFT
@IPTABLES
def test_what_no_tool_here_can_print_is_not_called_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """nft says in words what a rule of iptables does. What it leaves out, a match say, nobody knows."""
    monkeypatch.setattr(reader, "_BASES", ())

    def read() -> tuple[list[str], tuple[Unreadable, ...]]:
        load("docker.rules", "nft")
        found = reader.read(netns_lookup.here())
        return [(rule.source_network, rule.unchangeable) for rule in found.exposed], found.unreadable

    exposed, (why,) = in_sandbox(read)
    assert exposed == [
        ("172.18.0.0/16", Unchangeable.iptables_does_not_print),
        ("172.17.0.0/16", Unchangeable.iptables_does_not_print),
    ]
    assert why.reason == UnreadableReason.no_iptables
    assert "no iptables here" in why_unreadable(why)


@pytest.mark.parametrize(
    ("cured", "rule", "expected"),
    [
        (IptablesSave.cured, "-A P -j MASQUERADE", "-A P -j MASQUERADE --random-fully"),
        (IptablesSave.cured, "-A P -j MASQUERADE --random", "-A P -j MASQUERADE --random-fully"),
        (
            IptablesSave.cured,
            "-A P -j SNAT --to-source 10.0.0.1 --persistent",
            "-A P -j SNAT --to-source 10.0.0.1 --random-fully --persistent",
        ),
        (NftList.cured, "masquerade", "masquerade fully-random"),
        (NftList.cured, "masquerade random", "masquerade fully-random"),
        (NftList.cured, "snat to 10.0.0.1 persistent", "snat to 10.0.0.1 fully-random,persistent"),
        (NftList.cured, 'masquerade comment "a comment "', 'masquerade fully-random comment "a comment "'),
        (NftList.cured, "masquerade to :1024-65535", "masquerade to :1024-65535 fully-random"),
    ],
)
def test_the_flag_goes_where_the_tool_prints_it(
    cured: Callable[[str], str], rule: str, expected: str
) -> None:
    assert cured(rule) == expected


COUNTS = """table ip a {
 chain post { type nat hook postrouting priority srcnat;
  counter packets 7 bytes 420 masquerade comment "was counter packets 1 bytes 2 once"
 }
}
"""


@PRIVATE
@NFT
def test_what_nft_has_counted_stays_and_so_does_what_a_comment_says() -> None:
    def round_trip() -> list[list[str]]:
        subprocess.run(["nft", "-f", "-"], input=COUNTS, text=True, check=True)
        before, saved = listing("nft"), list[Undo]()
        mitigate.apply(netns_lookup.here(), saved.append)
        cured = listing("nft")
        mitigate.revert(netns_lookup.here(), saved[0])
        return [before, cured, listing("nft")]

    before, cured, after = in_sandbox(round_trip)
    (rule,) = [line for line in cured if "masquerade" in line]
    assert "counter packets 7 bytes 420 masquerade fully-random" in rule
    assert after == before
    assert sum("packets 7 bytes 420" in line for line in after) == 1


NETMAP = """table ip a {
 chain post { type nat hook postrouting priority srcnat;
  snat ip prefix to ip saddr map { 10.1.0.0/24 : 192.0.2.0/24 }
 }
}
"""


@PRIVATE
@NFT
def test_an_address_for_each_client_is_left_alone() -> None:
    """With fully-random, nft would turn it into a shared pool."""

    def look() -> list[NotExposed | None]:
        subprocess.run(["nft", "-f", "-"], input=NETMAP, text=True, check=True)
        return [rule.not_exposed for rule in reader.read(netns_lookup.here()).snat_rules]

    assert in_sandbox(look) == [NotExposed.address_per_client]


def test_what_is_counted_is_no_part_of_a_rule() -> None:
    now = "quota 25 mbytes used 84 bytes counter packets 1 bytes 84 masquerade fully-random"
    assert NftList.uncounted(now) == "quota 25 mbytes counter masquerade fully-random"
    assert NftList.with_flags(now, frozenset()) == now.removesuffix(" fully-random")


def test_a_target_that_old_nft_does_not_name_may_translate() -> None:
    rule = {"family": "ip", "table": "nat", "chain": "POSTROUTING", "handle": 4, "expr": [{"xt": None}]}
    ruleset = json.dumps({"nftables": [{"rule": rule}, {"rule": rule | {"table": "filter"}}]})
    assert NftList("nft", "", ruleset).written_by_iptables == {("ip", "nat", "POSTROUTING")}


@PRIVATE
@IPTABLES
@pytest.mark.parametrize("comment", [b"caf\xe9", "a\u2028b".encode(), b"a\x0cb"])
def test_a_comment_may_hold_anything(comment: bytes) -> None:
    def exposed() -> int:
        command = [b"iptables-nft", b"-t", b"nat", b"-A", b"POSTROUTING", b"-m", b"comment", b"--comment"]
        subprocess.run([*command, comment, b"-j", b"MASQUERADE"], check=True)
        return len(reader.read(netns_lookup.here()).exposed)

    assert in_sandbox(exposed) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--revert", "/nonexistent"), "cannot read"),
        (("--revert", str(RULESETS / "exposed.json")), "is no file of"),
        (("--revert", "x", "--apply"), "stands alone"),
        (("--dump", "x"), "--apply"),
        (("--netns", ""), "is empty"),
        (("--netns", "nonexistent"), "there is no namespace"),
        (("--netns", "/etc/passwd"), "is no namespace"),
        (("--netns", "/proc/self/ns/uts"), "not of the network"),
        (("--netns", "999999999"), "there is no namespace"),
    ],
)
def test_bad_input_is_one_line(options: tuple[str, ...], message: str) -> None:
    done = fork_cli("mitigate", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_container_needs_an_engine(tmp_path: Path) -> None:
    done = fork_cli("watch", "--netns", "docker:web", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "cannot ask Docker" in done.stderr


@PRIVATE
def test_who_keeps_the_lock_of_a_namespace_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody in a namespace may take it, so it need be none of ours."""
    monkeypatch.setattr(netns, "_LOCK_WITHIN_S", 0.1)

    def both() -> str:
        with netns_lookup.here().locked(), pytest.raises(EnvironmentLacks) as failed:
            netns_lookup.here().locked().__enter__()
        return f"{failed.value}".replace(f"process {os.getpid()} ", "this process ")

    assert in_sandbox(both).startswith("this process has kept the lock of")


def test_a_lock_that_stays_taken_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "xtables.lock"
    monkeypatch.setattr(tools, "_LOCK_WITHIN_S", 0.1)
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(EnvironmentLacks, match="another program"), tools.xtables_lock():
            pass
    with tools.xtables_lock():
        assert lock.exists()


ANONYMOUS = """table inet router {
 chain post {
  type nat hook postrouting priority srcnat;
  oifname "eth0" jump {
   ip saddr 10.1.0.0/16 masquerade
   ip saddr 10.2.0.0/16 snat ip to 192.0.2.8 fully-random
  }
  oifname "eth1" masquerade
 }
 chain forward {
  type filter hook forward priority filter;
  iifname "lan0" jump {
   tcp dport 25 log prefix "no snat for mail " drop
  }
 }
}
"""
AMONG_IPTABLES = """table ip nat {
 chain ts-postrouting {
  meta mark & 0x00ff0000 == 0x00040000 counter masquerade
 }
}
insert rule ip nat POSTROUTING counter jump ts-postrouting
"""


def there_and_back() -> tuple[list[str], list[str], tuple[Unreadable, ...], bool]:
    """Apply and revert; return the exposed rules before, those after, and what was not read."""
    here, saved = netns_lookup.here(), list[Undo]()
    before, found = listing(*TOOLS), reader.read(here)
    done = mitigate.apply(here, saved.append)
    left = [rule.text for rule in reader.read(here).exposed]
    assert [rule.text for rule in done.unchangeable] == left
    mitigate.revert(here, Undo.model_validate_json(saved[0].model_dump_json()))
    assert listing(*TOOLS) == before
    return [rule.text for rule in found.exposed], left, found.unreadable, done.complete


@PRIVATE
@NFT
def test_a_rule_in_an_anonymous_chain_is_found_and_left_and_others_are_changed() -> None:
    def work() -> Any:
        subprocess.run(["nft", "-f", "-"], input=ANONYMOUS, text=True, check=True)
        return there_and_back()

    inside = "ip saddr 10.1.0.0/16 masquerade"
    assert in_sandbox(work) == ([inside, 'oifname "eth1" masquerade'], [inside], (), False)


@PRIVATE
@NFT
@pytest.mark.skipif(not where("iptables-nft"), reason="there is no iptables-nft")
def test_what_nft_hides_from_iptables_is_judged_and_the_rule_at_fault_is_named() -> None:
    def work() -> Any:
        load("docker.rules", "nft")
        subprocess.run(["nft", "-f", "-"], input=AMONG_IPTABLES, text=True, check=True)
        return there_and_back()

    exposed, left, (why,), complete = in_sandbox(work)
    assert [rule for rule in exposed if "172.17.0.0/16" in rule] == left[-1:]
    assert len(exposed) == len(left) + 1
    assert why.reason is UnreadableReason.nft_among_iptables
    assert "chain ip nat ts-postrouting handle" in why_unreadable(why)
    assert not complete
