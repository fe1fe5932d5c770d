"""What a user got wrong, as one line: the option, what is wrong with its value, what to write."""

import difflib
import os
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import typer
from typer.exceptions import TyperException

from snat_race.cli.parsing import quoted

Parameter: TypeAlias = Any  # of a click that typer keeps to itself

_REPHRASED = (
    (
        re.compile(r"No such command (.*)\. Did you mean (.*)\?"),
        r"there is no command \1; did you mean \2?",
    ),
    (re.compile(r"No such command"), "there is no command"),
    (re.compile(r"Got unexpected extra argument.* \((.*)\)"), r"takes no such argument: \1"),
    (re.compile(r"Missing (?:argument|option) '(.*)'"), r"\1 is missing"),
)
_WRAPPED = "Value error, "  # what pydantic puts in front of a parser's own words


def line(failed: TyperException, program: str) -> str:
    """Return what typer refuses, in our words; empty if there is nothing to say."""
    parameter = getattr(failed, "param", None)
    if isinstance(failed, typer.BadParameter) and parameter is not None and failed.message:
        return f"{_name(failed.ctx, parameter)}: {_wrong(failed, parameter)}"
    message = " ".join(failed.format_message().split())
    if not message:  # help was shown for want of a command
        return ""
    if option := getattr(failed, "option_name", None):
        if "requires an argument" in message:
            return f"{option}: needs a value"
        if "No such option" in message:
            near = getattr(failed, "possibilities", None) or _beginning_with(failed, option)
            longer = [name for name in near if name.startswith(option)]
            message = f"there is no option {option}{_did_you_mean(longer or near)}"
    for theirs, ours in _REPHRASED:
        message = theirs.sub(ours, message)
    path = getattr(getattr(failed, "ctx", None), "command_path", program)
    return f"{message.rstrip('.')}; see '{path} --help'"


def _beginning_with(failed: Any, short: str) -> list[str]:  # noqa: ANN401 - of typer's own click
    """Return the long options that a wrong short one, ``-l``, may stand for; of one word only."""
    if not re.fullmatch("-[A-Za-z]", short) or not failed.ctx:
        return []
    shown = [option for option in failed.ctx.command.params if not getattr(option, "hidden", False)]
    return [name for option in shown for name in option.opts if name.startswith(f"-{short}")]


def nearest(wrong: str, known: Sequence[str]) -> str:
    """Return a question that suggests what may have been meant; else what there is."""
    near = difflib.get_close_matches(wrong, known, n=2)
    return _did_you_mean(near) or f"; there are {', '.join(known)}"


def _name(context: Any, parameter: Parameter) -> str:  # noqa: ANN401
    """Return the option's name, with the variable if that is where its value comes from."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    name = max(parameter.opts, key=len)
    source = context.get_parameter_source(parameter.name) if context else None
    if source is not None and source.name == "ENVIRONMENT":
        variables = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar
        first = next(variable for variable in variables if os.environ.get(variable))
        return f"{name} (from the variable {first})"
    return str(name)


def _wrong(failed: typer.BadParameter, parameter: Parameter) -> str:
    kinds = parameter.type_descriptor
    given = _given(failed)
    if kinds.choices:
        return f"there is no {quoted(given)}{nearest(given, list(map(str, kinds.choices)))}"
    if failed.message.startswith(_WRAPPED):
        return failed.message.removeprefix(_WRAPPED)
    if kinds.annotation is int:
        low, high = parameter.min, parameter.max
        between = f"{low} to {high}" if high is not None else f"{low} or more"
        if re.fullmatch(r"[+-]?[0-9]+", given):
            return f"{quoted(given)} is out of range; give {between}"
        return f"{quoted(given)} is no whole number; give {between}"
    return failed.message


def _given(failed: typer.BadParameter) -> str:
    """Return the text that was refused; typer keeps it in the error that it had from pydantic."""
    errors = getattr(failed.__cause__, "errors", None)
    return str(errors()[0]["input"]) if errors else ""


def _did_you_mean(near: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
