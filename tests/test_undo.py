"""What mitigate leaves behind when something comes in between: half of it done, or others at work."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from snat_race.errors import EnvironmentLacks, SnatRaceError, UsageError
from snat_race.kernel import netns_lookup, nftables, tools
from snat_race.kernel.tools import where
from snat_race.lab.topology import build
from snat_race.report.wording.snat_rules import unchanged
from snat_race.results.findings import Undo, Unreadable, UnreadableReason
from snat_race.rules import loader, reader
from snat_race.runs import mitigate
from tests.conftest import IPTABLES, NFT, PRIVATE, SOON_S, eventually, fork_cli, in_sandbox
from tests.test_mitigate import DOCKER, TOOLS, listing, load, rules

PLAIN = """table ip a {
 chain post { type nat hook postrouting priority srcnat;
  oifname "eth9" masquerade
 }
}
"""
# The kernel lets no second rule have this rule's set, so nft has to replace it.
WITH_SET = PLAIN.replace('"eth9"', '{ "eth8", "eth9" }')
MERGED = """table ip a {
 chain post { type nat hook postrouting priority srcnat;
  ip saddr { 10.0.0.0/24, 10.0.1.0/24 } counter masquerade
  ip saddr 10.9.0.0/24 quota 25 mbytes masquerade comment "quota 1 mbytes used 2 bytes"
 }
}
"""
REAL_NFT = where("nft")
TRIES = '*--test*|*--check*|*list*) exec {} "$@";; esac'


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))


@pytest.fixture
def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a shell script in the place of a tool; what only tries, or lists, is the real one."""

    def replace(name: str, script: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        file = tmp_path / "bin" / name
        file.write_text(f'#!/bin/sh\ncase "$*" in {TRIES.format(where(name))}\n{script}\n')
        file.chmod(0o755)
        monkeypatch.setattr(tools, "_PATH", f"{tmp_path}/bin:/usr/sbin:/usr/bin")

    return replace


def nft(script: str) -> None:
    subprocess.run([str(REAL_NFT), "-f", "-"], input=script, text=True, check=True)


@PRIVATE
@NFT
def test_a_rule_that_nft_puts_in_other_words_can_be_reverted() -> None:
    def round_trip() -> list[list[str]]:
        nft(MERGED)
        saved: list[Undo | None] = []
        mitigate.apply(netns_lookup.here(), saved.append)
        cured = listing("nft")
        assert saved[-1]
        mitigate.revert(netns_lookup.here(), saved[-1])
        return [[line for line in each if "masquerade" in line] for each in (cured, listing("nft"))]

    cured, reverted = in_sandbox(round_trip)
    assert all("fully-random" in line for line in cured)
    # A set of one network reads, loaded again, as that network.
    assert [line.strip() for line in reverted] == [
        "ip saddr 10.0.0.0/23 counter packets 0 bytes 0 masquerade",
        'ip saddr 10.9.0.0/24 quota 25 mbytes masquerade comment "quota 1 mbytes used 2 bytes"',
    ]


@PRIVATE
@NFT
@IPTABLES
def test_half_an_apply_can_be_reverted(replaced: Callable[[str, str], None]) -> None:
    replaced("nft", "echo no >&2; exit 1")

    def halfway() -> tuple[list[str], list[str], list[str], str]:
        load("docker.rules", "nft")
        nft(WITH_SET)
        before, saved = listing(*TOOLS), list[Undo | None]()
        with pytest.raises(EnvironmentLacks) as caught:
            mitigate.apply(netns_lookup.here(), saved.append)
        half = rules(listing("iptables-nft"))
        assert saved[-1]
        mitigate.revert(netns_lookup.here(), saved[-1])
        return before, half, listing(*TOOLS), str(caught.value)

    before, half, after, said = in_sandbox(halfway)
    assert f"{DOCKER} --random-fully" in half
    assert "the rules of iptables-nft are changed" in said
    assert after == before


@PRIVATE
@NFT
@IPTABLES
def test_half_an_apply_says_how_to_revert_it(replaced: Callable[[str, str], None], tmp_path: Path) -> None:
    replaced("nft", "echo no >&2; exit 1")
    undo = tmp_path / "undo.json"

    def halfway() -> tuple[list[str], list[subprocess.CompletedProcess[str]], list[str]]:
        load("docker.rules", "nft")
        nft(WITH_SET)
        before = listing(*TOOLS)
        applied = fork_cli("mitigate", "--apply", "--dump", str(undo))
        reverted = fork_cli("mitigate", "--revert", str(undo))
        return before, [applied, reverted], listing(*TOOLS)

    before, (applied, reverted), after = in_sandbox(halfway)
    assert (applied.returncode, applied.stderr.count("\n")) == (4, 1)
    assert f"mitigate --revert {undo}" in applied.stderr
    assert reverted.returncode == 0
    assert after == before


@PRIVATE
@IPTABLES
@NFT
def test_what_one_tool_refuses_does_not_keep_the_others_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nft").write_text(f'#!/bin/sh\ncase "$*" in *list*) exec {REAL_NFT} "$@";; esac\nexit 1\n')
    (tmp_path / "nft").chmod(0o755)

    def cured() -> tuple[tuple[str, ...], list[str]]:
        load("docker.rules", "nft")
        nft(WITH_SET)
        monkeypatch.setattr(tools, "_PATH", f"{tmp_path}:/usr/sbin:/usr/bin")
        return mitigate.apply(netns_lookup.here(), lambda _: None).refusals, rules(listing("iptables-nft"))

    (refused,), present = in_sandbox(cured)
    assert "nft refused" in refused
    assert f"{DOCKER} --random-fully" in present


@PRIVATE
@IPTABLES
def test_rules_that_others_push_aside_are_not_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's rule, put before ours between reading and writing, makes every number wrong."""
    theirs = "-s 10.66.0.0/16 -j ACCEPT"
    read = nftables.rules
    calls: list[str] = []

    def interfered(*of: Any) -> Any:
        found = read(*of)
        if len(calls) < 2:
            subprocess.run(["iptables-nft", "-t", "nat", "-I", "POSTROUTING", *theirs.split()], check=True)
        calls.append("")
        return found

    def cured() -> tuple[list[str], list[str]]:
        load("docker.rules", "nft")
        before = rules(listing("iptables-nft"))
        monkeypatch.setattr(nftables, "rules", interfered)
        mitigate.apply(netns_lookup.here(), lambda _: None)
        return before, rules(listing("iptables-nft"))

    before, after = in_sandbox(cured)
    assert len([rule for rule in after if theirs in rule]) == 2
    assert after[after.index(f"-A POSTROUTING {theirs}") :][:2] == [f"-A POSTROUTING {theirs}"] * 2
    assert [rule.removesuffix(" --random-fully") for rule in after if theirs not in rule] == before
    assert f"{DOCKER} --random-fully" in after


@PRIVATE
@IPTABLES
def test_a_change_that_others_never_let_through_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    read = nftables.rules

    def interfered(*of: Any) -> Any:
        found = read(*of)
        subprocess.run(["iptables-nft", "-t", "nat", "-I", "OUTPUT", "-j", "ACCEPT"], check=True)
        return found

    def refused() -> tuple[str, list[str], list[str], Undo | None]:
        load("docker.rules", "nft")
        before, saved = rules(listing("iptables-nft")), list[Undo | None]()
        monkeypatch.setattr(nftables, "rules", interfered)
        monkeypatch.setattr(loader, "_KEEP_TRYING_S", 0.0)
        try:
            mitigate.apply(netns_lookup.here(), saved.append)
        except SnatRaceError as failed:
            said = str(failed)
        return said, before, rules(listing("iptables-nft")), (saved or [None])[-1]

    said, before, after, last = in_sandbox(refused)
    assert "keep changing" in said
    assert last is None
    assert [rule for rule in after if rule != "-A OUTPUT -j ACCEPT"] == before


@PRIVATE
@IPTABLES
def test_ctrl_c_does_not_cut_it_in_half(replaced: Callable[[str, str], None]) -> None:
    replaced("nft", f'kill -INT $PPID\nexec {REAL_NFT} "$@"')

    def interrupted() -> list[str]:
        nft(WITH_SET)
        mitigate.apply(netns_lookup.here(), lambda _: None)
        return rules(listing("nft"))

    assert 'oifname { "eth8", "eth9" } masquerade fully-random' in in_sandbox(interrupted)


@PRIVATE
@IPTABLES
def test_what_its_writer_has_put_back_already_is_left_alone() -> None:
    """One of two rules reads as it did before; the other is reverted, and a file of elsewhere is not."""

    def partly() -> tuple[list[str], list[str], str]:
        load("docker.rules", "nft")
        command = ["iptables-nft", "-t", "nat"]
        other = "-s 172.18.0.0/16 ! -o br-0123456789ab -j MASQUERADE"
        subprocess.run([*command, "-A", "POSTROUTING", *other.split()], check=True)
        before, saved = rules(listing("iptables-nft")), list[Undo | None]()
        mitigate.apply(netns_lookup.here(), saved.append)
        subprocess.run([*command, "-D", "POSTROUTING", *other.split(), "--random-fully"], check=True)
        subprocess.run([*command, "-A", "POSTROUTING", *other.split()], check=True)
        assert saved[-1]
        with pytest.raises(UsageError, match="another network namespace") as elsewhere:
            mitigate.revert(netns_lookup.here(), saved[-1].model_copy(update={"netns": 1}))
        mitigate.revert(netns_lookup.here(), saved[-1])
        return before, rules(listing("iptables-nft")), str(elsewhere.value)

    before, after, _ = in_sandbox(partly)
    assert after == before


@contextmanager
def owned_table() -> Iterator[None]:
    """A table that lives, and can be changed, only with the nft that made it."""
    owner = subprocess.Popen([str(REAL_NFT), "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert owner.stdin
    owner.stdin.write(
        b"add table ip own { flags owner; }\n"
        b"add chain ip own post { type nat hook postrouting priority 90; }\n"
        b"add rule ip own post masquerade\n"
    )
    owner.stdin.flush()
    try:
        eventually(lambda: any("masquerade" in line for line in listing("nft")))
        yield
    finally:
        owner.stdin.close()
        owner.wait(SOON_S)


@PRIVATE
@NFT
@IPTABLES
def test_a_table_with_an_owner_is_left_to_that(tmp_path: Path) -> None:
    def cured() -> list[subprocess.CompletedProcess[str]]:
        with owned_table():
            load("docker.rules", "nft")
            steps = (("mitigate", "--apply", "--dump", str(tmp_path / "undo")), ("doctor",), ("mitigate",))
            return [fork_cli(*step) for step in steps]

    applied, examined, rest = in_sandbox(cured)
    assert (applied.returncode, "--random-fully" in applied.stdout) == (4, True)
    assert "owns its table" in applied.stderr
    assert (examined.returncode, "owns its table" in examined.stdout) == (3, True)
    assert "nothing to change" not in rest.stdout


@pytest.mark.parametrize("change", [None, {"old": "a\nb"}, {"tool": "/tmp/evil"}])
def test_a_file_that_no_apply_wrote_is_refused(change: dict[str, str] | None) -> None:
    fields = dict.fromkeys(("family", "table", "chain", "old", "new"), "x")
    good = {"tool": "nft", "nth": 0, "copies": 1} | fields
    undo = {"written_at": "", "environment": {}, "netns": 1, "dumps": {}, "changes": [good]}
    Undo.model_validate(undo)
    with pytest.raises(ValidationError):
        Undo.model_validate(undo | {"changes": [good | change] if change else []})


BROKEN = """table ip a {
 chain post { type nat hook postrouting priority srcnat;
  masquerade comment "one
two"
 }
}
"""


@PRIVATE
@NFT
@IPTABLES
def test_a_rule_of_two_lines_is_not_passed_over() -> None:
    def read() -> tuple[Unreadable, ...]:
        nft(BROKEN)
        command = ["iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-m", "comment", "--comment", "a\nb"]
        subprocess.run([*command, "-j", "MASQUERADE"], check=True)
        found = reader.read(netns_lookup.here())
        assert found.exposed == []
        return found.unreadable

    unreadable = in_sandbox(read)
    assert [reason.tool for reason in unreadable] == ["iptables-nft", "nft"]
    assert {reason.reason for reason in unreadable} == {UnreadableReason.not_one_line}


@PRIVATE
@NFT
def test_a_comment_that_goes_on_with_commands_is_never_loaded(tmp_path: Path) -> None:
    """nft prints quotes in a comment as they are; its text, loaded again, would be other commands."""
    comment = 'a" ; delete table ip other ; add rule ip a post masquerade comment "b'

    def apply() -> tuple[list[str], subprocess.CompletedProcess[str], list[str]]:
        nft(WITH_SET.replace("masquerade", 'masquerade comment "mark"') + "table ip other {\n}\n")
        document = json.loads(subprocess.check_output(["nft", "-j", "list", "ruleset"]))
        document["nftables"] = [
            {"add": thing | {"rule": thing["rule"] | {"comment": comment}} if "rule" in thing else thing}
            for thing in document["nftables"]
            if "metainfo" not in thing
        ]
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        subprocess.run(["nft", "-j", "-f", "-"], input=json.dumps(document), text=True, check=True)
        before = listing("nft")
        assert any("delete table" in line for line in before)
        return before, fork_cli("mitigate", "--apply", "--dump", str(tmp_path / "undo")), listing("nft")

    before, applied, after = in_sandbox(apply)
    assert (applied.returncode, after) == (4, before)
    assert "nft cannot quote" in applied.stderr


@PRIVATE
@NFT
def test_a_container_is_no_place_to_look_for_its_nat() -> None:
    def look() -> list[subprocess.CompletedProcess[str]]:
        with build(2).containers[0].entered():
            return [fork_cli("doctor"), fork_cli("mitigate")]

    examined, shown = in_sandbox(look)
    assert (examined.returncode, "it is a container's" in " ".join(examined.stdout.split())) == (4, True)
    assert "it is a container's" in shown.stderr


@PRIVATE
@NFT
def test_another_s_rule_is_never_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in right before ours, and gets the handle that ours would have had."""
    theirs = "ip daddr 10.99.0.0/16 counter packets 0 bytes 0 accept"
    (tmp_path / "nft").write_text(
        f'#!/bin/sh\n[ "$*" != "-f -" ] || [ -e "$0.done" ] || {REAL_NFT} add rule ip a post {theirs}\n'
        f'[ "$*" != "-f -" ] || touch "$0.done"\nexec {REAL_NFT} "$@"\n'
    )
    (tmp_path / "nft").chmod(0o755)

    def interfered() -> tuple[list[str], list[str], list[str]]:
        nft(WITH_SET)
        before, saved = listing("nft"), list[Undo | None]()
        monkeypatch.setattr(tools, "_PATH", f"{tmp_path}:/usr/sbin:/usr/bin")
        mitigate.apply(netns_lookup.here(), saved.append)
        cured = listing("nft")
        assert saved[-1]
        mitigate.revert(netns_lookup.here(), saved[-1])
        return before, cured, listing("nft")

    before, cured, after = in_sandbox(interfered)
    assert [line.strip() for line in cured if line not in before] == [
        'oifname { "eth8", "eth9" } masquerade fully-random',
        theirs,
    ]
    assert [line for line in after if theirs not in line] == before


@PRIVATE
@NFT
def test_one_rule_that_nft_cannot_load_does_not_keep_the_others_from_it() -> None:
    rules_of_nft = PLAIN.replace("\n }", "\n  meter m1 { ip saddr limit rate 10/second } masquerade\n }")

    def cured() -> tuple[tuple[str, ...], list[str]]:
        nft(rules_of_nft)
        return mitigate.apply(netns_lookup.here(), lambda _: None).refusals, listing("nft")

    (refused,), present = in_sandbox(cured)
    assert "meter m1" in refused
    assert '\t\toifname "eth9" masquerade fully-random' in present


@PRIVATE
@IPTABLES
def test_a_comment_in_another_encoding_is_left_as_it_is() -> None:
    comment = b"B\xfcro"
    command = [b"iptables-nft", b"-t", b"nat", b"-A", b"POSTROUTING"]

    def cured() -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
        named = [*command, b"-m", b"comment", b"--comment", comment, b"-j", b"MASQUERADE"]
        subprocess.run(named, check=True)
        subprocess.run([*command, b"-o", b"eth9", b"-j", b"MASQUERADE"], check=True)
        found = mitigate.apply(netns_lookup.here(), lambda _: None)
        saved = subprocess.check_output(["iptables-nft-save"])
        left = reader.read(netns_lookup.here()).exposed
        return (
            tuple(map(unchanged, found.unchangeable)),
            tuple(rule.text for rule in left),
            saved.decode("latin-1").splitlines(),
        )

    fixed, left, saved = in_sandbox(cured)
    assert "no UTF-8" in fixed[0]
    assert left == (r'-A POSTROUTING -m comment --comment "B\xfcro" -j MASQUERADE',)
    assert '-A POSTROUTING -m comment --comment "B\xfcro" -j MASQUERADE' in saved
    assert "-A POSTROUTING -o eth9 -j MASQUERADE --random-fully" in saved


@PRIVATE
@IPTABLES
def test_the_last_apply_is_reverted_first() -> None:
    """Docker restarts and adds its rule again: two files, of which only the later one fits."""

    def twice() -> tuple[str, int]:
        load("docker.rules", "nft")
        first, second = list[Undo | None](), list[Undo | None]()
        mitigate.apply(netns_lookup.here(), first.append)
        plain = DOCKER.removeprefix("-A POSTROUTING ").split()
        subprocess.run(["iptables-nft", "-t", "nat", "-I", "POSTROUTING", *plain], check=True)
        mitigate.apply(netns_lookup.here(), second.append)
        assert first[-1]
        assert second[-1]
        with pytest.raises(UsageError) as refused:
            mitigate.revert(netns_lookup.here(), first[-1])
        mitigate.revert(netns_lookup.here(), second[-1])
        mitigate.revert(netns_lookup.here(), first[-1])
        return str(refused.value), rules(listing("iptables-nft")).count(DOCKER)

    refused, plain = in_sandbox(twice)
    assert "should" in refused
    assert plain == 2
