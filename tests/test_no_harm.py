"""What ``mitigate`` does not understand, or does not trust, it leaves as it is, and says so."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snat_race.cli import undo_file
from snat_race.errors import UsageError
from snat_race.kernel import netns_lookup
from snat_race.kernel.tools import where
from snat_race.results.findings import Undo
from snat_race.rules.iptables_save import IptablesSave
from snat_race.rules.merged_sets import merged
from snat_race.runs import mitigate
from tests import rule_trials
from tests.conftest import IPTABLES, NFT, PRIVATE, fork_cli, in_sandbox
from tests.test_mitigate import TOOLS, listing, load, rules

BACKENDS = ("iptables-nft", "iptables-legacy")
POSTROUTING = "-A POSTROUTING -s 10.1.0.0/16"


@pytest.fixture(autouse=True)
def own_lock(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path_factory.mktemp("lock") / "xtables.lock"))


def iptables(tool: str, *words: str) -> None:
    if not where(tool):
        pytest.skip(f"there is no {tool}")
    subprocess.run([tool, "-w", "-t", "nat", "-A", "POSTROUTING", *words], check=True, capture_output=True)


@PRIVATE
@IPTABLES
@pytest.mark.parametrize("tool", BACKENDS)
@pytest.mark.parametrize(
    "odd",
    [
        ("-m", "comment", "--comment", f"one\n{POSTROUTING} -j ACCEPT", "-j", "ACCEPT"),
        ("-m", "comment", "--comment", f"one\n[0:0] {POSTROUTING} -j ACCEPT", "-j", "ACCEPT"),
        ("-m", "comment", "--comment", "one\nCOMMIT\n*nat", "-j", "ACCEPT"),
        ("-o", "\n-A POSTROUTING", "-j", "ACCEPT"),
        ("-o", "\n[0:0] -A X", "-j", "ACCEPT"),
        ("-o", 'a"b', "-j", "ACCEPT"),
    ],
    ids=["a rule", "a counted rule", "another table", "a device", "a counted device", "a quote"],
)
def test_rules_that_are_not_one_a_line_are_left_alone(
    tool: str, odd: tuple[str, ...], tmp_path: Path
) -> None:
    """Behind such a line every number is another rule's: the masquerade came behind the accept."""
    undo = tmp_path / "undo.json"

    def tried() -> tuple[list[str], list[str], subprocess.CompletedProcess[str]]:
        subprocess.run([tool, "-t", "nat", "-N", "X"], check=False)
        iptables(tool, *odd)
        iptables(tool, "-s", "10.1.0.0/16", "-j", "MASQUERADE")
        iptables(tool, "-s", "10.1.0.0/16", "-j", "ACCEPT")
        before = listing(*TOOLS)
        done = fork_cli("mitigate", "--apply", "--dump", str(undo))
        return before, listing(*TOOLS), done

    before, after, done = in_sandbox(tried)
    assert after == before
    assert done.returncode == 4, done
    assert "Applied" not in done.stdout
    assert not undo.exists()


@PRIVATE
@IPTABLES
@pytest.mark.parametrize("tool", BACKENDS)
def test_a_rule_that_cannot_be_told_by_its_content_is_changed_too(tool: str) -> None:
    """iptables finds no rule of ``-m recent`` again that it has printed."""

    def cured() -> tuple[list[str], list[str], list[str]]:
        iptables(tool, "-s", "10.1.0.0/16", "-m", "recent", "--set", "--name", "a", "-j", "MASQUERADE")
        iptables(tool, "-p", "tcp", "-m", "tcp", "--dport", "80", "-j", "MASQUERADE")
        before, saved = listing(tool), list[Undo | None]()
        mitigate.apply(netns_lookup.here(), saved.append)
        changed = rules(listing(tool))
        assert saved[-1]
        mitigate.revert(netns_lookup.here(), saved[-1])
        return before, changed, listing(tool)

    before, changed, after = in_sandbox(cured)
    assert [rule.endswith("-j MASQUERADE --random-fully") for rule in changed if "MASQ" in rule] == [
        True
    ] * 2
    assert after == before


CHANGE = {"tool": "nft", "family": "ip", "table": "a", "chain": "post", "nth": 0, "copies": 1}
CHANGE |= {"old": "masquerade", "new": "masquerade fully-random"}
CURED = """table ip a {
 chain post { type nat hook postrouting priority srcnat; masquerade fully-random
 }
 chain other { accept
 }
}
"""


