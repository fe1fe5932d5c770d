"""The command line: what there is to call, and the only place that catches errors."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.exceptions import TyperException

from snat_race.cli import (
    arguments,
    client,
    compare,
    doctor,
    forecast,
    help_text,
    lab,
    mistakes,
    mitigate,
    parameters,
    report,
    server,
    terminal,
    trace,
    watch,
)
from snat_race.cli.program import adding, this_program
from snat_race.errors import EnvironmentLacks, ExtraMissing, SnatRaceError, UsageError
from snat_race.runs.signals import StopSignals

NAME = "snat-race"  # the shell's name of us, whoever started us how

app = typer.Typer(
    rich_markup_mode=None,  # its help and its errors are ours
    add_completion=False,  # likewise; see parameters.py
    pretty_exceptions_enable=False,
)


@app.callback(
    cls=help_text.Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=help_text.examples(
        ("See the race, and what cures it, on this machine", "snat-race lab"),
        ("Look for rules that race on this host", "sudo $(which snat-race) doctor"),
        ("All about one command", "snat-race client --help"),
    ),
)
def _program(
    _version: parameters.Version = False,
    _install_completion: parameters.InstallCompletion = False,
    _show_completion: parameters.ShowCompletion = False,
) -> None:
    """Reproduce, measure and explain the SYNs that Linux loses to the SNAT port race."""


for _names, _module, _run in (
    (("client", "c"), client, client.client),
    (("server", "s"), server, server.server),
    (("lab",), lab, lab.lab),
    (("forecast",), forecast, forecast.forecast),
    (("watch",), watch, watch.watch),
    (("trace",), trace, trace.trace),
    (("report",), report, report.report),
    (("compare",), compare, compare.compare),
    (("doctor",), doctor, doctor.doctor),
    (("mitigate",), mitigate, mitigate.mitigate),
):
    for _name in _names:  # a short name, as the Go tool had it, is understood but not shown
        app.command(_name, cls=help_text.Command, epilog=_module.EXAMPLES, hidden=_name != _names[0])(_run)


def understood(group: Any, words: Sequence[str]) -> list[str]:  # noqa: ANN401 - of typer's own click
    """Return a command line, however the Go tool's users may write it, in words that typer knows."""
    with typer.Context(group, info_name=NAME, **group.context_settings) as context:
        commands = {name: _spellings(command, context) for name, command in group.commands.items()}
        return arguments.rewritten(words, _spellings(group, context), commands)


def _spellings(command: Any, context: Any) -> dict[str, arguments.Spelling]:  # noqa: ANN401 - likewise
    spellings: dict[str, arguments.Spelling] = {}
    for parameter in command.get_params(context):
        if parameter.param_type_name == "option":
            spelling = arguments.Spelling(max(parameter.opts, key=len), takes_value=not parameter.is_flag)
            names = [*parameter.opts, *parameters.GO_NAMES.get(spelling.name, ())]
            spellings |= {name.lstrip("-"): spelling for name in names}
    return spellings


def main() -> None:
    """Run the command line; every error ends here, as one line and an exit code."""
    stop = StopSignals.of_process()
    stdout = terminal.make_streams_robust(on_loss=stop.reader_lost)
    code = _run_to_code()
    sys.stdout.flush()
    if stdout.failure and not stdout.reader_left:
        refusal = EnvironmentLacks(
            f"stdout cannot be written: {stdout.failure.strerror}; free it, or redirect"
        )
        code = code or _complain(refusal)
    stop.leave()
    sys.exit(code)


def _run_to_code() -> int:
    command: Any = typer.main.get_command(app)
    try:
        if os.environ.get("_SNAT_RACE_COMPLETE"):  # a shell asks; only this main() answers, and it exits
            parameters.know_shells()
            try:
                command.main(prog_name=NAME)
            except ValueError as failed:  # of COMP_CWORD, for example
                raise UsageError(f"no shell that is known here asks like this: {failed}") from failed
        with command.make_context(NAME, understood(command, sys.argv[1:])) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except (SnatRaceError, TyperException) as failed:
        return _complain(failed)
    except OSError as failed:
        return _complain(EnvironmentLacks(f"the system refused: {failed}"))
    except Exception as fault:
        if os.environ.get("SNAT_RACE_DEBUG"):
            raise
        return _complain(
            SnatRaceError(
                f"internal fault: {type(fault).__name__}: {fault}; "
                "please report it with the output of SNAT_RACE_DEBUG=1"
            )
        )
    return 0


def _complain(failed: SnatRaceError | TyperException) -> int:
    message = mistakes.line(failed, NAME) if isinstance(failed, TyperException) else str(failed)
    if isinstance(failed, ExtraMissing):
        message += f": {adding(failed.extra)}"
    if message:
        shown = terminal.one_line(this_program().addressed(message))
        print(f"snat_race: {shown}", file=sys.stderr)
    return failed.exit_code
