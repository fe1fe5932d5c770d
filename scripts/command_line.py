"""The commands and options of the program as data, for the pages that are made of them.

The parameters are asked, not ``--help``, whose text depends on the terminal and on variables.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import typer

from snat_race.cli.app import NAME, app

Parameter: TypeAlias = Any  # of a click that typer keeps to itself

EXIT_CODES = (
    ("0", "done; also if a signal ended the run, or the reader of stdout had enough"),
    ("1", "a fault of snat_race, or a worker that was killed"),
    ("2", "bad input; one line says which option, and what to do"),
    (
        "3",
        (
            "a limit or an expectation does not hold (`--max-error-rate`, `--max-p99`, "
            "`--max-race-losses`, `--expect`, `--fail-if`), or `doctor` found a rule that races"
        ),
    ),
    (
        "4",
        (
            "the machine lacks a privilege, a tool or a kernel module; the line says how to get it. "
            "Or this run cannot tell what `--expect` or `--max-race-losses` asks. "
            "Or stdout or `--output` could not be written; the line says where the result is"
        ),
    ),
    ("130", "interrupted before there was anything to report"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option or an argument."""

    spelt: str  # all its names, the shortest first, and its value
    default: str  # "" if there is none; "required" if it must be given
    variables: tuple[str, ...]  # of the environment that stand for it
    meaning: str  # one or more sentences, with its range


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The program, or one of its commands."""

    path: str  # as it is called: snat-race client
    usage: str
    about: str
    options: tuple[Option, ...]
    examples: str  # for a shell: comments and command lines; "" if there are none


def entries() -> list[Entry]:
    """Return the program, then its commands, but those that are another name of one."""
    root: Any = typer.main.get_command(app)
    context = typer.Context(root, info_name=NAME)
    shown = [command for command in root.commands.values() if not command.hidden]
    inner = [typer.Context(command, parent=context, info_name=command.name) for command in shown]
    return [_entry(one) for one in (context, *inner)]


def _entry(context: typer.Context) -> Entry:
    command: Any = context.command
    shown: list[Parameter] = [
        parameter for parameter in command.params if not getattr(parameter, "hidden", False)
    ]
    arguments = [_spelt(parameter, context) for parameter in shown if _is_argument(parameter)]
    required = [
        _spelt(parameter, context, all_names=False)
        for parameter in shown
        if parameter.required and not _is_argument(parameter)
    ]
    rest = [command.options_metavar, getattr(command, "subcommand_metavar", ""), *arguments]
    _, _, examples = (command.epilog or "").partition("\n")  # they follow a heading
    return Entry(
        path=context.command_path,
        usage=" ".join([context.command_path, *required, *filter(None, rest)]),
        about=command.help,
        options=tuple(_option(parameter, context) for parameter in shown),
        examples=examples,
    )


def _option(parameter: Parameter, context: typer.Context) -> Option:
    names = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or []
    return Option(
        spelt=_spelt(parameter, context),
        default=_default(parameter),
        variables=tuple(names),
        meaning=" ".join(parameter.help.split()) + _range(parameter),
    )


def _spelt(parameter: Parameter, context: typer.Context, *, all_names: bool = True) -> str:
    """Return how a parameter is written on a command line."""
    if _is_argument(parameter):
        return str(parameter.metavar or parameter.name.upper())
    names = sorted(parameter.opts, key=len)
    value = "" if parameter.is_flag else f" {parameter.display_type_rich(context)}"
    return ", ".join(names if all_names else names[-1:]) + value


def _is_argument(parameter: Parameter) -> bool:
    return bool(parameter.param_type_name == "argument")


def _default(parameter: Parameter) -> str:
    """Return what stands in the signature; what is computed is None there, and ``help`` says how."""
    if parameter.required:
        return "required"
    default = parameter.default
    if default is None or default is False:
        return ""
    return str(default.value if isinstance(default, Enum) else default)


def _range(parameter: Parameter) -> str:
    if parameter.min is None or parameter.max is None:
        return ""
    return f" From {parameter.min:,} to {parameter.max:,}."
