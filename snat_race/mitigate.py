"""Changes the SNAT rules of a host so that they draw ports, and changes them back."""

import difflib
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from snat_race.analysis.findings import Change, Tools, Undo
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
        EnvironmentLacks: a tool refuses, or the lock is not to be had; the message says what is
            changed, if anything, and the undo given last is of just that.
        SnatRaceError: what is read back is not what was written.

    """
    with tools.xtables_lock() as lock:
        found, done = look(namespace), list[Plan]()
        for plan in found.plans:
            _load(namespace, plan, lock, trial=True)
        if found.plans:
            save(_undo(found.plans))
        try:
            for plan in found.plans:
                _load(namespace, plan, lock, trial=False)
                done.append(plan)
                _verify(namespace, plan)
        except (EnvironmentLacks, SnatRaceError) as failed:
            if not done:
                raise
            save(_undo(done))
            changed = ", ".join(plan.tool for plan in done)
            raise type(failed)(
                f"{failed}; the rules of {changed} are changed, and the dump undoes that"
            ) from failed
    return found


def revert(namespace: Namespace, undo: Undo) -> list[Plan]:
    """Put back exactly the rules that were changed; rules of others stay as they are now.

    Raises:
        UsageError: a rule that was changed is not there any more; nothing is changed.
        EnvironmentLacks, SnatRaceError: as for :func:`apply`.

    """
    with tools.xtables_lock() as lock:
        by_tool: dict[str, list[Change]] = {}
        for change in undo.changes:
            by_tool.setdefault(change.tool, []).append(change)
        plans = [_back(namespace, tool, changes) for tool, changes in by_tool.items()]
        for plan in plans:
            _load(namespace, plan, lock, trial=True)
        for plan in plans:
            _load(namespace, plan, lock, trial=False)
            _verify(namespace, plan)
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
                tool=cast("Tools", plan.tool),
                family=place.family,
                table=place.table,
                chain=place.chain,
                old=edit.old,
                new=new,
                nth=alike.index(edit.index),
                copies=len(alike),
            )
        )
    return found


def _undo(plans: Sequence[Plan]) -> Undo:
    return Undo(
        written_at=utc_now(),
        environment=host.environment(),
        changes=[change for plan in plans for change in _changes(plan)],
        dumps={plan.tool: plan.text for plan in plans},
    )


def _load(namespace: Namespace, plan: Plan, lock: tools.Lock, *, trial: bool) -> None:
    """Have a tool load its edits in one transaction, or only try them."""
    command = ["nft", "-f", "-"]
    if plan.tool != "nft":
        command = [f"{plan.tool}-restore", "--noflush", "--counters", "--wait=1"]
    if trial:
        command.insert(1, "--check" if plan.tool == "nft" else "--test")
    script = rewrite.script(plan.text, plan.edits)
    with tempfile.NamedTemporaryFile() as spare:  # the real lock is ours already
        ended = _run(namespace, command, script, spare.name)
    if ended.returncode and "xtables lock" in tools.said(ended):
        # Before 1.8.5, iptables knows no other lock than the real one: it has to take that itself.
        with lock.released():
            ended = _run(namespace, [*command[:-1], "--wait=10"], script, None)
    if ended.returncode:
        raise EnvironmentLacks(f"{command[0]} refused the new rules: {tools.said(ended)}")


def _run(namespace: Namespace, command: list[str], script: str, lock: str | None) -> tools.Finished:
    try:
        return tools.run(namespace, command, script, lock=lock)
    except subprocess.TimeoutExpired:
        raise EnvironmentLacks(f"{command[0]} did not end within {tools.SLOWEST_S:.0f} s") from None


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
