"""``make reference``: write README.md's reference of commands and options, from the command line itself."""

import sys
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

import typer

from snat_race.cli.app import NAME, app

Parameter: TypeAlias = Any  # of a click that typer keeps to itself

BEGIN = "<!-- begin of the reference, which 'make reference' writes -->"
END = "<!-- end of the reference -->"

INTRODUCTION = """\
Every command also takes `-h` or `--help`. An option that names a variable takes its value from there unless
it is given. As in the Go tool, `c` is understood for `client`, `s` for `server`, and `--go-routines` for
`--workers`; an option may have one dash or two."""


def main(readme: Path) -> None:
    """Rewrite the reference in a file."""
    text = readme.read_text(encoding="utf-8")
    readme.write_text(renewed(text, reference()), encoding="utf-8")


def renewed(text: str, section: str) -> str:
    """Return ``text`` with ``section`` between its markers.

    Raises:
        ValueError: it has none.

    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no place for the reference; put it back as two lines: {BEGIN} and {END}")
    return f"{before}{begin}\n\n{section}\n\n{end}{after}"


def reference() -> str:
    """Return what every command and option is, as Markdown.

    It asks the parameters, not ``--help``, whose text depends on the terminal and on variables.
    """
    root: Any = typer.main.get_command(app)
    context = typer.Context(root, info_name=NAME)
    shown = [command for command in root.commands.values() if not command.hidden]
    inner = [typer.Context(command, parent=context, info_name=command.name) for command in shown]
    return "\n\n".join([INTRODUCTION, *map(_section, [context, *inner])])


def _section(context: typer.Context) -> str:
    command: Any = context.command
    shown: list[Parameter] = [each for each in command.params if not getattr(each, "hidden", False)]
    arguments = [_spelt(each, context) for each in shown if _is_argument(each)]
    options = [
        _spelt(each, context, all_names=False) for each in shown if each.required and not _is_argument(each)
    ]
    rest = [command.options_metavar, getattr(command, "subcommand_metavar", ""), *arguments]
    usage = " ".join([context.command_path, *options, *filter(None, rest)])
    return f"### {context.command_path}\n\n{command.help}\n\n`{usage}`\n\n{_table(shown, context)}"


def _table(shown: list[Parameter], context: typer.Context) -> str:
    """Return a row for each parameter; a column that all leave empty is left out."""
    rows = [("option", "default", "variable", "meaning")]
    rows += [
        (_code(_spelt(each, context)), _default(each), _variables(each), _cell(each.help)) for each in shown
    ]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    head, *body = ["| " + " | ".join(row) + " |" for row in zip(*columns, strict=True)]
    return "\n".join([head, "|---" * len(columns) + "|", *body])


def _spelt(parameter: Parameter, context: typer.Context, *, all_names: bool = True) -> str:
    """Return how a parameter is written on a command line."""
    if _is_argument(parameter):
        return parameter.metavar or parameter.name.upper()
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
    return _code(str(default.value if isinstance(default, Enum) else default))


def _variables(parameter: Parameter) -> str:
    names = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or []
    return " or ".join(map(_code, names))


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "README.md"))
