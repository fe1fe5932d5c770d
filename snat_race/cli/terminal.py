"""Prints documents and warnings, on streams that lose nothing."""

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from snat_race.cli.program import this_program

if TYPE_CHECKING:
    from snat_race.report.document import Document


def make_streams_robust() -> None:
    """Make stdout and stderr lose nothing, whatever the locale and whoever closed them."""
    sys.stdout = _robust(sys.stdout)
    sys.stderr = _robust(sys.stderr)


def _robust(stream: TextIO | None) -> TextIO:
    """Return a stream that loses nothing.

    One that the shell closed (>&-) is None; text for it goes nowhere. A character that the locale lacks is
    written as its escape. With PYTHONUNBUFFERED, as many images have it, Python writes to a terminal or
    pipe without a buffer, and forgets the rest of a write that a signal cut short; so that is opened anew.
    """
    if stream is None:
        return io.StringIO()
    if isinstance(getattr(stream, "buffer", None), io.RawIOBase):
        return open(  # for as long as we run
            stream.fileno(),
            "w",
            buffering=1,
            encoding=stream.encoding,
            errors="backslashreplace",
            closefd=False,
        )
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


def let_go(stream: TextIO) -> None:
    """Drop what cannot be written: the user knows already, and Python would say so in its own way."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
    print(f"warning: {this_program().addressed(text)}", file=sys.stderr, flush=True)
