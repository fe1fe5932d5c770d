"""Changes the SNAT rules of a host so that they draw ports, and changes them back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Never

from snat_race.errors import EnvironmentLacks, SnatRaceError, UsageError
from snat_race.kernel import host
from snat_race.kernel.host import utc_now
from snat_race.kernel.netns import Namespace
from snat_race.kernel.tools import printable
from snat_race.results.findings import (
    Change,
    ExaminedRule,
    RuleOwner,
    ToolName,
    Undo,
    Unreadable,
)
from snat_race.rules import loader, reader, rewrite, undo
from snat_race.rules.loader import Loader
from snat_race.rules.rewrite import Rewrite
from snat_race.runs.signals import StopSignals

Save = Callable[[Undo | None], None]
"""Keeps an undo in place of the one before; None if there is nothing to undo after all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mitigation:
    """What is to be changed, or was, and what is left as it is."""

    rewrites: tuple[Rewrite, ...]  # one per tool that has rules to change
    owners: tuple[RuleOwner, ...] = ()  # of the exposed rules, each once: they write them again
    unchangeable: tuple[ExaminedRule, ...] = ()  # exposed rules that no program of ours can change
    refusals: tuple[str, ...] = ()  # rules that their tool does not load, with what it says
    unreadable: tuple[Unreadable, ...] = ()  # rules that could not be looked into

    @property
    def complete(self) -> bool:
        """Whether nothing that may be exposed is left as it is."""
        return not (self.unchangeable or self.refusals or self.unreadable)


def look(namespace: Namespace) -> Mitigation:
    """Plan the cure of every exposed rule."""
    rules = reader.read(namespace)
    curable = [rule for rule in rules.exposed if not rule.unchangeable]
    rewrites = [
        rewrite.cure(ruleset, [rule for rule in curable if rule.chain.tool == ruleset.tool])
        for ruleset in rules.rulesets
    ]
    exposed = [rules.examined(rule) for rule in rules.exposed]
    return Mitigation(
        rewrites=tuple(rewrite for rewrite in rewrites if rewrite.edits),
        owners=tuple(dict.fromkeys(rule.owner for rule in exposed)),
        unchangeable=tuple(rule for rule in exposed if rule.unchangeable),
        unreadable=rules.unreadable,
    )


def apply(namespace: Namespace, save: Save) -> Mitigation:
    """Cure every exposed rule.

    ``save`` is called before anything is changed, again if a rule reads back in other words, and with
    None if nothing was changed after all.

    Raises:
        EnvironmentLacks: every tool refuses, or the lock is not to be had; nothing was changed.
        SnatRaceError: something went wrong on the way; what is changed by then can be reverted.

    """
    # Which lock is needed depends on the rules, and they may change until it is held: look twice.
    tools_used = {rewrite.tool for rewrite in look(namespace).rewrites}
    with loader.lock_for(tools_used) as lock, StopSignals():
        wanted = look(namespace)
        loading = Loader(namespace, lock)
        rewrites, refusals = _loadable(loading, wanted.rewrites)
        changes = {rewrite.tool: undo.planned(rewrite) for rewrite in rewrites}
        for rewrite in rewrites:
            save(_undo_of(namespace, rewrites, changes))
            try:
                changes[rewrite.tool] = undo.settled(loading.load(rewrite))
            except SnatRaceError as failed:
                _give_up(failed, loading, rewrite.tool, changes, save)
        if rewrites:
            save(_undo_of(namespace, rewrites, changes))
    return Mitigation(
        rewrites=tuple(rewrites),
        owners=wanted.owners,
        unchangeable=wanted.unchangeable,
        refusals=tuple(refusals),
        unreadable=wanted.unreadable,
    )


def revert(namespace: Namespace, saved: Undo) -> Mitigation:
    """Put back exactly the rules that were changed. Rules of others stay as they are now; what reads as
    before the change already, as after a restart of its owner, is left alone.

    Raises:
        UsageError: a rule that was changed is not there any more; nothing is changed.
        EnvironmentLacks, SnatRaceError: as for :func:`apply`.

    """
    if saved.netns != namespace.inode:
        raise UsageError(
            f"the file does not fit: it is of another network namespace than {namespace.name}; name the "
            "one that was changed"
        )
    by_tool: dict[ToolName, list[Change]] = {}
    for change in saved.changes:
        by_tool.setdefault(change.tool, []).append(change)
    with loader.lock_for(by_tool) as lock, StopSignals():
        wanted = [_back(namespace, tool, changes) for tool, changes in by_tool.items()]
        loading = Loader(namespace, lock)
        rewrites, refusals = _loadable(loading, [rewrite for rewrite in wanted if rewrite.edits])
        for rewrite in rewrites:
            loading.load(rewrite)
    return Mitigation(rewrites=tuple(rewrites), refusals=tuple(refusals))


def _loadable(loading: Loader, rewrites: Iterable[Rewrite]) -> tuple[list[Rewrite], list[str]]:
    """Return what the tools would load, and what they say to the rest.

    Raises:
        EnvironmentLacks: they refuse everything.

    """
    loadable, refusals = loading.tried(list(rewrites))
    if refusals and not loadable:
        raise EnvironmentLacks(f"{'; '.join(refusals)}; nothing was changed")
    return loadable, refusals


def _give_up(
    failed: SnatRaceError,
    loading: Loader,
    tool: ToolName,
    changes: dict[ToolName, list[Change]],
    save: Save,
) -> Never:
    """Put back what was half done with one tool, and say what is still changed with others."""

    def back(tool: ToolName) -> tuple[Rewrite, list[Change]]:
        return undo.back(reader.reread(loading.namespace, tool), changes[tool])

    rewrite, _ = back(tool)
    loading.put_back(rewrite)
    still_changed = []
    for tool_changed in changes:
        rewrite, lost = back(tool_changed)
        if rewrite.edits or lost:
            still_changed.append(tool_changed)
    if not still_changed:
        save(None)
        raise type(failed)(f"{failed}; nothing is changed") from failed
    names = ", ".join(still_changed)
    raise type(failed)(f"{failed}; the rules of {names} are changed, and can be reverted") from failed


def _undo_of(
    namespace: Namespace, rewrites: Iterable[Rewrite], changes: dict[ToolName, list[Change]]
) -> Undo:
    return Undo(
        written_at=utc_now(),
        environment=host.environment(),
        netns=namespace.inode,
        changes=[change for changes_of_tool in changes.values() for change in changes_of_tool],
        dumps={rewrite.tool: printable(rewrite.ruleset.text) for rewrite in rewrites},
    )


def _back(namespace: Namespace, tool: ToolName, changes: list[Change]) -> Rewrite:
    rewrite, lost = undo.back(reader.reread(namespace, tool), changes)
    if lost:
        change = lost[0]
        raise UsageError(
            f"the file does not fit the rules that are here: {change.address} should have "
            f"{change.copies} rules '{change.new}', and has not; nothing was changed. To revert the "
            "others, take this one out of the file's 'changes'"
        )
    return rewrite
