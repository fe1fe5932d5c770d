"""The commands, a module each: from options to a run, from its result to text and files.

Heavy imports stand inside the functions, so that ``--help`` answers at once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from snat_race.output import write_atomically

if TYPE_CHECKING:
    from snat_race.analysis.model import Result

Value = TypeVar("Value")


def save(result: "Result", output: Path | None) -> None:
    """Write a result where the user wants it, if anywhere."""
    if output:
        write_atomically(output, result.model_dump_json(indent=1) + "\n")


def parsed(parse: Callable[[str, str], Value], text: str | None, option: str) -> Value | None:
    """Parse an option that may be absent."""
    return None if text is None else parse(text, option)


def first(*choices: int | None) -> int:
    """Return the first that is given."""
    return next(choice for choice in choices if choice is not None)
