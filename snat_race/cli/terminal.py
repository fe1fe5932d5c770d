"""What there is to print on: how wide it is, whether it takes colours, which characters it has."""

import io
import os
import shutil
import sys
from typing import TextIO

_PIPED_WIDTH = 110  # of a file or a pipe, whoever reads it later
_BEYOND_ASCII = "·▁█"


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


def width(stream: TextIO) -> int:
    """Return how many columns text for ``stream`` may take; COLUMNS overrules it."""
    if os.environ.get("COLUMNS", "").isdecimal() or stream.isatty():
        return shutil.get_terminal_size().columns
    return _PIPED_WIDTH


def takes_colour(stream: TextIO) -> bool:
    """Whether colours are wanted there: on a terminal, unless NO_COLOR (no-color.org) is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def ascii_only(stream: TextIO) -> bool:
    """Whether the stream's encoding has no more than ASCII, or too little more for bars and dots."""
    try:
        _BEYOND_ASCII.encode(stream.encoding or "ascii")
    except (UnicodeError, LookupError):
        return True
    return False


def warn(text: str) -> None:
    """Print a warning."""
    print(f"warning: {text}", file=sys.stderr, flush=True)
