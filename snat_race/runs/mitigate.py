"""Changes the SNAT rules of a host so that they draw ports, and changes them back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Never

from snat_race.errors import EnvironmentLacks, SnatRaceError, UsageError
from snat_race.kernel import host
from snat_race.kernel.host import utc_now
from snat_race.kernel.netns import Namespace
from snat_race.kernel.tools import printable
from snat_race.results.findings import Change, Undo
from snat_race.rules import loader, reader, rewrite, undo
from snat_race.rules.loader import Loader
from snat_race.rules.owners import owner_of
from snat_race.rules.reader import Rulesets
from snat_race.rules.rewrite import Plan
from snat_race.runs.signals import StopSignals

Save = Callable[[Undo | None], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to do, or was done, and what was left as it is: ``fixed`` for a reason that is told,
    ``refused`` by its tool, or not readable at all.
    """

    plans: tuple[Plan, ...]
    writers: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


def look(namespace: Namespace) -> Found:
    """Plan the cure of every exposed rule."""
    found = reader.read(namespace)
    again = dict.fromkeys(
        f"{writer.name} writes its rule again: {writer.again}; {writer.setting}"
        for writer in map(owner_of, found.exposed)
    )
    fixed = tuple(f"{rule.place}: {rule.text}: {rule.fixed}" for rule in found.exposed if rule.fixed)
    return Found(tuple(_plans(found)), tuple(again), fixed, unreadable=found.unreadable)


def _plans(found: Rulesets) -> list[Plan]:
    plans = []
    for each in found.sets:
        edits = tuple(rewrite.cure(rule) for rule in each.rules if not rule.harmless and not rule.fixed)
        if edits:
            plans.append(Plan(each.tool, each.text, edits))
    return plans


def apply(namespace: Namespace, save: Save) -> Found:
    """Cure every exposed rule. ``save`` is given the undo before anything is changed, again if a rule
    reads back in other words, and None if nothing was changed after all.

    Raises:
        EnvironmentLacks: every tool refuses, or the lock is not to be had; nothing was changed.
        SnatRaceError: something went wrong on the way; what is changed by then can be reverted.

    """
    used = {plan.tool for plan in look(namespace).plans}
    with loader.lock_for(used) as lock, StopSignals():
        found, loading = look(namespace), Loader(namespace, lock)
        plans, refused = loading.tried(found.plans)
        if refused and not plans:
            raise EnvironmentLacks(f"{'; '.join(refused)}; nothing was changed")
        changes = {plan.tool: undo.planned(plan) for plan in plans}
        for plan in plans:
            save(_dump(namespace, plans, changes))
            try:
                changes[plan.tool] = undo.settled(loading.loaded(plan))
            except SnatRaceError as failed:
                _give_up(failed, loading, plan.tool, changes, save)
        if plans:
            save(_dump(namespace, plans, changes))
    return replace(found, plans=tuple(plans), refused=tuple(refused))


def _give_up(
    failed: SnatRaceError, loading: Loader, tool: str, changes: dict[str, list[Change]], save: Save
) -> Never:
    """Put back what was half done, and say what is still changed; that can be reverted."""

    def back(tool: str) -> tuple[Plan, list[Change]]:
        return undo.back(tool, reader.reread(loading.namespace, tool), changes[tool])

    loading.put_back(back(tool)[0])
    backs = map(back, changes)
    changed = ", ".join(plan.tool for plan, lost in backs if plan.edits or lost)
    if not changed:
        save(None)
        raise type(failed)(f"{failed}; nothing is changed") from failed
    raise type(failed)(
        f"{failed}; the rules of {changed} are changed, and --revert undoes that"
    ) from failed


def _dump(namespace: Namespace, plans: Sequence[Plan], changes: dict[str, list[Change]]) -> Undo:
    return Undo(
        written_at=utc_now(),
        environment=host.environment(),
        netns=namespace.inode,
        changes=[change for each in changes.values() for change in each],
        dumps={plan.tool: printable(plan.text) for plan in plans},
    )


def revert(namespace: Namespace, dump: Undo) -> Found:
    """Put back exactly the rules that were changed; rules of others stay as they are now, and what
    reads as before the change already, as after a restart of its writer, is left alone.

    Raises:
        UsageError: a rule that was changed is not there any more; nothing is changed.
        EnvironmentLacks, SnatRaceError: as for :func:`apply`.

    """
    if dump.netns != namespace.inode:
        raise UsageError(
            "--revert: the file does not fit: it is of another network namespace than "
            f"{namespace.name}; name that with --netns"
        )
    by_tool: dict[str, list[Change]] = {}
    for change in dump.changes:
        by_tool.setdefault(change.tool, []).append(change)
    with loader.lock_for(set(by_tool)) as lock, StopSignals():
        loading = Loader(namespace, lock)
        wanted = [_back(namespace, tool, changes) for tool, changes in by_tool.items()]
        plans, refused = loading.tried([plan for plan in wanted if plan.edits])
        if refused and not plans:
            raise EnvironmentLacks(f"{'; '.join(refused)}; nothing was changed")
        for plan in plans:
            loading.loaded(plan)
    return Found(tuple(plans), refused=tuple(refused))


def _back(namespace: Namespace, tool: str, changes: list[Change]) -> Plan:
    plan, lost = undo.back(tool, reader.reread(namespace, tool), changes)
    if lost:
        raise UsageError(
            f"--revert: the file does not fit the rules that are here: {tool} {lost[0].table} "
            f"{lost[0].chain} has not the {lost[0].copies} rules '{lost[0].new}' that it should; "
            "nothing was changed. To revert the others, take this one out of the file's 'changes'"
        )
    return plan
