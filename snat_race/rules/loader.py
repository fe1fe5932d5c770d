"""Has a rewrite made in the way of its tool: see ``ruleset.Way``."""

import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from snat_race.errors import EnvironmentLacks, SnatRaceError
from snat_race.kernel import nftables, tools
from snat_race.kernel.netns import Namespace
from snat_race.kernel.nftables import GenerationPassed, RuleChange
from snat_race.kernel.tools import printable
from snat_race.results.findings import ChainAddress, Change
from snat_race.rules import reader, undo
from snat_race.rules.kernel_list import by_chain
from snat_race.rules.rewrite import Rewrite
from snat_race.rules.ruleset import Edit, Ruleset, Way

_LOCK_WAIT_S = 1  # for a lock of our own, which nobody else takes
_REAL_LOCK_WAIT_S = 10
_KEEP_TRYING_S = 5.0  # while others change other rules
_MOST_TRIALS = 200  # of parts of a rewrite, to find those that a tool refuses


class Interfered(SnatRaceError):
    """Another program has changed the rules since they were read; nothing was changed by us."""


class ReadsOtherwise(SnatRaceError):
    """What is there is not what was meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchange:
    """A rewrite of the rules of one generation, and how netlink makes it."""

    made: Rewrite
    made_for: int  # the generation
    rule_changes: list[RuleChange]  # of the edits that netlink can make, in order


class Loader:
    """Makes rewrites in a namespace; ``lock`` is the lock of xtables, if that is held."""

    def __init__(self, namespace: Namespace, lock: tools.Lock | None) -> None:
        self.namespace = namespace
        self.lock = lock
        self._generation = self._generation_now()
        self._transactions = 0  # of nftables, made here
        self._by_script: set[tuple[ChainAddress, int]] = set()  # chain and handle of what netlink refuses
        self._tried: dict[tuple[Edit, ...], _Exchange] = {}

    @property
    def alone(self) -> bool:
        """Whether certainly nobody else has changed rules since this began."""
        if _legacy_is_here() and not (self.lock and self.lock.was_kept):
            return False
        before, now = self._generation, self._generation_now()
        return before is not None and now is not None and now == before + self._transactions

    def _generation_now(self) -> int | None:
        """Return None if the kernel has no nftables, or does not say."""
        try:
            return nftables.generation(self.namespace)
        except EnvironmentLacks:
            return None

    def tried(
        self, rewrites: Iterable[Rewrite], read_at: int | None = None
    ) -> tuple[list[Rewrite], list[str]]:
        """Return what could be made of the rewrites, and what is said to the rest; nothing is changed.

        ``read_at``: the generation of nftables that they are of; None if that is not known.
        """
        loadable = []
        refusals = []
        for rewrite in rewrites:
            try:
                if rewrite.ruleset.way is Way.by_number:
                    edits, refused = self._tried_by_number(rewrite)
                else:
                    edits, refused = self._tried_by_netlink(rewrite, read_at)
            except EnvironmentLacks as failed:
                edits, refused = [], [f"the rules of {rewrite.tool}: {failed}"]
            refusals += refused
            if edits:
                loadable.append(rewrite.of(edits))
        return loadable, refusals

    def load(self, rewrite: Rewrite) -> list[Change]:
        """Make a rewrite that was tried, and read back; return what undoes it.

        Raises:
            EnvironmentLacks: it is refused, or the tool does not end.
            Interfered: the rules that it replaces are not there any more as they were.
            SnatRaceError: what is there then is not what was meant.

        """
        if rewrite.ruleset.way is Way.by_number:
            made = self._onto_now(rewrite)
            self._run(made.ruleset, made.script, trial=False)
            try:
                return self._read_back(made)
            except ReadsOtherwise:
                self._remove_strays(made)
                raise
        exchange, refused = self._exchanged(rewrite, self._tried.pop(rewrite.edits, None), trial=False)
        if refused:
            raise EnvironmentLacks(f"the kernel refused the new rules: {'; '.join(refused.values())}")
        self._transactions += bool(exchange.rule_changes)
        scripted = exchange.made.of(
            edit for edit in exchange.made.edits if self._is_scripted(exchange, edit)
        )
        if scripted.edits:
            self._run(scripted.ruleset, scripted.script, trial=False)
            self._transactions += 1
        try:
            return self._read_back(exchange.made)
        except ReadsOtherwise:
            if scripted.edits or nftables.generation(self.namespace) == exchange.made_for + 1:
                self._remove_strays(exchange.made)
                raise
            # The kernel has made exactly what was meant. What others do since then is theirs.
            return undo.planned(exchange.made)

    def _read_back(self, made: Rewrite) -> list[Change]:
        after = reader.reread(self.namespace, made.ruleset)
        edits = made.ruleset.settled(made.edits, after)
        if edits is None:
            raise ReadsOtherwise(
                f"the new rules of {made.tool} read back otherwise than they were meant, or another "
                "program changes them at the same time"
            )
        return undo.settled(Rewrite(after, tuple(edits)))

    def _remove_strays(self, made: Rewrite) -> None:
        """Remove what was added and reads otherwise: no undo would find it by its words."""
        after = reader.reread(self.namespace, made.ruleset)
        removal = Rewrite(after, tuple(made.ruleset.strays(made.edits, after)))
        if removal.edits and after.way is Way.by_number:
            self._run(after, removal.script, trial=False)
        elif removal.edits:
            self._exchanged(removal, None, trial=False)
            self._transactions += 1

    def _onto_now(self, rewrite: Rewrite) -> Rewrite:
        made = rewrite.onto(reader.reread(self.namespace, rewrite.ruleset))
        if made is None or made.ruleset.broken or undo.marks(made) != undo.marks(rewrite):
            raise Interfered(
                f"another program changes the rules of {rewrite.tool} at the same time: try again"
            )
        return made

    # by netlink

    def _tried_by_netlink(self, rewrite: Rewrite, read_at: int | None) -> tuple[list[Edit], list[str]]:
        """Return the edits that could be made, and what is said to the others."""
        exchange, refused = self._exchanged(rewrite, None, read_at=read_at, trial=True)
        if refused and rewrite.ruleset.way is Way.by_netlink_or_handle:
            # All of them by the tool, then: two transactions could be cut apart.
            edits, refusals = self._tried_by_script(rewrite)
            self._by_script |= {_mark(rewrite, edit) for edit in edits}
            return edits, refusals
        kept = [index for index in range(len(rewrite.edits)) if index not in refused]
        edits = [rewrite.edits[index] for index in kept]
        self._tried[tuple(edits)] = _Exchange(
            made=exchange.made.of(exchange.made.edits[index] for index in kept),
            made_for=exchange.made_for,
            rule_changes=[exchange.rule_changes[index] for index in kept],
        )
        return edits, [_refusal_of(rewrite.edits[index], said) for index, said in refused.items()]

    def _exchanged(
        self, rewrite: Rewrite, ready: _Exchange | None, *, read_at: int | None = None, trial: bool
    ) -> tuple[_Exchange, dict[int, str]]:
        """Have the kernel replace rules, if they are those that were read; or only try it.

        ``ready``: what was tried before. Return also what the kernel says to edits that it refuses, by
        their index; if there are any, nothing is changed.
        """
        deadline = time.monotonic() + _KEEP_TRYING_S
        while True:
            try:
                exchange = ready or self._exchange_of(rewrite, read_at)
                if not exchange.rule_changes:
                    return exchange, {}
                return exchange, nftables.change(
                    self.namespace, exchange.made_for, exchange.rule_changes, trial=trial
                )
            except GenerationPassed:
                ready = None
                if time.monotonic() > deadline:
                    raise Interfered("other programs keep changing rules: try again") from None

    def _exchange_of(self, rewrite: Rewrite, read_at: int | None) -> _Exchange:
        made_for = nftables.generation(self.namespace)
        made = rewrite if read_at == made_for else self._onto_now(rewrite)
        tables = dict.fromkeys(edit.chain.key[:2] for edit in made.edits)
        present = by_chain(rule for table in tables for rule in nftables.rules(self.namespace, *table))
        if nftables.generation(self.namespace) != made_for:  # text and netlink are of different rules
            raise GenerationPassed
        direct = [edit for edit in made.edits if _mark(made, edit) not in self._by_script]
        return _Exchange(
            made=made, made_for=made_for, rule_changes=made.ruleset.rule_changes(direct, present)
        )

    def _is_scripted(self, exchange: _Exchange, edit: Edit) -> bool:
        return _mark(exchange.made, edit) in self._by_script

    # by a tool and its script

    def _tried_by_number(self, rewrite: Rewrite) -> tuple[list[Edit], list[str]]:
        if self.lock is None:
            raise EnvironmentLacks(tools.NO_LOCK)
        return self._tried_by_script(rewrite)

    def _tried_by_script(self, rewrite: Rewrite) -> tuple[list[Edit], list[str]]:
        """Return the edits that a tool would load, and what it says to the others, found by halving."""
        loadable: list[Edit] = []
        refused: list[str] = []
        waiting = [rewrite.edits]
        trials = 0
        while waiting:
            edits = waiting.pop()
            trials += 1
            said = self._refusal(rewrite.of(edits)) if trials <= _MOST_TRIALS else "too many are refused"
            if not said:
                loadable += edits
            elif len(edits) == 1 or trials > _MOST_TRIALS:
                refused += [_refusal_of(edit, said) for edit in edits]
            else:
                middle = len(edits) // 2
                waiting += [edits[middle:], edits[:middle]]
        if refused and loadable and (said := self._refusal(rewrite.of(loadable))):
            raise EnvironmentLacks(said)
        return loadable, refused

    def _refusal(self, rewrite: Rewrite) -> str:
        """Return what a tool says to a rewrite that it would not load; "" if it would."""
        try:
            self._run(rewrite.ruleset, rewrite.ruleset.trial(rewrite.edits), trial=True)
        except EnvironmentLacks as refusal:
            return str(refusal)
        return ""

    def _run(self, ruleset: Ruleset, script: str, *, trial: bool) -> None:
        """Have a ruleset's tool load a script in one transaction, or only try it."""
        command = ruleset.load_command(ruleset.tool, trial=trial, wait_s=_LOCK_WAIT_S)
        # The real lock is ours already, so the tool would wait for us. It locks a file of memory instead.
        with tools.spare_lock() as spare:
            ended = self._ended(command, script, spare)
        if ended.returncode and self.lock and "xtables lock" in tools.said(ended):
            # Before 1.8.5, iptables does not know XTABLES_LOCKFILE: it has to take the real lock itself.
            patient = ruleset.load_command(ruleset.tool, trial=trial, wait_s=_REAL_LOCK_WAIT_S)
            with self.lock.released():
                ended = self._ended(patient, script, None)
        if ended.returncode:
            raise EnvironmentLacks(f"{command[0]} refused the new rules: {tools.said(ended)}")

    def _ended(self, command: list[str], script: str, lock: str | None) -> tools.Finished:
        try:
            return tools.run(self.namespace, command, script, lock=lock)
        except subprocess.TimeoutExpired:
            raise EnvironmentLacks(f"{command[0]} did not end within {tools.SLOWEST_S:.0f} s") from None


def _mark(rewrite: Rewrite, edit: Edit) -> tuple[ChainAddress, int]:
    return edit.chain, rewrite.ruleset.rules_of(edit.chain)[edit.index].handle


def _refusal_of(edit: Edit, said: str) -> str:
    return f"{printable(edit.old)}: {said}"


@contextmanager
def locked(namespace: Namespace) -> Iterator[Loader]:
    """Return what makes rewrites in a namespace, while no other process of ours does, and no legacy
    iptables.

    Raises:
        EnvironmentLacks: another process keeps a lock.

    """
    with namespace.locked():
        if _legacy_is_here():
            with tools.xtables_lock() as lock:
                yield Loader(namespace, lock)
        else:
            yield Loader(namespace, None)


def _legacy_is_here() -> bool:
    """Whether there is an iptables that may be legacy."""
    return not all(tool.endswith("-nft") for tool in reader.iptables_tools())
