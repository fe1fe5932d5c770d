"""Changes the SNAT rules of a host so that they draw ports, and changes them back."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Never

from snat_race.errors import EnvironmentLacks, SnatRaceError, UsageError
from snat_race.kernel import host
from snat_race.kernel.host import utc_now
from snat_race.kernel.netns import Namespace
from snat_race.kernel.tools import printable
from snat_race.results.findings import (
    ChainAddress,
    Change,
    ExaminedRule,
    RuleOwner,
    ToolName,
    Unchangeable,
    Undo,
    Unreadable,
)
from snat_race.rules import loader, reader, undo
from snat_race.rules.exposure import SnatRule
from snat_race.rules.loader import Interfered, Loader
from snat_race.rules.reader import HostRules
from snat_race.rules.rewrite import Rewrite, allows_tcp_only, cure
from snat_race.rules.ruleset import ChainKey
from snat_race.runs.signals import StopSignals

_ATTEMPTS = 10  # while others change the same rules
_MOST_SHOWN = 10  # rules that differ, in a message
_NOTHING = "nothing is changed"

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
    still_exposed: tuple[ExaminedRule, ...] = ()  # all the same; others may have written them
    without_tcp: int = 0  # exposed rules that no TCP comes to, where TCP alone is to be changed
    mixed: bool = False  # whether both TCP and UDP come to one, so that it can be changed for TCP alone
    unread_sets: tuple[str, ...] = ()  # ipsets that exposed rules ask for, if nobody could read them
    ipsets_failure: str = ""  # why not

    @property
    def complete(self) -> bool:
        """Whether nothing that may be exposed is left as it is."""
        return not (self.unchangeable or self.refusals or self.unreadable or self.still_exposed)


def look(namespace: Namespace, *, tcp_only: bool = False) -> Mitigation:
    """Plan the cure of every exposed rule; ``tcp_only``: see :func:`snat_race.rules.rewrite.cure`."""
    return _planned(reader.read(namespace), tcp_only=tcp_only)


def _planned(rules: HostRules, *, tcp_only: bool = False) -> Mitigation:
    exposed = _to_cure(rules, tcp_only=tcp_only)
    rewrites = [
        cure(
            ruleset,
            [rule for rule in exposed if rule.chain.tool == ruleset.tool and not rule.unchangeable],
            tcp_only=tcp_only,
        )
        for ruleset in rules.rulesets
    ]
    return Mitigation(
        rewrites=tuple(rewrite for rewrite in rewrites if rewrite.edits),
        owners=tuple(dict.fromkeys(map(rules.owners.owner_of, exposed))),
        unchangeable=tuple(rules.examined(rule) for rule in exposed if rule.unchangeable),
        unreadable=rules.unreadable,
        unread_sets=tuple(rules.unread_sets),
        ipsets_failure=rules.ipsets_failure,
        without_tcp=sum(not rule.gets_tcp for rule in rules.exposed) if tcp_only else 0,
        mixed=any(rule.gets_tcp and rule.gets_udp for rule in exposed),
    )


def _to_cure(rules: HostRules, *, tcp_only: bool) -> list[SnatRule]:
    """Return the exposed rules; of TCP, if that is all, with those whose form does not allow that."""
    if not tcp_only:
        return rules.exposed
    by_tool = {ruleset.tool: ruleset for ruleset in rules.rulesets}
    return [
        rule
        if rule.unchangeable or allows_tcp_only(by_tool[rule.chain.tool], rule)
        else replace(rule, unchangeable=Unchangeable.not_for_tcp_alone)
        for rule in rules.exposed
        if rule.gets_tcp
    ]


def apply(namespace: Namespace, save: Save, *, tcp_only: bool = False) -> Mitigation:
    """Cure every exposed rule; ``tcp_only``: see :func:`snat_race.rules.rewrite.cure`.

    ``save`` is called before anything is changed, again if a rule reads back in other words, and with
    None if nothing was changed after all.

    Raises:
        EnvironmentLacks: every tool refuses, or a lock is not to be had; nothing was changed.
        SnatRaceError: something went wrong on the way; what is changed by then can be reverted.

    """
    with loader.locked(namespace) as loading, StopSignals():
        return _again(lambda: _applied(loading, save, tcp_only=tcp_only))


def _applied(loading: Loader, save: Save, *, tcp_only: bool) -> Mitigation:
    before = reader.read(loading.namespace)
    wanted = _planned(before, tcp_only=tcp_only)
    rewrites, refusals = _loadable(loading, wanted.rewrites, before.generation)
    attempt = _Attempt(loading, before, rewrites, save)
    if rewrites:
        attempt.make()
    still_exposed: tuple[ExaminedRule, ...] = ()
    if tcp_only or not loading.alone:
        after = reader.read(loading.namespace)
        exposed = _to_cure(after, tcp_only=tcp_only)
        refused = _refused(wanted.rewrites, rewrites)
        still_exposed = tuple(
            after.examined(rule)
            for rule in exposed
            if not rule.unchangeable
            and (rule.chain, reader.strategy_of(rule.chain.tool).uncounted(rule.text)) not in refused
        )
    return replace(wanted, rewrites=tuple(rewrites), refusals=tuple(refusals), still_exposed=still_exposed)


class _Attempt:
    """To make rewrites, one tool after the other, and to put back what fails on the way."""

    def __init__(self, loading: Loader, before: HostRules, rewrites: Sequence[Rewrite], save: Save) -> None:
        self._loading = loading
        self._before = before
        self._rewrites = rewrites
        self._save = save
        self._changes = {rewrite.tool: undo.planned(rewrite) for rewrite in rewrites}

    def make(self) -> None:
        """Make them all."""
        saved = self._undo()
        self._save(saved)
        for rewrite in self._rewrites:
            try:
                self._changes[rewrite.tool] = self._loading.load(rewrite)
            except SnatRaceError as failed:
                self._give_up(failed, rewrite.tool)
        if (settled := self._undo()).changes != saved.changes:
            self._save(settled)

    def _give_up(self, failed: SnatRaceError, tool: ToolName) -> Never:
        """Put back what was half done with one tool, and say what is still changed."""
        try:
            half_done, _ = self._back(tool)
            for part in self._loading.tried([half_done] if half_done.edits else [])[0]:
                self._loading.load(part)
            changed = [tool for tool in self._changes if self._is_changed(tool)]
        except SnatRaceError as again:
            differences = _differences(self._loading, self._before, self._changes)
            raise _kind_of(failed)(
                f"{failed}; putting the rules back failed too ({again}); {differences}"
            ) from failed
        if not changed:
            self._save(None)
            if isinstance(failed, Interfered):
                raise failed
        touched = {change.address.key for name in changed for change in self._changes[name]}
        differences = _differences(self._loading, self._before, self._changes, touched)
        if changed:
            kept = f"the rules of {', '.join(changed)} are changed, and can be reverted"
            differences = f"{differences}; {kept}" if differences != _NOTHING else kept
        raise _kind_of(failed)(f"{failed}; {differences}") from failed

    def _back(self, tool: ToolName) -> tuple[Rewrite, list[Change]]:
        before = next(rewrite.ruleset for rewrite in self._rewrites if rewrite.tool == tool)
        return undo.back(reader.reread(self._loading.namespace, before), self._changes[tool])

    def _is_changed(self, tool: ToolName) -> bool:
        rewrite, lost = self._back(tool)
        return bool(rewrite.edits or lost)

    def _undo(self) -> Undo:
        return Undo(
            written_at=utc_now(),
            environment=host.environment(),
            netns=self._loading.namespace.inode,
            changes=[change for changes in self._changes.values() for change in changes],
            dumps={rewrite.tool: printable(rewrite.ruleset.text) for rewrite in self._rewrites},
        )


def _refused(wanted: Iterable[Rewrite], made: Iterable[Rewrite]) -> set[tuple[ChainAddress, str]]:
    """Return the rules that their tool does not change, by their chain and text."""
    done = {edit for rewrite in made for edit in rewrite.edits}
    return {
        (edit.chain, rewrite.ruleset.uncounted(edit.old))
        for rewrite in wanted
        for edit in rewrite.edits
        if edit not in done
    }


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
    with loader.locked(namespace) as loading, StopSignals():
        return _again(lambda: _reverted(loading, saved))


def _reverted(loading: Loader, saved: Undo) -> Mitigation:
    by_tool: dict[ToolName, list[Change]] = {}
    for change in saved.changes:
        by_tool.setdefault(change.tool, []).append(change)
    before = reader.read(loading.namespace)
    wanted = [_back(before, tool, changes) for tool, changes in by_tool.items()]
    rewrites, refusals = _loadable(
        loading, [rewrite for rewrite in wanted if rewrite.edits], before.generation
    )
    done: list[ToolName] = []
    for rewrite in rewrites:
        try:
            loading.load(rewrite)
        except SnatRaceError as failed:
            if isinstance(failed, Interfered) and not done:
                raise
            raise _kind_of(failed)(f"{failed}; {_differences(loading, before, by_tool)}") from failed
        done.append(rewrite.tool)
    return Mitigation(rewrites=tuple(rewrites), refusals=tuple(refusals))


def _again(work: Callable[[], Mitigation]) -> Mitigation:
    """Do something again if others have changed rules before anything was changed."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return work()
        except Interfered:
            continue
    return work()


