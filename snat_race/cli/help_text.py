"""What ``--help`` shows: on any width, without boxes, and without what takes long to import."""

import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, TypeAlias

import typer
from typer.core import TyperCommand, TyperGroup

from snat_race.cli.program import this_program
from snat_race.report.terminal import terminal_of
from snat_race.report.wording.program import Program

Parameter: TypeAlias = Any  # of a click that typer keeps to itself
Row = tuple[str, str]  # an option or a command, and what it is

_WIDEST = 100
_TWO_COLUMNS_FROM = 64  # narrower: what it is stands below its name
_WIDEST_NAME = 32
_GAP, _INDENT = "  ", "  "
_BELOW = 6 * " "
_WORD = re.compile(r"(?:'[^']*'|\S)+")  # a shell's, as our examples have them
_PIECE = re.compile(r"[^ |]+[ |]?")
_CONTINUED = " \\"
_NAME, _FOUND = "snat-race", "$(which snat-race)"  # how examples call the program, and how sudo finds it


class Command(TyperCommand):
    """A command that prints our help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write what the command is, its options and its examples."""
        formatter.write("\n".join(_lines(self, ctx, _width())))


class Group(TyperGroup):
    """The program; likewise."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write what the program is, its options and commands."""
        formatter.write("\n".join(_lines(self, ctx, _width())))

    def get_help_option(self, ctx: Any) -> Any:  # noqa: ANN401
        """Return ``--help``; False by default, because for None typer imports pydantic, which is slow."""
        option = super().get_help_option(ctx)
        if option:
            option.default = False
        return option


def examples(*commands: tuple[str, str]) -> str:
    """Return the end of a command's help: what each example does, then its command line.

    sudo does not search the folders that a user's shell does, so an example names ours: see ``_here``.
    """
    lines = (line for comment, command in commands for line in ("", f"# {comment}", command))
    return "\n".join(["Examples:", *list(lines)[1:]])


def _width() -> int:
    return min(terminal_of(sys.stdout).width, _WIDEST)


def _lines(command: Any, context: Any, width: int) -> Iterator[str]:  # noqa: ANN401
    shown = [
        parameter for parameter in command.get_params(context) if not getattr(parameter, "hidden", False)
    ]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    pieces = " ".join(command.collect_usage_pieces(context))
    yield from textwrap.wrap(
        f"{_heading('Usage:')} {context.command_path} {pieces}", width, subsequent_indent=7 * " "
    )
    for paragraph in (command.help or "").split("\n\n"):
        yield ""
        yield from textwrap.wrap(paragraph, width, break_on_hyphens=False)
    yield from _section(
        "Arguments:", [(_usage(argument), _about(argument)) for argument in arguments], width
    )
    options = [parameter for parameter in shown if parameter not in arguments]
    yield from _section("Options:", [(_names(option), _about(option)) for option in options], width)
    subcommands = getattr(command, "commands", {}).values()
    commands = [
        (subcommand.name, subcommand.help or "") for subcommand in subcommands if not subcommand.hidden
    ]
    yield from _section("Commands:", commands, width)
    yield from _epilog(command.epilog or "", width)


def _section(title: str, rows: Sequence[Row], width: int) -> Iterator[str]:
    """Yield a heading and rows: in two columns, or with what each is below its name if that is narrow."""
    if not rows:
        return
    yield ""
    yield _heading(title)
    longest = max(len(name) for name, _ in rows)
    if width < _TWO_COLUMNS_FROM:
        indent = _BELOW
    else:
        indent = " " * (min(longest, _WIDEST_NAME) + len(_INDENT + _GAP))
    for name, about in rows:
        *above, name_line = _broken(name, width - len(_INDENT))
        text = textwrap.wrap(about, width - len(indent), break_on_hyphens=False)
        fits = len(_INDENT + name_line + _GAP) <= len(indent)
        first = text.pop(0) if fits and text else ""
        yield from (_INDENT + line for line in above)
        yield (f"{_INDENT}{name_line}".ljust(len(indent)) + first).rstrip()
        yield from (indent + line for line in text)


def _broken(name: str, width: int) -> Iterator[str]:
    """Yield a name with its value on as many lines as it needs; it is broken after a space or a ``|``."""
    line = ""
    for piece in _PIECE.findall(name):
        if line and len(line) + len(piece.rstrip()) > width:
            yield line.rstrip()
            line = _INDENT
        line += piece
    yield line.rstrip()


def _epilog(text: str, width: int) -> Iterator[str]:
    """Yield the examples: comments are wrapped; commands are not, but continued in the way of a shell."""
    lines = text.splitlines()
    program = this_program()
    if lines:
        yield ""
        yield _heading(lines[0])
    for line in lines[1:]:
        if line.startswith("#"):
            yield from textwrap.wrap(
                line,
                width,
                initial_indent=_INDENT,
                subsequent_indent=f"{_INDENT}# ",
                break_on_hyphens=False,
            )
        else:
            yield from _continued(_here(line, program), width)


def _here(example: str, program: Program) -> str:
    """Return an example as it works in this user's shell."""
    example = example.replace(_FOUND, program.command())
    return example if program.on_path else re.sub(rf"^{_NAME}(?= )", lambda _: program.command(), example)


def _continued(command: str, width: int) -> Iterator[str]:
    """Yield a command line, continued on further lines where it is too long; it can be pasted still."""
    line = _INDENT
    for word in _WORD.findall(command):
        if line.strip() and len(line) + len(word) > width - len(_CONTINUED):
            yield line.rstrip() + _CONTINUED
            line = _INDENT + _INDENT
        line += f"{word} "
    yield line.rstrip()


def _usage(argument: Parameter) -> str:
    return str(argument.metavar or argument.name.upper())


def _names(option: Parameter) -> str:
    """Return how an option is written: ``-r, --remote-addr HOST:PORT``."""
    names = ", ".join(sorted(option.opts, key=len))
    return names if option.is_flag else f"{names} {option.metavar}"


def _about(parameter: Parameter) -> str:
    """Return what a parameter is, its range, default and variable."""
    notes = []
    if parameter.min is not None and parameter.max is not None:
        notes.append(f"{parameter.min:,} to {parameter.max:,}")
    default = parameter.default
    if isinstance(default, Enum):
        default = default.value
    if default is not None and default is not False:
        notes.append(f"default: {default}")
    if parameter.envvar:
        variables = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar
        notes.append(f"variable: {' or '.join(variables)}")
    if parameter.required:
        notes.append("required")
    return f"{parameter.help} [{'; '.join(notes)}]" if notes else str(parameter.help)


def _heading(text: str) -> str:
    return typer.style(text, bold=True) if terminal_of(sys.stdout).colour else text
