"""The command line: what there is to call, and the only place that catches errors."""

import io
import os
import re
import signal
import sys
from types import FrameType
from typing import TextIO

import typer
from typer.exceptions import TyperException

from snat_race.cli import client, compare, doctor, forecast, lab, mitigate, report, server, watch
from snat_race.errors import EnvironmentLacks, Interrupted, SnatRaceError

NAME = "snat-race"  # the shell's name of us, whoever started us how

app = typer.Typer(
    help="Reproduce, measure and explain the SYNs that Linux loses to the SNAT port race.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("client")(client.client)
app.command("c", hidden=True)(client.client)
app.command("server")(server.server)
app.command("s", hidden=True)(server.server)
app.command("lab")(lab.lab)
app.command("forecast")(forecast.forecast)
app.command("watch")(watch.watch)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("doctor")(doctor.doctor)
app.command("mitigate")(mitigate.mitigate)


def main() -> None:
    """Run the command line; every error ends here, as one line and an exit code."""
    code = 0
    if os.getpid() == 1:  # in a container; what its first process does not handle, the kernel drops
        signal.signal(signal.SIGTERM, _ended)
    sys.stdout, sys.stderr = _whole(sys.stdout), _whole(sys.stderr)
    command = typer.main.get_command(app)
    try:
        if os.environ.get("_SNAT_RACE_COMPLETE"):  # a shell asks; only this main() answers, and it exits
            command.main(prog_name=NAME)
        with command.make_context(NAME, sys.argv[1:]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as ended:
        code = ended.exit_code
    except (SnatRaceError, TyperException) as failed:
        code = _complain(failed)
    except BrokenPipeError:  # the reader, head say, has had enough
        code = 0
    except OSError as failed:
        code = _complain(EnvironmentLacks(f"the system refused: {failed}"))
    except KeyboardInterrupt:
        code = Interrupted.exit_code
    except Exception as fault:
        if os.environ.get("SNAT_RACE_DEBUG"):
            raise
        print(
            f"snat_race: internal fault: {type(fault).__name__}: {fault}; "
            "please report it with the output of SNAT_RACE_DEBUG=1",
            file=sys.stderr,
        )
        code = 1
    _let_go(sys.stdout)
    sys.exit(code)


def _ended(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _let_go(stream: TextIO) -> None:
    """Drop what cannot be written: that was told already, and Python would tell it in its own way."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _whole(stream: TextIO | None) -> TextIO:
    """Return a stream that loses nothing.

    One that the shell closed (>&-) is None; text for it goes nowhere. With PYTHONUNBUFFERED, as
    many images have it, Python's writes to a terminal or pipe without a buffer, and forgets
    the rest of a write that a signal cut short.
    """
    if stream is None:
        return io.StringIO()
    if not isinstance(getattr(stream, "buffer", None), io.RawIOBase):
        return stream
    return open(  # for as long as we run
        stream.fileno(), "w", buffering=1, encoding=stream.encoding, errors=stream.errors, closefd=False
    )


def _complain(failed: SnatRaceError | TyperException) -> int:
    message = str(failed)
    if isinstance(failed, TyperException):
        message = " ".join(failed.format_message().split())
        if not message:  # help was shown for want of a command
            return failed.exit_code
        if not message.startswith("Invalid value"):
            path = getattr(getattr(failed, "ctx", None), "command_path", NAME)
            message = f"{message.rstrip('.')}; see '{path} --help'"
        message = re.sub(r"Input should be a valid integer.*", "give a whole number", message)
    print(f"snat_race: {message}", file=sys.stderr)
    return failed.exit_code
