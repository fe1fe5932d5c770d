"""Result files: checked before the run, written whole or not at all."""

import os
import tempfile
from pathlib import Path

from snat_race.errors import EnvironmentLacks, UsageError


def require_writable(path: Path, option: str = "--output") -> None:
    """Check that a file can be put at ``path``, before a run that would be lost otherwise.

    Raises:
        UsageError: it cannot.

    """
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a directory; name a file in it")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as failed:
        raise UsageError(
            f"{option}: cannot write {path} ({failed.strerror}); choose another place"
        ) from failed
    os.close(handle)
    Path(name).unlink()


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``; a reader sees the old file or the new one, whole.

    Raises:
        EnvironmentLacks: disk full, say; the old file is untouched.

    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
        ) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as failed:
        if temporary:
            temporary.unlink(missing_ok=True)
        raise EnvironmentLacks(f"--output: cannot write {path}: {failed.strerror}") from failed
