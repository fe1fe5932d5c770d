"""Changes the SNAT rules of a host so that they draw ports, and changes them back."""

import difflib
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from snat_race.analysis.findings import Change, Undo
from snat_race.errors import EnvironmentLacks, SnatRaceError, UsageError
from snat_race.kernel import host, rewrite, rulesets, tools
from snat_race.kernel.namespaces import Namespace
from snat_race.kernel.nftables import with_counters_of
from snat_race.kernel.rewrite import Edit
from snat_race.kernel.rulesets import Rulesets
from snat_race.kernel.snat_rules import Place
from snat_race.kernel.writers import writer_of
from snat_race.watcher import utc_now

Save = Callable[[Undo], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What would change: ``text``, a tool's rules as they are, and its edits."""

    tool: str
    text: str
    edits: tuple[Edit, ...]

    @property
    def diff(self) -> str:
        """The change as a unified diff of what the tool prints."""
        before, after = rewrite.printed(self.text, self.edits)
        names = ("nft list ruleset",) * 2 if self.tool == "nft" else (f"{self.tool}-save",) * 2
        lines = difflib.unified_diff(before, after, *names, "now", "then", lineterm="")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to do, and what could not be looked into."""

    plans: tuple[Plan, ...]
    writers: tuple[str, ...]
    unreadable: tuple[str, ...]


def look(namespace: Namespace) -> Found:
    """Plan the cure of every exposed rule."""
    found = rulesets.read(namespace)
    again = dict.fromkeys(
        f"{writer.name} writes its rule again: {writer.again}; {writer.setting}"
        for writer in map(writer_of, found.exposed)
    )
    return Found(tuple(_plans(found)), tuple(again), found.unreadable)


def _plans(found: Rulesets) -> list[Plan]:
    plans = []
    for each in found.sets:
        edits = tuple(rewrite.cure(rule) for rule in each.rules if not rule.harmless)
        if edits:
            plans.append(Plan(each.tool, each.text, edits))
    return plans


def apply(namespace: Namespace, save: Save) -> Found:
    """Cure every exposed rule under the xtables lock; ``save`` is given the undo before anything.

    Raises:
        EnvironmentLacks: a tool refuses, or the lock is not to be had; the message says what was
            changed up to then, if anything.
        SnatRaceError: what is read back is not what was written.

    """
    with tools.xtables_lock():
        found = look(namespace)
        if found.plans:
            changes = [change for plan in found.plans for change in _changes(plan)]
            save(_undo(found.plans, changes))
            _carry_out(namespace, found.plans)
    return found


def revert(namespace: Namespace, undo: Undo) -> list[Plan]:
    """Put back exactly the rules that were changed; rules of others stay as they are now.

    Raises:
        UsageError: a rule that was changed is not there any more; nothing is changed.
        EnvironmentLacks, SnatRaceError: as for :func:`apply`.

    """
    with tools.xtables_lock():
        by_tool: dict[str, list[Change]] = {}
        for change in undo.changes:
            by_tool.setdefault(change.tool, []).append(change)
        plans = [_back(namespace, tool, changes) for tool, changes in by_tool.items()]
        _carry_out(namespace, plans)
    return plans


def _back(namespace: Namespace, tool: str, changes: list[Change]) -> Plan:
    text = rulesets.reread(namespace, tool)
    now = rewrite.chains(tool, text)
    edits = []
    for change in changes:
        lines = now.get((change.family, change.table, change.chain), [])
        here = [index for index, line in enumerate(lines) if line.same == change.new]
        place = Place(tool, change.family, change.table, change.chain)
        if len(here) != change.copies:
            raise UsageError(
                f"--revert: the file does not fit the rules that are here: {place} has {len(here)} rules "
                f"'{change.new}', not {change.copies}; nothing was changed"
            )
        index = here[change.nth]
        present = lines[index].text
        old = with_counters_of(change.old, present) if tool == "nft" else change.old
        edits.append(Edit(place, index, present, old))
    return Plan(tool, text, tuple(edits))


def _changes(plan: Plan) -> list[Change]:
    then = rewrite.expected(plan.text, plan.edits)
    found = []
    for edit in plan.edits:
        place, new = edit.place, rewrite.same(plan.tool, edit.new)
        alike = [index for index, rule in enumerate(then[place]) if rule == new]
        found.append(
            Change(
                tool=plan.tool,
                family=place.family,
                table=place.table,
                chain=place.chain,
                old=rewrite.same(plan.tool, edit.old),
                new=new,
                nth=alike.index(edit.index),
                copies=len(alike),
            )
        )
    return found


def _undo(plans: Sequence[Plan], changes: list[Change]) -> Undo:
    return Undo(
        written_at=utc_now(),
        environment=host.environment(),
        changes=changes,
        dumps={plan.tool: plan.text for plan in plans},
    )


def _carry_out(namespace: Namespace, plans: Sequence[Plan]) -> None:
    """Let every tool try its script, then load them; each tool's is one transaction."""
    for trial in (True, False):
        done: list[str] = []
        for plan in plans:
            _load(namespace, plan, done, trial=trial)
            done.append(plan.tool)


def _load(namespace: Namespace, plan: Plan, done: list[str], *, trial: bool) -> None:
    command = (
        ["nft", "-f", "-"] if plan.tool == "nft" else [f"{plan.tool}-restore", "--noflush", "--counters"]
    )
    if trial:
        command.insert(1, "--check" if plan.tool == "nft" else "--test")
    script = rewrite.script(plan.text, plan.edits)
    with tempfile.NamedTemporaryFile() as lock:  # the real one is ours
        try:
            ended = tools.run(namespace, command, script, lock=lock.name)
        except subprocess.TimeoutExpired:
            raise EnvironmentLacks(f"{command[0]} did not end within {tools.SLOWEST_S:.0f} s") from None
    if ended.returncode:
        before = f"; the rules of {', '.join(done)} are changed already" if done and not trial else ""
        raise EnvironmentLacks(f"{command[0]} refused the new rules: {tools.said(ended)}{before}")
    if not trial:
        _verify(namespace, plan)


def _verify(namespace: Namespace, plan: Plan) -> None:
    """Read back: every rule must be there, in order; others may have come in between."""
    now = rewrite.chains(plan.tool, rulesets.reread(namespace, plan.tool))
    for place, rules in rewrite.expected(plan.text, plan.edits).items():
        present = iter(line.same for line in now.get(place.key, []))
        missing = [rule for rule in rules if rule not in present]
        if missing:
            raise SnatRaceError(
                f"{place} does not read back as written; '{missing[0]}' is not where it was put. "
                "Did another program change it at the same time? Look, and run this again"
            )
