"""Result files: checked before the run, written whole or not at all."""

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snat_race.cli import output_path
from snat_race.cli.output_path import OutputPath
from snat_race.errors import EnvironmentLacks, UsageError
from snat_race.runs import signals
from snat_race.runs.signals import StopSignals

if TYPE_CHECKING:
    from pydantic import BaseModel

_PREFIX = ".snat_race-"
_READER_WITHIN_S = 5.0  # somebody has to open a pipe that is to be written to
_READER_POLL_S = 0.02
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


def require_writable(path: Path, option: str = "--output") -> None:
    """Check that a file can be put at ``path``, before a run that would be lost otherwise.

    Raises:
        UsageError: it cannot.

    """
    try:
        with output_path.located(path) as target:
            _require_writable(target)
    except OSError as failed:
        raise UsageError(
            f"{option}: cannot write {path} ({failed.strerror}); choose another place"
        ) from failed


def _require_writable(target: OutputPath) -> None:
    if target.descriptor is not None:
        return
    if target.status:
        if stat.S_ISDIR(target.status.st_mode) or stat.S_ISBLK(target.status.st_mode):
            raise OSError(None, "it is a folder or a disk, no file")
        _require_access(target, target.name, os.W_OK)
    if target.replaceable:
        _require_access(target, ".", os.W_OK | os.X_OK)
        _require_replaceable_by_us(target)
        if len(os.fsencode(target.name)) > os.fstatvfs(target.folder).f_namemax:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _require_access(target: OutputPath, name: str, mode: int) -> None:
    if not os.access(name, mode, dir_fd=target.folder, effective_ids=True):
        raise OSError(None, "it may not be written")


def _require_replaceable_by_us(target: OutputPath) -> None:
    """Check that we may take a file's place: in /tmp, not of another user's; see unlink(2), EPERM."""
    folder, us = os.fstat(target.folder), os.geteuid()
    is_sticky = folder.st_mode & stat.S_ISVTX
    if target.status and is_sticky and us not in (0, target.status.st_uid, folder.st_uid):
        raise OSError(None, "it is another user's, and nobody else may replace it in this folder")


def require_other_than(path: Path, inputs: Iterable[Path], option: str = "--output") -> None:
    """Check that no input would be overwritten.

    Raises:
        UsageError: one would.

    """
    if path.resolve() in [path_of_input.resolve() for path_of_input in inputs]:
        raise UsageError(f"{option}: {path} is one of the results to read; name another file")


def write_atomically(path: Path, text: str, option: str = "--output") -> None:
    """Replace ``path`` by ``text``; a reader sees the old file or the new one, whole.

    A link is followed, unless it may be a trap: see :mod:`output_path`. A device or a pipe is written to,
    not replaced. From here on a signal does not end the process before all is written.

    Raises:
        EnvironmentLacks: disk full, say; the old file is untouched.

    """
    data = text.encode()
    try:
        with StopSignals(), output_path.located(path) as target:
            if target.replaceable:
                _replace(target, data)
            else:
                _write_through(target, data)
    except OSError as failed:
        raise EnvironmentLacks(f"{option}: cannot write {path}: {failed.strerror}") from failed


def _replace(target: OutputPath, data: bytes) -> None:
    """Write a new file and give it the name of the old. Only in between has it a name of its own."""
    mode = None
    if target.status and target.status.st_uid == os.geteuid():  # what another user chose does not count
        mode = stat.S_IMODE(target.status.st_mode)
    temporary = f"{_PREFIX}{secrets.token_hex(8)}"
    descriptor, named = _new_file(target.folder, temporary, 0o666 if mode is None else mode)
    try:
        _write_all(descriptor, data)
        if mode is not None:  # those of a new file are up to the umask
            os.fchmod(descriptor, mode)
        os.fsync(descriptor)
        if not named:
            os.link(f"/proc/self/fd/{descriptor}", temporary, dst_dir_fd=target.folder)
            named = True
        os.replace(temporary, target.name, src_dir_fd=target.folder, dst_dir_fd=target.folder)
        named = False
    finally:
        os.close(descriptor)
        if named:
            os.unlink(temporary, dir_fd=target.folder)


def _new_file(folder: int, name: str, mode: int) -> tuple[int, bool]:
    """Return a new file's descriptor, and whether it has a name already.

    A file without a name is gone with us, even after kill -9. NFS, for one, has none: open(2), O_TMPFILE.
    """
    with contextlib.suppress(OSError):  # where nothing can be written, the second way says so too
        return os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=folder), False
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, mode, dir_fd=folder), True


def _write_through(target: OutputPath, data: bytes) -> None:
    descriptor = _opened(target)
    try:
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _opened(target: OutputPath) -> int:
    """Open a device or a pipe; wait a while for somebody who reads it."""
    if target.descriptor is not None:
        sys.stdout.flush()  # it may be that
        return os.dup(target.descriptor)
    deadline_s = time.monotonic() + _READER_WITHIN_S
    while True:
        try:  # without O_NONBLOCK, it would wait for ever: fifo(7)
            flags = os.O_WRONLY | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(target.name, flags, dir_fd=target.folder)
        except OSError as failed:
            if failed.errno != errno.ENXIO:
                raise
            if time.monotonic() > deadline_s:
                raise OSError(failed.errno, f"nobody read it within {_READER_WITHIN_S:.0f} s") from failed
            time.sleep(_READER_POLL_S)
        else:
            if target.status and not os.path.samestat(os.fstat(descriptor), target.status):
                os.close(descriptor)  # somebody has put another file there, which may be one of ours
                raise OSError(None, "it was exchanged meanwhile")
            os.set_blocking(descriptor, True)
            return descriptor


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[signals.write(descriptor, left) :]


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
    """Write a result where the user wants it, if anywhere; if it cannot be there, somewhere else.

    Raises:
        EnvironmentLacks: it is somewhere else, or nowhere; the message says which.

    """
    if not output:
        return
    text = json_text(result) + "\n"
    try:
        write_atomically(output, text)
    except EnvironmentLacks as failed:
        raise EnvironmentLacks(f"{failed}; {_saved_elsewhere(text)}") from failed


def _saved_elsewhere(text: str) -> str:
    """Write a result into a new file in TMPDIR, and say so."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="snat_race-result-", suffix=".json")
    except OSError as failed:
        return f"nor is there a folder for temporary files ({failed.strerror}); the result is lost"
    try:
        _write_all(descriptor, text.encode())
    except OSError as failed:
        Path(name).unlink()
        return f"nor can {name} be written ({failed.strerror}); the result is lost"
    finally:
        os.close(descriptor)
    return f"the result is in {name}"
