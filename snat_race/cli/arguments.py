"""Command lines as users of the Go tool write them, put into the words that typer knows. Pure.

Go takes any option with one dash or two (``-remote-addr X``, ``--r X``), and any value after ``=``, as in
``-c=1``. It has a command ``help``, or ``h``, and shows its help when it is called with nothing.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from snat_race.errors import UsageError

_OPTION = re.compile(r"--?([A-Za-z][\w-]*)(=.*)?", re.ASCII | re.DOTALL)
_SHOWN = 60  # characters of an argument that cannot be understood
_HELP = ("help", "h")


class Spelling(NamedTuple):
    """An option as we spell it, ``--remote-addr``, and whether a value follows."""

    name: str
    takes_value: bool


Spellings = Mapping[str, Spelling]  # by each of an option's names without its dashes: "r", "remote-addr"


def rewritten(arguments: Sequence[str], program: Spellings, commands: Mapping[str, Spellings]) -> list[str]:
    """Return the arguments with every option in our spelling; what is no option of ours stays as it is.

    ``program`` are the options that stand before a command, ``commands`` those of each command.

    Raises:
        UsageError: one is not UTF-8. A result could not hold it, and a run would be lost at its end.

    """
    for argument in arguments:
        try:
            os.fsencode(argument).decode()  # as it was typed: a locale may have made surrogates of UTF-8
        except UnicodeError:
            raise UsageError(
                f"{argument[:_SHOWN]!a} is not UTF-8; rename what it stands for, or link to it"
            ) from None
    if not arguments:
        return ["--help"]
    first, *rest = arguments
    if first in _HELP:
        return [*rest[:1], "--help"]
    if first in commands:
        return [first, *_respelt(rest, commands[first])]
    return list(_respelt(arguments, program))


def _respelt(arguments: Sequence[str], known: Spellings) -> Iterator[str]:
    """Yield the arguments respelt, up to ``--``. A value is never taken for an option."""
    waiting = iter(arguments)
    for argument in waiting:
        shape = _OPTION.fullmatch(argument)
        option = known.get(shape[1]) if shape else None
        if shape and option:
            yield option.name + (shape[2] or "")
            if option.takes_value and not shape[2]:
                yield from islice(waiting, 1)
        else:
            yield argument
            if argument == "--":
                yield from waiting
