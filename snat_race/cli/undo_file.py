"""The file that an undo is kept in: written whole or not at all, and not believed when it is read."""

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from snat_race.cli.result_writer import json_text
from snat_race.errors import EnvironmentLacks, UsageError

if TYPE_CHECKING:
    from snat_race.results.findings import Undo

_LARGEST = 64 << 20  # bytes; an apply to 10,000 rules writes some 6 MB
_WITHOUT_NAMES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)  # of file systems that know no O_TMPFILE


class UndoFile:
    """The file that an apply keeps its undo in: made only when there is one, and by us.

    Raises:
        UsageError: there is a file already, unless it is an empty one of ours; or none can be made there.

    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.kept = False
        try:
            self._folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._require_none()
            os.close(self._written(b"", ""))
        except OSError as failed:
            raise UsageError(
                f"--dump: cannot write {path} ({failed.strerror}); choose another place"
            ) from failed

    def save(self, undo: "Undo | None") -> None:
        """Keep an undo in place of the one before; None if there is nothing to undo after all.

        Raises:
            EnvironmentLacks: it cannot be kept; the one before is still there.

        """
        name = self.path.name
        try:
            if undo is None:
                os.unlink(name, dir_fd=self._folder)
            elif self.kept:
                new = f".{name}.new"
                with suppress(FileNotFoundError):
                    os.unlink(new, dir_fd=self._folder)
                os.close(self._written(_bytes_of(undo), new))
                os.rename(new, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            else:
                os.close(self._written(_bytes_of(undo), name))
            os.fsync(self._folder)
        except FileExistsError:
            raise UsageError(f"--dump: {self.path} exists by now; name another file") from None
        except OSError as failed:
            raise EnvironmentLacks(f"--dump: cannot write {self.path}: {failed.strerror}") from failed
        self.kept = undo is not None

    def _written(self, text: bytes, name: str) -> int:
        """Write a file that only we can read, and give it a name when it is whole; "" is none.

        It is made without a name, so that nothing is left of it if we are killed; where the file system
        knows no such files, with another name. Return its descriptor.
        """
        flags = os.O_WRONLY | os.O_CLOEXEC
        spare = ""
        try:
            file = os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=self._folder)
        except OSError as refused:
            if refused.errno not in _WITHOUT_NAMES:
                raise
            spare = f".{self.path.name}.{secrets.token_hex(4)}"
            file = os.open(
                spare, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=self._folder
            )
        try:
            with os.fdopen(file, "wb", closefd=False) as stream:
                stream.write(text)
            os.fsync(file)
            if name:  # a link, unlike a new name, never replaces a file
                os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=self._folder, follow_symlinks=True)
        except OSError:
            os.close(file)
            raise
        finally:
            if spare:
                os.unlink(spare, dir_fd=self._folder)
        return file

    def _require_none(self) -> None:
        """Take an empty file of ours away, because it undoes nothing; refuse any other."""
        try:
            state = os.stat(self.path.name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(state.st_mode):
            raise UsageError(f"--dump: {self.path} is a directory; name a file in it")
        if not stat.S_ISREG(state.st_mode) or state.st_size or state.st_uid != os.geteuid():
            raise UsageError(
                f"--dump: {self.path} exists, and may be needed to undo something; name another file"
            )
        os.unlink(self.path.name, dir_fd=self._folder)


def read(path: Path) -> "Undo":
    """Read what an apply has kept, if nobody else can have written it.

    Raises:
        UsageError: the file cannot be read, is none of an apply, or others may write to it.

    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as stream:
            _require_ours(path, os.fstat(file))
            text = stream.read(_LARGEST + 1)
    except OSError as failed:
        why = "it is a link; name the file itself" if failed.errno == errno.ELOOP else failed.strerror
        raise UsageError(f"cannot read {path}: {why}") from failed
    return parsed(path, text)


def parsed(path: Path, text: bytes) -> "Undo":
    """Return what a file says.

    Raises:
        UsageError: it is none of an apply.

    """
    from pydantic import ValidationError

    from snat_race.results.findings import Undo

    if not text:
        raise UsageError(f"{path} is empty: the apply that was to write it has changed nothing")
    if len(text) > _LARGEST:
        raise UsageError(f"{path} is no file of 'mitigate --apply': it is larger than any")
    try:
        return Undo.model_validate_json(text)
    except ValidationError as failed:
        first = failed.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "JSON"
        raise UsageError(f"{path} is no file of 'mitigate --apply': {field}: {first['msg']}") from failed


def _require_ours(path: Path, state: os.stat_result) -> None:
    """Check that only we, or root, can have written a file.

    Raises:
        UsageError: others can.

    """
    if not stat.S_ISREG(state.st_mode):
        raise UsageError(f"{path} is no file")
    if state.st_uid not in (0, os.geteuid()):
        raise UsageError(
            f"{path} belongs to user {state.st_uid}, who may have changed what it undoes; look at it, then "
            f"'chown {os.geteuid()}' it"
        )
    if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(
            f"others may write to {path}, and may have changed what it undoes; look at it, "
            "then 'chmod go-w' it"
        )


def _bytes_of(undo: "Undo") -> bytes:
    return f"{json_text(undo)}\n".encode()
