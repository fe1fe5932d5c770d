"""Prints documents and warnings, on streams that lose nothing and end no run in its middle."""

import errno
import io
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from snat_race.cli.program import this_program
from snat_race.report.terminal import printable, printable_lines
from snat_race.runs import signals

_LONG_WORD = re.compile(r"\S{1000,}")
_SHOWN = 200  # characters of such a word

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from snat_race.report.document import Document


class StandardStream(io.RawIOBase):
    """Standard output or standard error, as what Python's buffers write to.

    From the first write that fails on, what is written goes nowhere. So nobody who prints has to expect
    an error, and a result that is still to be saved is.

    Args:
        descriptor: of the stream.
        on_loss: is called when a write has failed, once.

    Attributes:
        failure: the error of that write; None as long as there is none.

    """

    def __init__(self, descriptor: int, on_loss: Callable[[], None]) -> None:
        super().__init__()
        self.failure: OSError | None = None
        self._descriptor = descriptor
        self._on_loss = on_loss
        self._is_terminal = os.isatty(descriptor)

    def writable(self) -> bool:
        """Return True, as Python's buffers want it."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is, or was, a terminal."""
        return self._is_terminal

    def write(self, data: "ReadableBuffer") -> int:
        """Write some of ``data``; return how many bytes."""
        if self.failure is None:
            try:
                return signals.write(self._descriptor, memoryview(data))
            except OSError as failed:
                self.failure = failed
                self._on_loss()
        return memoryview(data).nbytes

    @property
    def reader_left(self) -> bool:
        """Whether it failed because nobody is there: head has had enough, say, or a terminal was closed."""
        number = self.failure and self.failure.errno
        return number in (errno.EPIPE, errno.ETIMEDOUT) or (self._is_terminal and number == errno.EIO)


def make_streams_robust(on_loss: Callable[[], None]) -> StandardStream:
    """Make stdout and stderr lose nothing, whatever the locale and whoever closed them; return stdout.

    ``on_loss`` is called when stdout, though nobody closed it, cannot be written any more.
    """
    sys.stdout = _robust(sys.stdout, 1, on_loss)
    sys.stderr = _robust(sys.stderr, 2, lambda: None)
    raw: StandardStream = sys.stdout.buffer.raw  # type: ignore[attr-defined]
    return raw


def _robust(stream: TextIO | None, number: int, on_loss: Callable[[], None]) -> TextIO:
    """Return a stream that loses nothing.

    One that the shell closed (>&-) is None; then /dev/null has its number. A character that the locale
    lacks is written as its escape. Python's own stream would not do: with PYTHONUNBUFFERED, as many
    images have it, it writes without a buffer, and forgets the rest of a write that a signal cut short.
    """
    raw = StandardStream(stream.fileno() if stream else number, on_loss)
    encoding = stream.encoding if stream else "utf-8"
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding=encoding, errors="backslashreplace", line_buffering=True)


def print_document(
    document: "Document", stream: TextIO, *, details: bool = False, quiet: bool = False
) -> None:
    """Print a document as text that suits ``stream``.

    ``details``: with all that is known. ``quiet``: nothing but the verdict.
    """
    from snat_race.report.renderers.text import text, verdict_line
    from snat_race.report.terminal import terminal_of

    terminal = terminal_of(stream)
    document = this_program().addressed(document)
    shown = verdict_line(document, terminal) if quiet else text(document, terminal, full=details)
    print(shown, file=stream, flush=True)


def warn(text: str) -> None:
    """Print a warning."""
    say(f"warning: {this_program().addressed(text)}", sys.stderr)


def say(text: str, stream: TextIO) -> None:
    """Print a line, or several, without what a terminal would obey: names and rules are of others."""
    print(printable_lines(text), file=stream, flush=True)


def one_line(message: str) -> str:
    """Return a message as a line that a terminal shows and does not obey, and that a person can read."""
    return _LONG_WORD.sub(lambda word: f"{word[0][:_SHOWN]}...", printable(message))
