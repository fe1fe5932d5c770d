"""``mitigate``: have the SNAT rules of a host draw their ports."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from snat_race.cli import help_text, parameters, parsing, undo_file
from snat_race.cli.parsing import naming
from snat_race.cli.program import ends_with_container, in_container, keep_all_objects, this_program
from snat_race.cli.terminal import say, warn
from snat_race.cli.undo_file import UndoFile
from snat_race.errors import EnvironmentLacks, SnatRaceError, UsageError

if TYPE_CHECKING:
    from snat_race.kernel.netns import Namespace
    from snat_race.runs.mitigate import Mitigation

EXAMPLES = help_text.examples(
    ("Show what would change", "sudo $(which snat-race) mitigate"),
    ("Change it, and keep what undoes that", "sudo $(which snat-race) mitigate --apply --dump undo.json"),
    ("Put it back", "sudo $(which snat-race) mitigate --revert undo.json"),
)


def mitigate(
    netns: parameters.Netns = None,
    apply: parameters.Apply = False,
    tcp_only: parameters.TcpOnly = False,
    dump: parameters.Dump = None,
    revert: parameters.Revert = None,
    quiet: parameters.QuietVerdict = False,
) -> None:
    """Show the SNAT rules with --random-fully added, as a diff; change nothing, unless told to."""
    if revert and (apply or dump or tcp_only):
        raise UsageError("--revert: stands alone; drop --apply, --dump and --tcp-only")
    if dump and not apply:
        raise UsageError("--dump: is written by --apply; add that")
    keep_all_objects()
    namespace = parsing.namespace(netns)
    if revert:
        _revert(namespace, revert, quiet=quiet)
    elif apply:
        _apply(namespace, dump, tcp_only=tcp_only, quiet=quiet)
    else:
        _show(namespace, tcp_only=tcp_only, quiet=quiet)


def _show(namespace: "Namespace", *, tcp_only: bool, quiet: bool) -> None:
    from snat_race.report.wording.owners import PUNCHING_HOLES, is_of_router
    from snat_race.runs import mitigate

    options = _namespace_option(namespace)
    command = this_program().mitigation(*options, *(["--tcp-only"] if tcp_only else []))
    then = f"# Nothing was changed. To do it: {command}"
    mitigation = mitigate.look(namespace, tcp_only=tcp_only)
    if mitigation.mixed and not tcp_only:
        likely = ", which are likely here" if any(map(is_of_router, mitigation.owners)) else ""
        instead = this_program().mitigation(*options, "--tcp-only")
        then += f"\n# UDP keeps its ports, for {PUNCHING_HOLES}{likely}, with: {instead}"
    _print_report(mitigation, namespace, then, quiet=quiet)
    _require_complete(mitigation, "changed", can="can")


def _apply(namespace: "Namespace", dump: Path | None, *, tcp_only: bool, quiet: bool) -> None:
    from snat_race.runs import mitigate

    undo = UndoFile(_path_of_undo(dump))
    command = f"{_this_command(namespace)} --revert {shlex.quote(str(undo.path))}"
    try:
        mitigation = mitigate.apply(namespace, undo.save, tcp_only=tcp_only)
    except SnatRaceError as failed:
        if not undo.kept:
            raise
        raise type(failed)(f"{failed}: {command}") from failed
    done = "Applied, and read back." if mitigation.complete else "Applied where it could be, and read back."
    _print_report(mitigation, namespace, f"# {done} To undo: {command}", quiet=quiet)
    _require_complete(mitigation, "changed")


def _path_of_undo(dump: Path | None) -> Path:
    """Return where the undo is kept: not among the files of a container's own, which end with it.

    Raises:
        UsageError: it would be there.

    """
    if dump and ends_with_container(dump):
        raise UsageError(f"--dump: {dump} would end with this container; name a file on a mount")
    if not dump and in_container():
        raise UsageError("--apply: the undo file would end with this container; add --dump FILE on a mount")
    return dump or Path(time.strftime(f"snat_race-undo-%Y%m%dT%H%M%S-{os.getpid()}.json"))


def _revert(namespace: "Namespace", path: Path, *, quiet: bool) -> None:
    from snat_race.runs import mitigate

    with naming("--revert"):
        mitigation = mitigate.revert(namespace, undo_file.read(path))
    _print_diffs(mitigation, quiet=quiet)
    _require_complete(mitigation, "reverted")
    done = "reverted, and read back"
    if not mitigation.rewrites:
        done = "nothing to revert: all reads as before already, or is not there any more"
    say(f"# {path}: {done}.", sys.stdout)


def _this_command(namespace: "Namespace") -> str:
    return this_program().command("mitigate", *_namespace_option(namespace))


def _namespace_option(namespace: "Namespace") -> list[str]:
    from snat_race.kernel import netns_lookup

    return [] if namespace.name == netns_lookup.HERE else ["--netns", namespace.name]


def _print_report(mitigation: "Mitigation", namespace: "Namespace", then: str, *, quiet: bool) -> None:
    """Print the diff, so that it is one still, and what to know about it as comments.

    Raises:
        EnvironmentLacks: nothing can be changed, and not because nothing is exposed.

    """
    from snat_race.kernel import netns_lookup
    from snat_race.report.wording.findings import of_container
    from snat_race.report.wording.owners import writes_again
    from snat_race.report.wording.snat_rules import why_unreadable

    if mitigation.unreadable and not mitigation.rewrites:
        reasons = "; ".join(map(why_unreadable, mitigation.unreadable))
        hint = ""
        if os.geteuid():
            hint = f"; {this_program().try_as_root('mitigate', *_namespace_option(namespace))}"
        raise EnvironmentLacks(f"the rules cannot be read ({reasons}){hint}")
    _print_diffs(mitigation, quiet=quiet)
    if mitigation.rewrites:
        for owner in () if quiet else mitigation.owners:
            print(f"# {writes_again(owner)}.")
        say(then, sys.stdout)
    elif mitigation.without_tcp and not mitigation.unchangeable:
        print("# No TCP comes to the rules that are exposed: there is nothing to change for TCP alone.")
    elif not mitigation.unchangeable:
        print("# No SNAT rule here is exposed: there is nothing to change.")
        if device := netns_lookup.container_device(namespace):
            hint = of_container(namespace.name, device)
            warn(f"{hint}; the rules that translate it are the host's")


def _print_diffs(mitigation: "Mitigation", *, quiet: bool) -> None:
    from snat_race.report.wording.snat_rules import of_unread_sets, unchanged, why_unreadable

    for rewrite in () if quiet else mitigation.rewrites:
        say(rewrite.diff, sys.stdout)
    for unreadable in mitigation.unreadable:
        warn(f"not looked into: {why_unreadable(unreadable)}")
    if sets := ", ".join(mitigation.unread_sets):
        warn(f"ipsets: {of_unread_sets(sets, mitigation.ipsets_failure)}")
    for rule in mitigation.still_exposed:
        warn(f"still exposed, or written by another program meanwhile: {rule.address}: {rule.text}")
    for left in (*map(unchanged, mitigation.unchangeable), *mitigation.refusals):
        warn(f"not changed: {left}")


def _require_complete(mitigation: "Mitigation", done: str, *, can: str = "could") -> None:
    if not mitigation.complete:
        raise EnvironmentLacks(f"not everything {can} be {done}; see the warnings")
