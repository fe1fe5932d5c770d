"""``mitigate``: have the SNAT rules of a host draw their ports."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from snat_race.cli import parameters
from snat_race.cli.parsing import naming
from snat_race.cli.result_writer import create_private, require_writable, write_atomically
from snat_race.errors import EnvironmentLacks, UsageError

if TYPE_CHECKING:
    from snat_race.kernel.netns import Namespace
    from snat_race.results.findings import Undo
    from snat_race.runs.mitigate import Found

_IN_CONTAINER = ("/.dockerenv", "/run/.containerenv")  # Docker, Podman


def mitigate(
    netns: parameters.Netns = None,
    apply: parameters.Apply = False,
    dump: parameters.Dump = None,
    revert: parameters.Revert = None,
) -> None:
    """Show the SNAT rules with --random-fully added, as a diff; change nothing, unless told to."""
    from snat_race.kernel import netns_lookup
    from snat_race.runs import mitigate

    if revert and (apply or dump):
        raise UsageError("--revert: stands alone; drop --apply and --dump")
    if dump and not apply:
        raise UsageError("--dump: is written by --apply; add that")
    with naming("--netns"):
        namespace = netns_lookup.here() if netns is None else netns_lookup.find(netns)
    if revert:
        found = mitigate.revert(namespace, _read(revert))
        _show(found)
        _require_all(found, "reverted")
        done = (
            "reverted, and read back" if found.plans else "nothing to revert: all reads as before already"
        )
        print(f"# {revert}: {done}.")
    elif apply:
        if not dump and any(map(os.path.exists, _IN_CONTAINER)):
            raise UsageError(
                "--apply: this container would take the way back along; add --dump FILE on a mount"
            )
        path = dump or Path(time.strftime(f"snat_race-undo-%Y%m%dT%H%M%S-{os.getpid()}.json"))
        found = mitigate.apply(namespace, _Dump(path))
        undo = f"{{}} --revert {shlex.quote(str(path.absolute()))}"
        _report(found, namespace, f"# Applied, and read back. To undo: {undo}")
        _require_all(found, "changed")
    else:
        found = mitigate.look(namespace)
        _report(found, namespace, "# Nothing was changed. To do it: {} --apply")


class _Dump:
    """The file that an undo is kept in: made only when there is one, and by us."""

    def __init__(self, path: Path) -> None:
        self._path, self._made = path, False
        if path.exists():
            create_private(path, "--dump")  # refuses
        require_writable(path, "--dump")

    def __call__(self, undo: "Undo | None") -> None:
        if undo is None:
            self._path.unlink()
            return
        if not self._made:
            create_private(self._path, "--dump")
            self._made = True
        write_atomically(self._path, undo.model_dump_json(indent=1) + "\n", "--dump")


def _report(found: "Found", namespace: "Namespace", then: str) -> None:
    """Print the diff, so that it is one still, and what to know about it as comments.

    Raises:
        EnvironmentLacks: nothing can be changed, and not because nothing is exposed.

    """
    from snat_race.kernel import netns_lookup
    from snat_race.report.wording.findings import of_container
    from snat_race.runs.program import as_root, command

    where = [] if namespace.name == netns_lookup.HERE else ["--netns", namespace.name]
    if found.unreadable and not found.plans:
        hint = f"; {as_root('mitigate', *where)}" if os.geteuid() else ""
        raise EnvironmentLacks(f"the rules cannot be read ({'; '.join(found.unreadable)}){hint}")
    _show(found)
    if found.plans:
        for each in found.writers:
            print(f"# {each}.")
        print(then.format(command("mitigate", *where)))
    elif not found.fixed:
        print("# No SNAT rule here is exposed: there is nothing to change.")
        if device := netns_lookup.container_device(namespace):
            hint = of_container(namespace.name, device)
            print(f"warning: {hint}; the rules that translate it are the host's", file=sys.stderr)


def _show(found: "Found") -> None:
    for plan in found.plans:
        print(plan.diff)
    for each in found.unreadable:
        print(f"warning: not looked into: {each}", file=sys.stderr)
    for each in (*found.fixed, *found.refused):
        print(f"warning: not changed: {each}", file=sys.stderr)


def _require_all(found: "Found", done: str) -> None:
    if found.fixed or found.refused or found.unreadable:
        raise EnvironmentLacks(f"not everything could be {done}; see the warnings")


def _read(path: Path) -> "Undo":
    from pydantic import ValidationError

    from snat_race.results.findings import Undo

    try:
        return Undo.model_validate_json(path.read_bytes())
    except OSError as failed:
        raise UsageError(f"--revert: cannot read {path}: {failed.strerror}") from failed
    except ValidationError as failed:
        raise UsageError(f"--revert: {path} is no file of 'mitigate --apply'") from failed
