"""Result files: checked before the run, written whole or not at all."""

import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snat_race.errors import EnvironmentLacks, UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

_PREFIX = ".snat_race-"
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


def require_writable(path: Path, option: str = "--output") -> None:
    """Check that a file can be put at ``path``, before a run that would be lost otherwise.

    Raises:
        UsageError: it cannot.

    """
    try:
        target = path.resolve()
        if target.is_dir():
            raise UsageError(f"{option}: {path} is a directory; name a file in it")
        if target.is_symlink():  # still: Python 3.13 resolves a loop of links to itself
            raise UsageError(f"{option}: {path} is a loop of links; name a file")
        if target.exists():
            with target.open("a"):
                pass
        if _replaceable(target):
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=_PREFIX)
            os.close(handle)
            Path(name).unlink()
    except (OSError, RuntimeError) as failed:  # resolve() raises RuntimeError for a loop of links
        why = getattr(failed, "strerror", None) or failed
        raise UsageError(f"{option}: cannot write {path} ({why}); choose another place") from failed


def require_other_than(path: Path, inputs: Iterable[Path], option: str = "--output") -> None:
    """Check that no input would be overwritten.

    Raises:
        UsageError: one would.

    """
    if path.resolve() in [path_of_input.resolve() for path_of_input in inputs]:
        raise UsageError(f"{option}: {path} is one of the results to read; name another file")


def write_atomically(path: Path, text: str, option: str = "--output") -> None:
    """Replace ``path`` by ``text``; a reader sees the old file or the new one, whole.

    A link is followed; a device or a pipe is written to, not replaced.

    Raises:
        EnvironmentLacks: disk full, say; the old file is untouched.

    """
    target, temporary = path.resolve(), None
    try:
        if not _replaceable(target):
            target.write_text(text, encoding="utf-8")
            return
        with tempfile.NamedTemporaryFile(
            "w", dir=target.parent, prefix=_PREFIX, delete=False, encoding="utf-8"
        ) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_mode(target))
        temporary.replace(target)
    except OSError as failed:
        if temporary:
            temporary.unlink(missing_ok=True)
        raise EnvironmentLacks(f"{option}: cannot write {path}: {failed.strerror}") from failed


def create_private(path: Path, option: str) -> None:
    """Make an empty file that nobody else can read, and none else has made: no link is followed.

    Raises:
        UsageError: there is one already.
        EnvironmentLacks: it cannot be made.

    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        raise UsageError(
            f"{option}: {path} exists, and may be needed to undo something; name another file"
        ) from None
    except OSError as failed:
        raise EnvironmentLacks(f"{option}: cannot write {path}: {failed.strerror}") from failed


def _replaceable(target: Path) -> bool:
    return target.is_file() or not target.exists()


def _mode(target: Path) -> int:
    """Return the permissions of the file to be replaced, or those a new file would get."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def json_text(model: "BaseModel") -> str:
    """Return a result as indented JSON, in ASCII, so that no locale can spoil it."""
    text = model.model_dump_json(indent=1)
    return _BEYOND_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text)


def require_output(output: Path | None, inputs: Sequence[Path]) -> None:
    """Check that what is made of results can be put at ``output``, if anywhere, and overwrites none.

    Raises:
        UsageError: it cannot, or would.

    """
    if output:
        require_other_than(output, inputs)
        require_writable(output)


def deliver(text: str, output: Path | None) -> None:
    """Write a text where the user wants it; to stdout, if nowhere."""
    if output:
        write_atomically(output, text + "\n")
    else:
        print(text)


def save(result: "BaseModel", output: Path | None) -> None:
    """Write a result where the user wants it, if anywhere."""
    if output:
        write_atomically(output, json_text(result) + "\n")
