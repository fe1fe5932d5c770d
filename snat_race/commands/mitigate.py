"""``mitigate``: have the SNAT rules of a host draw their ports."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from snat_race.commands import arguments
from snat_race.errors import EnvironmentLacks, UsageError
from snat_race.output import require_writable, write_atomically

if TYPE_CHECKING:
    from snat_race.analysis.findings import Undo
    from snat_race.mitigate import Found, Plan


def mitigate(
    netns: arguments.Netns = None,
    apply: arguments.Apply = False,
    dump: arguments.Dump = None,
    revert: arguments.Revert = None,
) -> None:
    """Show the SNAT rules with --random-fully added, as a diff; change nothing, unless told to."""
    from snat_race import mitigate
    from snat_race.kernel import places

    if revert and (apply or dump):
        raise UsageError("--revert: stands alone; drop --apply and --dump")
    if dump and not apply:
        raise UsageError("--dump: is written by --apply; add that")
    namespace = places.find(netns, "--netns") if netns is not None else places.here()
    if revert:
        _show(mitigate.revert(namespace, _read(revert)))
        print(f"# {revert}: reverted, and read back.")
        return
    path = dump or Path(time.strftime(f"snat_race-undo-%Y%m%dT%H%M%S-{os.getpid()}.json"))
    if apply:
        if path.exists():
            raise UsageError(
                f"--dump: {path} exists, and may be needed to undo something; name another file"
            )
        require_writable(path, "--dump")
    found = mitigate.apply(namespace, lambda undo: _save(path, undo)) if apply else mitigate.look(namespace)
    _report(found, path if apply else None, netns)


def _report(found: "Found", applied: Path | None, netns: str | None) -> None:
    """Print the diff, so that it is one still, and what to know about it as comments."""
    for each in found.unreadable:
        print(f"warning: not looked into: {each}", file=sys.stderr)
    if not found.plans:
        if found.unreadable:
            raise EnvironmentLacks(
                "found nothing to change, but not everything could be read; try "
                f"'sudo {sys.executable} -m snat_race mitigate'"
            )
        print("# No SNAT rule here is exposed: there is nothing to change.")
        return
    _show(found.plans)
    for each in found.writers:
        print(f"# {each}.")
    where = f" --netns {netns}" if netns else ""
    if applied:
        print(f"# Applied, and read back. To undo: python -m snat_race mitigate{where} --revert {applied}")
    else:
        print(f"# Nothing was changed. To do it: python -m snat_race mitigate{where} --apply")


def _show(plans: "tuple[Plan, ...] | list[Plan]") -> None:
    for plan in plans:
        print(plan.diff)


def _save(path: Path, undo: "Undo") -> None:
    path.touch(mode=0o600)  # the rules of a host are not everybody's to read
    write_atomically(path, undo.model_dump_json(indent=1) + "\n")


def _read(path: Path) -> "Undo":
    from pydantic import ValidationError

    from snat_race.analysis.findings import Undo

    try:
        return Undo.model_validate_json(path.read_bytes())
    except OSError as failed:
        raise UsageError(f"--revert: cannot read {path}: {failed.strerror}") from failed
    except ValidationError as failed:
        raise UsageError(f"--revert: {path} is no file of 'snat_race mitigate --apply'") from failed
