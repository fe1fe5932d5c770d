"""``make reference``: write docs/reference.md, every command and option, from the command line itself.

It asks the parameters, not ``--help``, whose text depends on the terminal and on variables.
"""

import sys
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

import typer

from snat_race.cli.app import NAME, app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"
Parameter: TypeAlias = Any  # of a click that typer keeps to itself

INTRODUCTION = """\
# Reference

<!-- 'make reference' writes this page. Change the help texts in snat_race/cli/ instead. -->

Every command also takes `-h` or `--help`. If an option names a variable, its value comes from there unless
the option is given. As in the Go tool, `c` means `client`, `s` means `server`, `--go-routines` means
`--workers`, and an option may have one dash or two.

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | a fault of snat_race, or a worker that was killed |
| 2 | bad input; one line says which option, and what to do |
| 3 | a limit or an expectation does not hold (`--max-error-rate`, `--max-p99`, `--max-race-losses`, \
`--expect`, `--fail-if`), or `doctor` found a rule that races |
| 4 | the machine lacks a privilege, a tool or a kernel module; the line says how to get it. Or this \
run cannot tell what `--expect` or `--max-race-losses` asks |
| 130 | interrupted before there was anything to report |

`make` reports every failure as 2. Call `snat-race` itself where the code matters.

## Commands"""


def reference() -> str:
    """Return the whole page, as Markdown."""
    root: Any = typer.main.get_command(app)
    context = typer.Context(root, info_name=NAME)
    shown = [command for command in root.commands.values() if not command.hidden]
    inner = [typer.Context(command, parent=context, info_name=command.name) for command in shown]
    sections = [_section(one) for one in (context, *inner)]
    return "\n\n".join([INTRODUCTION, *sections]) + "\n"


def _section(context: typer.Context) -> str:
    command: Any = context.command
    shown: list[Parameter] = [
        parameter for parameter in command.params if not getattr(parameter, "hidden", False)
    ]
    arguments = [_spelt(parameter, context) for parameter in shown if _is_argument(parameter)]
    options = [
        _spelt(parameter, context, all_names=False)
        for parameter in shown
        if parameter.required and not _is_argument(parameter)
    ]
    rest = [command.options_metavar, getattr(command, "subcommand_metavar", ""), *arguments]
    usage = " ".join([context.command_path, *options, *filter(None, rest)])
    head = f"### {context.command_path}\n\n{command.help}\n\n`{usage}`"
    return f"{head}\n\n{_table(shown, context)}{_examples(command.epilog or '')}"


def _table(shown: list[Parameter], context: typer.Context) -> str:
    """Return a row for each parameter; a column that all leave empty is left out."""
    rows = [("option", "default", "variable", "meaning")]
    rows += [
        (
            _code(_spelt(parameter, context)),
            _default(parameter),
            _variables(parameter),
            _cell(parameter.help) + _range(parameter),
        )
        for parameter in shown
    ]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    head, *body = ["| " + " | ".join(row) + " |" for row in zip(*columns, strict=True)]
    return "\n".join([head, "|---" * len(columns) + "|", *body])


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
    return _code(str(default.value if isinstance(default, Enum) else default))


def _variables(parameter: Parameter) -> str:
    names = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or []
    return " or ".join(_code(name) for name in names)


def _range(parameter: Parameter) -> str:
    if parameter.min is None or parameter.max is None:
        return ""
    return f" From {parameter.min:,} to {parameter.max:,}."


def _examples(epilog: str) -> str:
    """Return the examples at the end of a command's help, as a block; they follow a heading."""
    _, _, commands = epilog.partition("\n")
    return f"\n\n```sh\n{commands}\n```" if commands else ""


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def main(page: Path) -> None:
    """Write the page."""
    page.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else PAGE)
