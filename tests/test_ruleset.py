"""A ruleset is parsed once, and only its strategy knows which tool it is of."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snat_race.kernel import netns_lookup
from snat_race.results.findings import ChainAddress, Undo
from snat_race.rules import iptables_save, nft_text, reader, undo
from snat_race.rules.rewrite import Rewrite
from snat_race.rules.ruleset import Edit, positions
from snat_race.runs import mitigate
from tests.conftest import IPTABLES, NFT, PRIVATE, ROOT, in_sandbox
from tests.test_mitigate import DOCKER, TOOLS, listing, load, rules

SAVED = f"""*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
[7:420] {DOCKER}
[1:60] -A POSTROUTING -s 10.1.0.0/16 -j ACCEPT
COMMIT
"""
CURED = SAVED.replace(DOCKER, f"{DOCKER} --random-fully")
LISTED = """table ip a { # handle 1
\tchain post { # handle 2
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\toifname "eth9" masquerade # handle 3
\t\toifname "eth8" accept # handle 4
\t}
}
"""
LISTED_THEN = LISTED.replace("masquerade # handle 3", "masquerade fully-random # handle 5")


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))


@pytest.fixture
def parsed_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that a strategy parses, as often as it does."""
    texts: list[str] = []

    def counted(parse: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            texts.append(args[-1])
            return parse(*args)

        return wrapper

    for module, name in ((iptables_save, "_parsed"), (nft_text, "chains")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    return texts


SAVED_CHAIN = ChainAddress(tool="iptables-nft", family="ip", table="nat", chain="POSTROUTING")
LISTED_CHAIN = ChainAddress(tool="nft", family="ip", table="a", chain="post")
NFT_RULE = 'oifname "eth9" masquerade'


@pytest.mark.parametrize(
    ("chain", "old", "before", "after"),
    [(SAVED_CHAIN, DOCKER, SAVED, CURED), (LISTED_CHAIN, NFT_RULE, LISTED, LISTED_THEN)],
    ids=["iptables-save", "nft"],
)
def test_planning_verifying_and_undoing_parse_a_text_once(
    parsed_texts: list[str], chain: ChainAddress, old: str, before: str, after: str
) -> None:
    strategy = reader.strategy_of(chain.tool)
    now = strategy(chain.tool, before)
    new = now.cured(old)
    edit = Edit(chain=chain, index=0, old=old, new=new)
    plan = Rewrite(now, (edit,))
    assert new.removeprefix("-A POSTROUTING") in plan.script
    assert f"\n+{new}" in plan.diff.replace("\t", "")
    assert plan.onto(strategy(chain.tool, before.replace("[7:420]", "[8:480]"))) is not None
    then = strategy(chain.tool, after)
    assert plan.onto(then) is None
    assert now.settled(plan.edits, now) is None
    assert now.settled(plan.edits, then) == [edit]
    (change,) = undo.settled(Rewrite(then, (edit,)))
    assert undo.planned(plan) == [change]
    back, lost = undo.back(then, [change])
    assert (lost, [(edit.old, edit.new) for edit in back.edits]) == ([], [(new, old)])
    assert old.removeprefix("-A POSTROUTING") in back.script
    assert parsed_texts == [before, before.replace("[7:420]", "[8:480]"), after]


@PRIVATE
@IPTABLES
@NFT
def test_an_apply_parses_what_the_tools_print_and_nothing_twice(
    parsed_texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[str] = []
    output = reader._output

    def counted(namespace: Any, command: list[str]) -> str:
        text = output(namespace, command)
        printed.append(text)
        return text

    monkeypatch.setattr(reader, "_output", counted)

    def applied() -> tuple[list[str], list[str]]:
        load("docker.rules", "nft")
        mitigate.apply(netns_lookup.here(), lambda _: None)
        return parsed_texts, [text for text in printed if not text.startswith('{"nftables"')]

    parsed, texts = in_sandbox(applied)
    assert list(filter(None, parsed)) == list(filter(None, texts))


@PRIVATE
@IPTABLES
def test_an_undo_file_of_the_version_before_reverts() -> None:
    """The fields as snat_race 0.1.0 wrote them, before results had schema version 2."""
    change = {"tool": "iptables-nft", "family": "ip", "table": "nat", "chain": "POSTROUTING"}
    change |= {"old": DOCKER, "new": f"{DOCKER} --random-fully", "nth": 0, "copies": 1}

    def reverted() -> tuple[list[str], list[str]]:
        load("docker.rules", "nft")
        before = listing(*TOOLS)
        command = ["iptables-nft", "-t", "nat", "-R", "POSTROUTING"]
        number = [rule for rule in rules(before) if rule.startswith("-A POSTROUTING")].index(DOCKER) + 1
        spec = DOCKER.removeprefix("-A POSTROUTING ").split()
        subprocess.run([*command, str(number), *spec, "--random-fully"], check=True)
        document = {"schema_version": 1, "kind": "undo", "written_at": "2026-01-01T00:00:00.000Z"}
        document |= {"environment": {}, "netns": netns_lookup.here().inode}
        document |= {"changes": [change], "dumps": {"iptables-nft": ""}}
        mitigate.revert(netns_lookup.here(), Undo.model_validate(document))
        return before, listing(*TOOLS)

    before, after = in_sandbox(reverted)
    assert after == before


def test_nobody_but_the_strategies_asks_which_tool_it_is() -> None:
    asks = re.compile(r"""[=!]=\s*["']nft["']|["']nft["']\s*[=!]=|\btool\b.*\bin\b.*["']nft["']""")
    rooms = ("cli", "runs", "report", "analysis", "rules", "results")  # lab loads variants in its own way
    files = [file for room in rooms for file in (ROOT / "snat_race" / room).rglob("*.py")]
    asking = {file.name for file in files if asks.search(file.read_text())}
    assert asking <= {"iptables_save.py", "nft_list.py"}


@pytest.mark.parametrize(
    ("wanted", "present", "expected"),
    [
        ("", "abc", []),
        ("ac", "abc", [0, 2]),
        ("aba", "xabba", [1, 2, 4]),
        ("ca", "abc", None),
        ("aa", "abc", None),
    ],
)
def test_positions_are_in_order(wanted: str, present: str, expected: list[int] | None) -> None:
    assert positions(list(wanted), list(present)) == expected
