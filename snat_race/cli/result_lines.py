"""Files with results, as lines: a result, or the events of ``--json``, of one run or of several.

A line is one JSON object. What a killed run left of its last line has no line end, so the first event of
the run that was appended next follows in the same line.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import groupby
from os import fstat
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, NamedTuple

from pydantic_core import from_json

from snat_race.errors import UsageError
from snat_race.results.model import SCHEMA_VERSION

LARGEST_OBJECT = 64 << 20
"""Bytes of JSON in one piece: a result of 1,024 periods on 512 CPUs, indented, has 42 million."""

_MIB = LARGEST_OBJECT >> 20
_EVENT = re.compile(rb'\s*\{\s*"event"\s*:\s*"(\w+)"')
_BEGINNING = b'{"event":'
_FAILURE = b'{"event": "failure"'  # nothing is read from it, and there may be ten for each period
_PERIOD = f'{{"event": "period", "schema_version": {SCHEMA_VERSION}, '.encode()
_BETWEEN = (_PERIOD, _FAILURE)  # a run's beginning and its end
_AT_ONCE = 1 << 16  # bytes: some 100 lines of a long stream
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FOREIGN = {
    b"\x1f\x8b": "compressed; unpack it first: gunzip",
    b"\x28\xb5\x2f\xfd": "compressed; unpack it first: unzstd",
    b"\xff\xfe": "UTF-16; make it UTF-8 first: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16; make it UTF-8 first: iconv -f UTF-16 -t UTF-8",
}


class NotJson(ValueError):
    """A line is no JSON: it is damaged, or was cut off."""


class Line(NamedTuple):
    """An object in a file."""

    number: int  # of its line, from 1
    offset: int  # where the line begins, in bytes
    text: bytes
    is_last: bool  # of the file

    @property
    def event(self) -> str | None:
        """Of what kind it is, by its first bytes, as we write them; None: it has to be parsed to tell."""
        kind = _EVENT.match(self.text)
        return kind[1].decode() if kind else None

    def parsed(self) -> dict[str, Any]:
        """Return the object, as an event: what has no such word is a result.

        Raises:
            NotJson: it is none.

        """
        try:
            document = from_json(self.text, allow_inf_nan=False)
        except ValueError as failed:
            raise NotJson(str(failed)) from None
        if not isinstance(document, dict):
            return {"event": "foreign"}
        document.setdefault("event", "result")
        return document


class Periods(NamedTuple):
    """Lines that follow one another, each a period or a failed dial as this version writes it.

    A long stream consists of these.
    """

    number: int  # of the first line, from 1
    offset: int  # where it begins, in bytes
    texts: list[bytes]

    def fields(self) -> Iterator[bytes]:
        """Yield the JSON of what each period's event says of it."""
        after = len(_PERIOD)
        for text in self.texts:
            if text.startswith(_PERIOD):
                yield b"{" + text[after:]

    def line(self, period: int) -> Line:
        """Return the line of a period, counted from 0."""
        at = [number for number, text in enumerate(self.texts) if text.startswith(_PERIOD)][period]
        before = sum(len(text) + 1 for text in self.texts[:at])
        return Line(self.number + at, self.offset + before, self.texts[at], is_last=False)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file so that one can go back in it; of a pipe, all that it holds is read first.

    Raises:
        UsageError: it cannot be read, or a pipe holds too much.

    """
    try:
        with path.open("rb") as file:
            yield file if S_ISREG(fstat(file.fileno()).st_mode) else _held(path, file)
    except OSError as failed:
        raise UsageError(f"{path}: cannot be read ({failed.strerror}); give a file of --output") from failed


def _held(path: Path, pipe: BinaryIO) -> BinaryIO:
    text = pipe.read(LARGEST_OBJECT + 1)
    if len(text) > LARGEST_OBJECT:
        raise UsageError(
            f"{path}: holds more than {_MIB} MiB, too much for a pipe; write it to a file first"
        )
    return BytesIO(text)


def pieces(path: Path, file: BinaryIO, *, first: Line | Periods | None = None) -> Iterator[Line | Periods]:
    """Yield the objects in a file but failed dials; one that is indented is yielded whole.

    ``first``: begin with this piece again.

    Raises:
        UsageError: it is empty, no text, or holds an object that is too large.

    """
    number, offset = (first.number, first.offset) if first else (1, _beginning(path, file))
    file.seek(offset)
    is_first = not first
    for text, is_end in _whole_lines(path, file):
        texts = text.split(b"\n")
        last = number + len(texts) - 1 if is_end else None
        for are_periods, stretch in _stretches(text, texts, is_end=is_end):
            if are_periods:
                yield Periods(number, offset, stretch)
                number += len(stretch)
                offset += sum(map(len, stretch)) + len(stretch)
                is_first = False
                continue
            for one in stretch:
                line = Line(number, offset, one, is_last=number == last)
                number += 1
                offset += len(one) + 1
                if not one.strip():
                    continue
                if is_first and _goes_on(line):
                    yield _whole(path, file, line)
                    return
                yield _without_remains(line)
                is_first = False


def _whole_lines(path: Path, file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Yield many lines at once, without the last line end; and whether these are the last.

    Raises:
        UsageError: one is too large.

    """
    following = _up_to_a_line_end(file)
    while following:
        text, following = following.removesuffix(b"\n"), _up_to_a_line_end(file)
        if len(text) > LARGEST_OBJECT and max(map(len, text.split(b"\n"))) > LARGEST_OBJECT:
            raise too_large(path)
        yield text, not following


