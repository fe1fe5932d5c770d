"""Trials of ``mitigate`` on generated rulesets: two at once, a writer beside it, a kill in the middle.

Each trial takes a tool and a seed; an odd one is of ``--tcp-only``. It fails if a rule is lost, if a rule
is left exposed by a run that says that it applied, or if any word is wrong. The suite runs a few; by hand,
as many as one likes, from any seed on: ``python -m tests.rule_trials two_at_once 70 [SEED]``.
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snat_race.kernel import netns_lookup, nftables, tools
from snat_race.kernel.tools import where
from snat_race.runs import mitigate
from tests.conftest import MOST_S, eventually, fork_cli, in_sandbox, start_cli
from tests.test_rulesets import load, printed, without_added

TOOLS = ("iptables-nft", "iptables-legacy", "nft")
_GIVEN_UP = ("at the same time", "keep changing", "cannot be read")
_THEIRS = re.compile(r"10\.200\.\d+\.\d+")


def without_flags(lines: list[str]) -> list[str]:
    """The rules without those of the writer, without counts, and without what an apply may add or take."""
    bare = [re.sub(r"^\[\d+:\d+\] | --random(-fully)?|packets \d+ bytes \d+", "", line) for line in lines]
    bare = [" ".join(re.sub(r" (fully-random|random)\b,?", " ", line).split()) for line in bare]
    return [line for line in bare if not _THEIRS.search(line) and not line.startswith("{")]


def options(seed: int) -> list[str]:
    return ["--apply", "--tcp-only"] if seed % 2 else ["--apply"]


def exposed(seed: int) -> int:
    """How many rules are left that such an apply changes."""
    planned = mitigate.look(netns_lookup.here(), tcp_only="--tcp-only" in options(seed))
    return sum(len(rewrite.edits) for rewrite in planned.rewrites)


def refusing(seed: int) -> bool:
    """Whether it says that some rules cannot be changed so."""
    return bool(mitigate.look(netns_lookup.here(), tcp_only="--tcp-only" in options(seed)).unchangeable)


def unadded(tool: str, lines: list[str], seed: int) -> list[str]:
    """The rules without those that such an apply adds, and without those of the writer."""
    ours = [line for line in lines if not _THEIRS.search(line) and not line.startswith("{")]
    return without_added(tool, ours) if "--tcp-only" in options(seed) else ours


def two_at_once(tool: str, seed: int, folder: Path) -> None:
    load(tool, seed)
    before, were_exposed, refused = printed(tool), exposed(seed), refusing(seed)
    files = [folder / "a", folder / "b"]
    both = [start_cli("mitigate", *options(seed), "--dump", str(file)) for file in files]
    said = [one.communicate(timeout=MOST_S) for one in both]
    context = (tool, seed, said)
    assert 4 * refused in [one.returncode for one in both], context
    assert {one.returncode for one in both} <= {0, 4 * refused}, context
    assert sum("# Applied" in out for out, _ in said) == bool(were_exposed), context
    assert exposed(seed) == 0, context
    assert without_flags(unadded(tool, printed(tool), seed)) == without_flags(before), context
    for file in files:
        if file.exists():
            reverted = fork_cli("mitigate", "--revert", str(file))
            assert reverted.returncode == 0, (context, reverted)
    assert printed(tool) == before, context


@contextmanager
def writer(tool: str, seed: int) -> Iterator[Callable[[], list[str]]]:
    """Another program that adds and takes away rules; yield what ends it, and says which rules it left."""
    chance = random.Random(f"writer {seed}")  # noqa: S311
    chain = "POSTROUTING"
    if tool == "nft":
        tables = re.findall(r"^table (\S+ \S+) \{", "\n".join(printed(tool)), re.MULTILINE)
        chain = f"{chance.choice(tables)} post"
    read_end, write_end = os.pipe()
    stop_read, stop_write = os.pipe()
    child = os.fork()
    if not child:
        os.set_blocking(stop_read, False)
        theirs: list[str] = []
        number = 0
        while True:
            try:
                os.read(stop_read, 1)
                break
            except BlockingIOError:
                pass
            number += 1
            if theirs and chance.random() < 0.4:
                gone = theirs.pop(chance.randrange(len(theirs)))
                _write(tool, chain, "delete", gone)
            else:
                new = f"10.200.{number // 250}.{number % 250 + 1}"
                _write(tool, chain, chance.choice(("add", "insert")), new)
                theirs.append(new)
        os.write(write_end, "\n".join(theirs).encode())
        os._exit(0)

    def ended() -> list[str]:
        os.write(stop_write, b".")
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            left = pipe.read().split()
        os.waitpid(child, 0)
        return left

    try:
        yield ended
    finally:
        os.close(stop_write)
        os.close(stop_read)


def _write(tool: str, chain: str, how: str, address: str) -> None:
    if tool == "nft" and how == "delete":
        listed = subprocess.check_output(["nft", "-a", "list", "chain", *chain.split()], text=True)
        handle = next(line.split()[-1] for line in listed.splitlines() if f'"{address}"' in line)
        command = ["nft", "delete", "rule", *chain.split(), "handle", handle]
    elif tool == "nft":
        rule = ["tcp", "dport", "1", "accept", "comment", f'"{address}"']
        command = ["nft", how, "rule", *chain.split(), *rule]
    else:
        flag = {"add": "-A", "insert": "-I", "delete": "-D"}[how]
        command = [tool, "-w", "-t", "nat", flag, chain, "-s", address, "-j", "ACCEPT"]
    for _ in range(20):  # a transaction may fail because of another's; its writer tries again
        if not subprocess.run(command, capture_output=True, check=False).returncode:
            return
    raise AssertionError(command)


def writer_beside(tool: str, seed: int, folder: Path) -> None:
    load(tool, seed)
    before = printed(tool)
    file = folder / "undo"
    with writer(tool, seed) as ended:
        done = fork_cli("mitigate", *options(seed), "--dump", str(file))
        left = ended()
    after, context = printed(tool), (tool, seed, done)
    assert sorted(_THEIRS.findall("\n".join(line for line in after if not line.startswith("{")))) == sorted(
        left
    ), context
    assert without_flags(unadded(tool, after, seed)) == without_flags(before), context
    if "# Applied, and read back" in done.stdout or "nothing to change" in done.stdout:
        assert (done.returncode, exposed(seed)) == (0, 0), context
    elif "# Applied where it could be" in done.stdout:
        assert (done.returncode, "warning: " in done.stderr) == (4, True), context
    else:
        assert done.returncode in (1, 4), context
        assert any(words in done.stderr for words in _GIVEN_UP), context
        assert not file.exists(), context
    if file.exists():
        reverted = fork_cli("mitigate", "--revert", str(file))
        assert reverted.returncode == 0, (context, reverted)
    ours = [line for line in printed(tool) if not _THEIRS.search(line) and not line.startswith("{")]
    assert ours == [line for line in before if not line.startswith("{")], context


@contextmanager
def killed_in(chance: random.Random) -> Iterator[None]:
    """Have the process that changes rules, a fork of this one, killed before, within or after that."""
    where_it_dies = chance.choice(("before", "after", "while"))
    replace, run = nftables.change, tools.run

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def replaced(*of: Any, trial: bool) -> Any:
        if not trial and where_it_dies != "after":
            kill()
        said = replace(*of, trial=trial)
        if not trial:
            kill()
        return said

    def ran(namespace: Any, command: list[str], script: str = "", **more: Any) -> Any:
        loads = "restore" in command[0] or "-f" in command
        if not loads or "--test" in command or "--check" in command:
            return run(namespace, command, script, **more)
        if where_it_dies == "before":
            kill()
        if where_it_dies == "while":  # the tool is at work, and goes on without us
            signal.setitimer(signal.ITIMER_REAL, chance.random() * 0.01)
            signal.signal(signal.SIGALRM, lambda *_: kill())
        ended = run(namespace, command, script, **more)
        kill()
        return ended

    nftables.change, tools.run = replaced, ran
    try:
        yield
    finally:
        nftables.change, tools.run = replace, run


def killed(tool: str, seed: int, folder: Path) -> None:
    chance = random.Random(f"kill {seed}")  # noqa: S311
    load(tool, seed)
    before, were_exposed = printed(tool), exposed(seed)
    if not were_exposed or refusing(seed):
        return
    file, context = folder / "undo", (tool, seed)
    with killed_in(chance):
        done = fork_cli("mitigate", *options(seed), "--dump", str(file))
    assert done.returncode == -signal.SIGKILL, (context, done)
    whole(tool, before, seed)
    assert [path.name for path in folder.iterdir()] == ["undo"], context
    if exposed(seed):  # nothing is changed yet, and the file does not keep another apply from it
        assert fork_cli("mitigate", "--revert", str(file)).returncode == 0, context
        file = folder / "second"
        assert fork_cli("mitigate", *options(seed), "--dump", str(file)).returncode == 0, context
    assert exposed(seed) == 0, context
    with killed_in(chance):
        done = fork_cli("mitigate", "--revert", str(file))
    assert done.returncode == -signal.SIGKILL, (context, done)
    whole(tool, before, seed)
    reverted = fork_cli("mitigate", "--revert", str(file))
    assert reverted.returncode == 0, (context, reverted)
    assert printed(tool) == before, context


def whole(tool: str, before: list[str], seed: int) -> None:
    """All rules are changed, or none; a tool that we left alone may still be at work."""
    now = eventually(lambda: now if (now := printed(tool)) == before or not exposed(seed) else None)
    assert without_flags(unadded(tool, now, seed)) == without_flags(before), (tool, seed)


TRIALS: dict[str, Callable[[str, int, Path], None]] = {
    trial.__name__: trial for trial in (two_at_once, writer_beside, killed)
}


def run(name: str, tool: str, seed: int) -> None:
    """Run a trial in a namespace and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        in_sandbox(lambda: TRIALS[name](tool, seed, Path(folder)))


def main(name: str, count: int, first: int) -> None:
    """Print how many trials went well; the first that does not ends it."""
    with tempfile.NamedTemporaryFile() as lock:
        os.environ["XTABLES_LOCKFILE"] = lock.name
        for tool in filter(where, TOOLS):
            for seed in range(first, first + count):
                run(name, tool, seed)
            print(f"{name}, {tool}: {count} trials, all right", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 5000)
