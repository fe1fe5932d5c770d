"""Generated rulesets: an apply changes the exposed rules and no others, and a revert all of that back.

By hand, as many as one likes, from any seed on: ``python -m tests.test_rulesets 500 [SEED]``.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from snat_race.kernel import netns_lookup
from snat_race.kernel.tools import where
from snat_race.results.findings import Undo
from snat_race.rules import reader
from snat_race.runs import mitigate
from tests.conftest import PRIVATE, in_sandbox
from tests.ruleset_generator import TOOLS, script

_NUMBERS = re.compile(r'"handle": \d+')


def load(tool: str, seed: int) -> None:
    """Start from nothing: the namespace is used again and again."""
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    for legacy in ("iptables-legacy", "ip6tables-legacy"):
        if where(legacy):
            subprocess.run([legacy, "-t", "nat", "-F"], check=True)
            subprocess.run([legacy, "-t", "nat", "-X"], check=True)
    command = ["nft", "-f", "-"] if tool == "nft" else [f"{tool}-restore", "--counters"]
    done = subprocess.run(command, input=script(tool, seed), text=True, capture_output=True, check=False)
    assert done.returncode == 0, (tool, seed, done.stderr, script(tool, seed))


def printed(tool: str) -> list[str]:
    """The rules as their tool prints them, counters too; and as JSON, which has no words to choose."""
    command = ["nft", "list", "ruleset"] if tool == "nft" else [f"{tool}-save", "-c"]
    text = subprocess.check_output(command, text=True).splitlines()
    lines = [line for line in text if not line.startswith("#")]
    if tool.endswith("nft"):
        lines.append(_NUMBERS.sub("", subprocess.check_output(["nft", "-j", "list", "ruleset"], text=True)))
    return lines


def without_added(tool: str, lines: list[str]) -> list[str]:
    """The lines but those that are, for TCP, what the next one is; the JSON is not looked at."""
    strategy = reader.strategy_of(tool)  # type: ignore[arg-type]
    bare = [re.sub(r"^\[\d+:\d+\] ", "", line.strip()) for line in lines]
    return [
        line
        for line, one, following in zip(lines, bare, [*bare[1:], ""], strict=True)
        if not re.search("masquerade|snat", following, re.IGNORECASE)
        or strategy.for_tcp(following) != strategy.uncounted(one)
    ]


def for_tcp_only(tool: str, seed: int) -> int:
    """Load, apply --tcp-only, revert; return how many rules were added or changed."""
    load(tool, seed)
    here, saved = netns_lookup.here(), list[Undo | None]()
    before = printed(tool)
    found = [rule for rule in reader.read(here).exposed if rule.gets_tcp]
    done = mitigate.apply(here, saved.append, tcp_only=True)
    then = printed(tool)
    refused = [(rule.address, rule.text) for rule in done.unchangeable]
    left = [(rule.chain, rule.text) for rule in reader.read(here).exposed if rule.gets_tcp]
    assert set(left) <= set(refused), (tool, seed, left)  # one may have got behind a rule that was added
    added = len(then) - len(before)
    alone = [rule for rule in found if not rule.gets_udp]
    assert added == len(found) - len(alone) - len(refused), (tool, seed, then)
    kept = [line for line in without_added(tool, then) if not line.startswith("{")]
    differ = [
        new
        for old, new in zip([line for line in before if not line.startswith("{")], kept, strict=True)
        if old != new
    ]
    assert len(differ) == len(alone), (tool, seed, differ)
    assert all("fully" in new for new in differ), (tool, seed, differ)
    if saved:
        assert saved[-1]
        mitigate.revert(here, Undo.model_validate(json.loads(saved[-1].model_dump_json())))
    assert printed(tool) == before, (tool, seed)
    return added + len(alone)


def round_trip(tool: str, seed: int) -> int:
    """Load, apply, revert; return how many rules were changed."""
    load(tool, seed)
    here = netns_lookup.here()
    saved: list[Undo | None] = []
    before, found = printed(tool), reader.read(here)
    exposed = [rule.text for rule in found.exposed]
    assert found.unreadable == (), (tool, seed, found.unreadable)
    done = mitigate.apply(here, saved.append)
    cured = printed(tool)
    assert done.complete, (tool, seed, done)
    assert reader.read(here).exposed == [], (tool, seed)
    changed = [
        (old, new) for old, new in zip(before, cured, strict=True) if old != new and not old.startswith("{")
    ]
    assert len(changed) == len(exposed), (tool, seed, changed, exposed)
    assert all("fully" in new for _, new in changed), (tool, seed, changed)
    assert sorted(re.sub(r"^\[\d+:\d+\] ", "", old.strip()) for old, _ in changed) == sorted(exposed)
    if exposed:
        assert saved[-1]
        mitigate.revert(here, Undo.model_validate(json.loads(saved[-1].model_dump_json())))
    after = printed(tool)
    assert after == before, (
        tool,
        seed,
        [pair for pair in zip(before, after, strict=False) if len(set(pair)) > 1],
    )
    return len(exposed)


@PRIVATE
@pytest.mark.parametrize("there_and_back", [round_trip, for_tcp_only])
@pytest.mark.parametrize("tool", TOOLS)
def test_a_round_trip_leaves_every_rule_as_it_was(
    tool: str, there_and_back: Callable[[str, int], int], tmp_path: Any, monkeypatch: Any
) -> None:
    if not where(tool):
        pytest.skip(f"there is no {tool}")
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    assert in_sandbox(lambda: sum(there_and_back(tool, seed) for seed in range(3, 7))) > 0


def main(count: int, first: int) -> None:
    """Print after each tool how many rulesets went there and back, and how many rules were changed."""
    for tool in filter(where, TOOLS):
        for there_and_back in (round_trip, for_tcp_only):
            rules = 0
            for seed in range(first, first + count):
                rules += in_sandbox(lambda way=there_and_back, tool=tool, seed=seed: way(tool, seed))
            print(  # noqa: T201
                f"{tool}, {there_and_back.__name__}: {count} rulesets, {rules} rules there and back",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
