"""Has a tool load a rewrite, all or nothing, and makes sure of what is there then."""

import subprocess
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from snat_race.errors import EnvironmentLacks, SnatRaceError
from snat_race.kernel import tools
from snat_race.kernel.netns import Namespace
from snat_race.kernel.tools import printable
from snat_race.results.findings import ToolName
from snat_race.rules import reader
from snat_race.rules.rewrite import Rewrite
from snat_race.rules.ruleset import Edit, LockNeed, Ruleset

_LOCK_WAIT_S = 1  # for a lock file of our own, which nobody else takes
_REAL_LOCK_WAIT_S = 10


class Loader:
    """Loads rewrites into a namespace, under the lock of xtables, if that is needed."""

    def __init__(self, namespace: Namespace, lock: tools.Lock | None) -> None:
        self.namespace = namespace
        self._lock = lock

    def tried(self, rewrites: Sequence[Rewrite]) -> tuple[list[Rewrite], list[str]]:
        """Return what their tools would load of the rewrites, and what they say to the rest."""
        loadable = []
        refusals = []
        for rewrite in rewrites:
            edits, refused = self._loadable(rewrite)
            refusals += refused
            if edits:
                loadable.append(rewrite.of(edits))
        return loadable, refusals

    def _loadable(self, rewrite: Rewrite) -> tuple[tuple[Edit, ...], list[str]]:
        """Return the edits that a tool would load. If it refuses them together, each is tried alone."""
        refusal = self._refusal(rewrite)
        if not refusal:
            return rewrite.edits, []
        if len(rewrite.edits) == 1:
            return (), [_refusal_of(rewrite.edits[0], refusal)]
        alone = {edit: self._refusal(rewrite.of([edit])) for edit in rewrite.edits}
        loadable = tuple(edit for edit, said in alone.items() if not said)
        refused = [_refusal_of(edit, said) for edit, said in alone.items() if said]
        if not refused or (loadable and self._refusal(rewrite.of(loadable))):
            return (), [refusal]
        return loadable, refused

    def _refusal(self, rewrite: Rewrite) -> str:
        """Return what a tool says to a rewrite that it would not load; "" if it would."""
        try:
            self._load(rewrite.ruleset, rewrite.script, trial=True)
        except EnvironmentLacks as refusal:
            return str(refusal)
        return ""

    def load(self, rewrite: Rewrite) -> Rewrite:
        """Load a rewrite; return it as it reads back: the ruleset of then, and the edits in that.

        Raises:
            EnvironmentLacks: the tool refuses, or does not end.
            SnatRaceError: others interfered, before or after it was loaded. What iptables then has in
                a wrong place is put back; what nft has changed is the caller's to put back.

        """
        tool = rewrite.tool
        interfered = f"another program changes the rules of {tool} at the same time"
        if not rewrite.still_fits(reader.reread(self.namespace, tool)):
            raise SnatRaceError(f"{interfered}: try again")
        self._load(rewrite.ruleset, rewrite.script, trial=False)
        after = reader.reread(self.namespace, tool)
        edits = rewrite.ruleset.settled(rewrite.edits, after)
        if edits is not None:
            return replace(rewrite, ruleset=after, edits=tuple(edits))
        if repair := rewrite.ruleset.unmade(rewrite.edits, after):
            self._load(rewrite.ruleset, repair, trial=False)
            after = reader.reread(self.namespace, tool)
        order = "" if rewrite.undone(after) else ", and the rules are not as before"
        raise SnatRaceError(
            f"{interfered}: the new rules are not where they belong{order}; look at them, then try again"
        )

    def put_back(self, rewrite: Rewrite) -> None:
        """Load a rewrite that takes back another, wherever its rules are now."""
        if rewrite.edits:
            self._load(rewrite.ruleset, rewrite.script, trial=False)

    def _load(self, ruleset: Ruleset, script: str, *, trial: bool) -> None:
        """Have a ruleset's tool load a script in one transaction, or only try it."""
        command = ruleset.load_command(ruleset.tool, trial=trial, wait_s=_LOCK_WAIT_S)
        # The real lock is ours already, so the tool would wait for us. It locks a spare file instead.
        with tools.spare_lock() as spare:
            ended = self._run(command, script, spare)
        if ended.returncode and self._lock and "xtables lock" in tools.said(ended):
            # Before 1.8.5, iptables does not know XTABLES_LOCKFILE: it has to take the real lock itself.
            patient = ruleset.load_command(ruleset.tool, trial=trial, wait_s=_REAL_LOCK_WAIT_S)
            with self._lock.released():
                ended = self._run(patient, script, None)
        if ended.returncode:
            raise EnvironmentLacks(f"{command[0]} refused the new rules: {tools.said(ended)}")

    def _run(self, command: list[str], script: str, lock: str | None) -> tools.Finished:
        try:
            return tools.run(self.namespace, command, script, lock=lock)
        except subprocess.TimeoutExpired:
            raise EnvironmentLacks(f"{command[0]} did not end within {tools.SLOWEST_S:.0f} s") from None


def _refusal_of(edit: Edit, said: str) -> str:
    return f"{printable(edit.old)}: {said}"


def lock_for(tool_names: Iterable[ToolName]) -> AbstractContextManager[tools.Lock | None]:
    """Return the lock of xtables if one of these tools has to do with it, else a context that does
    nothing.
    """
    needs = {reader.strategy_of(tool).lock_need(tool) for tool in tool_names}
    if needs <= {LockNeed.unknown_to_it}:
        return nullcontext()
    return tools.xtables_lock(needed=LockNeed.required in needs)
