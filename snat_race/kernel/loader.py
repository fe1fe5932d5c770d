"""Has a tool load what was planned for it, all or nothing, and makes sure of what is there then."""

import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from snat_race.errors import EnvironmentLacks, SnatRaceError
from snat_race.kernel import rewrite, rulesets, tools
from snat_race.kernel.namespaces import Namespace
from snat_race.kernel.rewrite import Plan

_AT_THE_SAME_TIME = "another program changes the rules of {} at the same time"


class Loader:
    """Loads plans into a namespace, under the lock of xtables, if there is anything of xtables."""

    def __init__(self, namespace: Namespace, lock: tools.Lock | None) -> None:
        self.namespace, self._lock = namespace, lock

    def tried(self, plans: Sequence[Plan]) -> tuple[list[Plan], list[str]]:
        """Return the plans that their tools would load, and what the other tools say."""
        good, refused = [], []
        for plan in plans:
            try:
                self._load(plan, trial=True)
            except EnvironmentLacks as refusal:
                refused.append(str(refusal))
            else:
                good.append(plan)
        return good, refused

    def loaded(self, plan: Plan) -> Plan:
        """Load a plan; return it as it reads back.

        Raises:
            EnvironmentLacks: the tool refuses, or does not end.
            SnatRaceError: others interfered, before or after it was loaded.

        """
        before = rulesets.reread(self.namespace, plan.tool)
        if not _alike(plan, before):
            raise SnatRaceError(f"{_AT_THE_SAME_TIME.format(plan.tool)}: try again")
        self._load(plan, trial=False)
        then = rulesets.reread(self.namespace, plan.tool)
        edits = rewrite.settled(plan.text, plan.edits, then)
        if edits is None:
            raise SnatRaceError(
                f"{_AT_THE_SAME_TIME.format(plan.tool)}: the new ones do not read back where they were put"
            )
        return replace(plan, text=then, edits=tuple(edits))

    def put_back(self, plan: Plan) -> None:
        """Load a plan that takes back another, wherever its rules are now."""
        if plan.edits:
            self._load(plan, trial=False)

    def _load(self, plan: Plan, *, trial: bool) -> None:
        """Have a tool load its edits in one transaction, or only try them."""
        command = ["nft", "-f", "-"]
        if plan.tool != "nft":
            command = [f"{plan.tool}-restore", "--noflush", "--counters", "--wait=1"]
        if trial:
            command.insert(1, "--check" if plan.tool == "nft" else "--test")
        script = rewrite.script(plan.text, plan.edits)
        with tempfile.NamedTemporaryFile() as spare:  # the real lock is ours already
            ended = self._run(command, script, spare.name)
        if ended.returncode and self._lock and "xtables lock" in tools.said(ended):
            # Before 1.8.5, iptables knows no other lock than the real one: it has to take that itself.
            with self._lock.released():
                ended = self._run([*command[:-1], "--wait=10"], script, None)
        if ended.returncode:
            raise EnvironmentLacks(f"{command[0]} refused the new rules: {tools.said(ended)}")

    def _run(self, command: list[str], script: str, lock: str | None) -> tools.Finished:
        try:
            return tools.run(self.namespace, command, script, lock=lock)
        except subprocess.TimeoutExpired:
            raise EnvironmentLacks(f"{command[0]} did not end within {tools.SLOWEST_S:.0f} s") from None


def lock_for(tools_used: set[str]) -> AbstractContextManager[tools.Lock | None]:
    """Return the lock that these tools need; nft knows none."""
    return nullcontext() if tools_used <= {"nft"} else tools.xtables_lock()


def _alike(plan: Plan, before: str) -> bool:
    """Whether the chains that a plan touches are still as they were when it was made."""
    then, now = rewrite.chains(plan.tool, plan.text), rewrite.chains(plan.tool, before)
    return all(
        [(line.same, line.handle) for line in then[key]]
        == [(line.same, line.handle) for line in now.get(key, [])]
        for key in {edit.place.key for edit in plan.edits}
    )