def _up_to_a_line_end(file: BinaryIO) -> bytes:
    return file.read(_AT_ONCE) + file.readline(LARGEST_OBJECT + 1)


def _stretches(text: bytes, texts: list[bytes], *, is_end: bool) -> Iterator[tuple[bool, list[bytes]]]:
    """Yield lines that follow one another and are periods as we write them, and those that are not.

    What ends a file may be cut off, so it is looked at more closely. ``texts`` are the lines of ``text``.
    """
    begin_as_periods = all(line.startswith(_BETWEEN) for line in texts)
    if begin_as_periods and text.count(_BEGINNING) == len(texts) and not is_end:
        yield True, texts
        return
    for are_periods, stretch in groupby(texts[:-1] if is_end else texts, _is_period):
        yield are_periods, [*stretch]
    if is_end:
        yield False, texts[-1:]


def _is_period(text: bytes) -> bool:
    """Tell whether a line is a period or a failed dial as we write it, and nothing else begins in it."""
    return text.startswith(_BETWEEN) and text.rfind(_BEGINNING, 1) < 0


def _beginning(path: Path, file: BinaryIO) -> int:
    """Return where the text begins."""
    file.seek(0)
    begins = file.read(4)
    for mark, advice in _FOREIGN.items():
        if begins.startswith(mark):
            raise UsageError(f"{path}: is no result of snat_race as it is, but {advice}")
    return len(_BYTE_ORDER_MARK) if begins.startswith(_BYTE_ORDER_MARK) else 0


def _without_remains(line: Line) -> Line:
    """Return a line without what a killed run left in it before the first event of the next run."""
    start = line.text.rfind(_BEGINNING, 1)
    if start < 0 or _is_json(line):
        return line
    return line._replace(text=line.text[start:], offset=line.offset + start)


def _goes_on(line: Line) -> bool:
    """Tell whether an object that begins in this line ends in another."""
    return not (line.event or line.is_last or line.text.rstrip().endswith((b"}", b"]")))


def _is_json(line: Line) -> bool:
    try:
        line.parsed()
    except NotJson:
        return False
    return True


def _whole(path: Path, file: BinaryIO, line: Line) -> Line:
    """Return a whole file as one object."""
    file.seek(line.offset)
    text = file.read(LARGEST_OBJECT + 1)
    if len(text) > LARGEST_OBJECT:
        raise too_large(path)
    return line._replace(text=text, is_last=True)


def too_large(path: Path) -> UsageError:
    """Return what is said of an object that is too large."""
    return UsageError(
        f"{path}: holds more than {_MIB} MiB in one piece, and no result of this version does; drop the "
        "periods of an older one first: jq 'del(.periods)'"
    )
