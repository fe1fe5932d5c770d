"""Has a tool load what was planned for it, all or nothing, and makes sure of what is there then."""

import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from snat_race.errors import EnvironmentLacks, SnatRaceError
from snat_race.kernel import tools
from snat_race.kernel.netns import Namespace
from snat_race.kernel.tools import printable
from snat_race.rules import reader, rewrite
from snat_race.rules.rewrite import Edit, Plan


class Loader:
    """Loads plans into a namespace, under the lock of xtables, if that is needed."""

    def __init__(self, namespace: Namespace, lock: tools.Lock | None) -> None:
        self.namespace, self._lock = namespace, lock

    def tried(self, plans: Sequence[Plan]) -> tuple[list[Plan], list[str]]:
        """Return what their tools would load of the plans, and what they say to the rest."""
        good, refused = [], []
        for plan in plans:
            edits, said = self._loadable(plan)
            refused += said
            if edits:
                good.append(replace(plan, edits=edits))
        return good, refused

    def _loadable(self, plan: Plan) -> tuple[tuple[Edit, ...], list[str]]:
        """Return the edits that a tool would load; if not all, one by one."""
        if not (said := self._refusal(plan)):
            return plan.edits, []
        if len(plan.edits) == 1:
            return (), [f"{printable(plan.edits[0].old)}: {said}"]
        alone = {edit: self._refusal(replace(plan, edits=(edit,))) for edit in plan.edits}
        good = tuple(edit for edit, refusal in alone.items() if not refusal)
        refused = [f"{printable(edit.old)}: {refusal}" for edit, refusal in alone.items() if refusal]
        if not refused or (good and self._refusal(replace(plan, edits=good))):
            return (), [said]
        return good, refused

    def _refusal(self, plan: Plan) -> str:
        try:
            self._load(plan.tool, rewrite.script(plan.text, plan.edits), trial=True)
        except EnvironmentLacks as refusal:
            return str(refusal)
        return ""

    def loaded(self, plan: Plan) -> Plan:
        """Load a plan; return it as it reads back.

        Raises:
            EnvironmentLacks: the tool refuses, or does not end.
            SnatRaceError: others interfered, before or after it was loaded; it is put back then.

        """
        interfered = f"another program changes the rules of {plan.tool} at the same time"
        if not _alike(plan, reader.reread(self.namespace, plan.tool)):
            raise SnatRaceError(f"{interfered}: try again")
        self._load(plan.tool, rewrite.script(plan.text, plan.edits), trial=False)
        then = reader.reread(self.namespace, plan.tool)
        edits = rewrite.settled(plan.text, plan.edits, then)
        if edits is None and plan.tool != "nft":
            self._load(plan.tool, rewrite.unmade(plan.text, plan.edits, then), trial=False)
            then = reader.reread(self.namespace, plan.tool)
        if edits is None:
            order = "" if rewrite.kept(plan.text, plan.edits, then) else ", and the rules are not as before"
            raise SnatRaceError(
                f"{interfered}: the new ones were not where they belong{order}; look, try again"
            )
        return replace(plan, text=then, edits=tuple(edits))

    def put_back(self, plan: Plan) -> None:
        """Load a plan that takes back another, wherever its rules are now."""
        if plan.edits:
            self._load(plan.tool, rewrite.script(plan.text, plan.edits), trial=False)

    def _load(self, tool: str, script: str, *, trial: bool) -> None:
        """Have a tool load a script in one transaction, or only try it."""
        command = ["nft", "-f", "-"]
        if tool != "nft":
            command = [f"{tool}-restore", "--noflush", "--counters", "--wait=1"]
        if trial:
            command.insert(1, "--check" if tool == "nft" else "--test")
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
    """Return the lock that these tools need; nft knows none. Nor does iptables-nft (xtables-nft(8)), but
    two of us keep out of each other's way by it.
    """
    if tools_used <= {"nft"}:
        return nullcontext()
    return tools.xtables_lock(
        needed=any(each != "nft" and not each.endswith("-nft") for each in tools_used)
    )


def _alike(plan: Plan, before: str) -> bool:
    """Whether the chains that a plan touches are still as they were when it was made."""
    then, now = rewrite.chains(plan.tool, plan.text), rewrite.chains(plan.tool, before)
    return all(
        [(line.same, line.handle) for line in then[key]]
        == [(line.same, line.handle) for line in now.get(key, [])]
        for key in {edit.place.key for edit in plan.edits}
    )