def _loadable(
    loading: Loader, rewrites: Iterable[Rewrite], read_at: int | None
) -> tuple[list[Rewrite], list[str]]:
    """Return what the tools would load, and what they say to the rest.

    Raises:
        EnvironmentLacks: they refuse everything.

    """
    loadable, refusals = loading.tried(list(rewrites), read_at)
    if refusals and not loadable:
        raise EnvironmentLacks(f"{'; '.join(refusals)}; nothing was changed")
    return loadable, refusals


def _kind_of(failed: SnatRaceError) -> type[SnatRaceError]:
    """Return the class of an error that is not to be tried again."""
    return EnvironmentLacks if isinstance(failed, EnvironmentLacks) else SnatRaceError


def _differences(
    loading: Loader, before: HostRules, names: Iterable[ToolName], apart_from: Container[ChainKey] = ()
) -> str:
    """Return how the rules of these tools are other than before, in words."""
    gone: list[str] = []
    new: list[str] = []
    reordered: list[str] = []
    for tool in names:
        ruleset = before.ruleset_of(tool)
        if ruleset is None:  # then nothing of it was changed
            continue
        was = ruleset.texts
        try:
            now = reader.reread(loading.namespace, ruleset).texts
        except SnatRaceError as failed:
            return f"what the rules are now cannot be read ({failed}): look at them"
        for key in {**was, **now}:
            if key in apart_from:
                continue
            old_rules, rules = was.get(key, []), now.get(key, [])
            gone += (Counter(old_rules) - Counter(rules)).elements()
            new += (Counter(rules) - Counter(old_rules)).elements()
            if old_rules != rules and Counter(old_rules) == Counter(rules):
                reordered.append(f"the order of chain {' '.join(key)}")
    if not (gone or new or reordered):
        return _NOTHING
    lines = [*(f"-'{rule}'" for rule in gone), *(f"+'{rule}'" for rule in new), *reordered]
    more = f" and {len(lines) - _MOST_SHOWN} more" if len(lines) > _MOST_SHOWN else ""
    shown = printable(", ".join(lines[:_MOST_SHOWN]))
    return f"these rules differ now from before: {shown}{more}"


def _back(here: HostRules, tool: ToolName, changes: list[Change]) -> Rewrite:
    ruleset = here.ruleset_of(tool)
    if ruleset is None:
        raise EnvironmentLacks(f"there is no {tool} here that prints its rules; nothing was changed")
    if ruleset.broken:
        raise EnvironmentLacks(
            f"not every line that {tool} prints is one rule, so none is certain: "
            f"{printable(ruleset.broken[0])!r}; nothing was changed"
        )
    rewrite, lost = undo.back(ruleset, changes)
    snat_rules = {(rule.chain, rule.index) for rule in here.snat_rules if not rule.unchangeable}
    if strange := [edit for edit in rewrite.edits if (edit.chain, edit.index) not in snat_rules]:
        raise UsageError(
            f"{strange[0].chain}: '{printable(strange[0].old)}' is not a rule that apply changes"
        )
    if lost:
        change = lost[0]
        behind = f" in front of '{change.old}'" if change.added else ""
        raise UsageError(
            f"the file does not fit the rules that are here: {change.address} should have "
            f"{change.copies} rules '{change.new}'{behind}, and has not; nothing was changed. To revert "
            "the others, take this one out of the file's 'changes'"
        )
    return rewrite