@PRIVATE
@NFT
@pytest.mark.parametrize(
    "changed",
    [
        {"old": "masquerade; flush ruleset"},
        {"old": "accept"},
        {"old": 'include "/tmp/evil"'},
        {"old": "masquerade } } table ip evil { chain x { accept"},
        {"old": 'masquerade comment "x"'},
        {"old": "masquerade persistent"},
        {"nth": 1},
        {"nth": -1},
        {"copies": 0},
        {"copies": 2},
        {"chain": "other"},
        {"chain": "post; flush ruleset"},
        {"table": "b"},
        {"family": "inet"},
        {"old": "accept", "new": "accept", "chain": "other"},
        {"tool": "iptables-nft"},
    ],
    ids=str,
)
def test_an_undo_file_may_say_anything(changed: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "undo.json"

    def reverted() -> tuple[list[str], subprocess.CompletedProcess[str], list[str]]:
        subprocess.run(["nft", "-f", "-"], input=CURED, text=True, check=True)
        document = {"written_at": "", "environment": {}, "netns": netns_lookup.here().inode, "dumps": {}}
        file.write_text(json.dumps(document | {"changes": [CHANGE | changed]}))
        file.chmod(0o600)
        before = listing(*TOOLS)
        done = fork_cli("mitigate", "--revert", str(file))
        return before, done, listing(*TOOLS)

    before, done, after = in_sandbox(reverted)
    assert done.returncode in (2, 4), done
    assert done.stderr.count("\n") == 1, done
    assert after == before


def test_what_undoes_more_than_there_can_be_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "undo.json"
    document = {"written_at": "", "environment": {}, "netns": 1, "dumps": {}, "changes": [CHANGE] * 100_001}
    file.write_text(json.dumps(document))
    file.chmod(0o600)
    with pytest.raises(UsageError, match="is no file of"):
        undo_file.read(file)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.write_text(""), "is empty"),
        (lambda file: file.chmod(0o622), "others may write"),
        (lambda file: file.rename(file.with_name("real")) and file.symlink_to("real"), "it is a link"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "is no file"),
        (lambda file: os.truncate(file, (64 << 20) + 1), "larger than any"),
    ],
    ids=["empty", "writable by others", "a link", "a pipe", "huge"],
)
def test_a_file_that_others_may_have_written_is_not_read(
    spoil: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "undo.json"
    file.write_text("{}")
    file.chmod(0o600)
    spoil(file)
    with pytest.raises(UsageError, match=message):
        undo_file.read(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_strangers_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "undo.json"
    file.write_text("{}")
    os.chown(file, 12345, -1)
    with pytest.raises(UsageError, match="belongs to user 12345"):
        undo_file.read(file)


@PRIVATE
@NFT
def test_an_empty_file_keeps_no_apply_from_writing(tmp_path: Path) -> None:
    """One that an earlier version left, when it was killed; mktemp makes such files too."""
    file = tmp_path / "undo.json"
    file.touch()

    def applied() -> subprocess.CompletedProcess[str]:
        load("handwritten.nft", "nft")
        return fork_cli("mitigate", "--apply", "--dump", str(file))

    assert in_sandbox(applied).returncode == 0
    assert file.stat().st_size > 0
    assert file.stat().st_mode & 0o777 == 0o600


def test_words_are_parted_as_iptables_parts_them() -> None:
    comment = 'it\'s \\ "x" -j'
    quoted = re.sub(r"([\\\"'])", r"\\\1", comment)
    line = f'[0:0] -A POSTROUTING -m comment --comment "{quoted}" -j MASQUERADE'
    text = f"*nat\n:POSTROUTING ACCEPT [0:0]\n{line}\nCOMMIT\n"
    ruleset = IptablesSave("iptables-nft", text)
    assert ruleset.broken == []
    assert [rule.comment for rule in ruleset.snat_rules] == [comment]


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ("10.0.0.0/24, 10.0.1.0/24", "10.0.0.0/23"),
        ("10.0.1.0/24, 10.0.0.0/24, 10.9.0.1", "{ 10.0.0.0/23, 10.9.0.1 }"),
        ("1-5, 6", "1-6"),
        ("10.0.0.1-10.0.0.5, 10.0.0.6", "10.0.0.1-10.0.0.6"),
        ("fd00::/64, fd00:0:0:1::/64", "fd00::/63"),
        ("ssh, http", "{ ssh, http }"),
        ("1 : 2, 3 : 4", "{ 1 : 2, 3 : 4 }"),
    ],
)
def test_neighbours_in_a_set_are_one(elements: str, expected: str) -> None:
    assert merged(elements) == expected


@PRIVATE
@pytest.mark.parametrize("tool", rule_trials.TOOLS)
@pytest.mark.parametrize("trial", rule_trials.TRIALS)
def test_trials_of_a_few_seeds(trial: str, tool: str) -> None:
    """See ``rule_trials``; hundreds of them are for ``python -m tests.rule_trials``."""
    if not where(tool):
        pytest.skip(f"there is no {tool}")
    rule_trials.run(trial, tool, 1)
