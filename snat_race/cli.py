"""The commands: parse, compose, render, exit codes. The only place that catches errors.

Heavy imports stand inside the commands, so that ``--help`` answers at once.
"""

import io
import os
import re
import sys
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer
from typer.exceptions import TyperException

from snat_race import arguments
from snat_race.errors import EnvironmentLacks, Interrupted, SnatRaceError, ThresholdExceeded
from snat_race.kernel import host
from snat_race.options import (
    ClientOptions,
    Close,
    LabOptions,
    Mode,
    ServerOptions,
    parse_count,
    parse_duration_s,
    parse_ports,
    parse_rate,
)
from snat_race.output import require_writable, write_atomically

if TYPE_CHECKING:
    from snat_race.analysis.result import Result, Summary

Value = TypeVar("Value")

app = typer.Typer(
    help="Reproduce, measure and explain the SYNs that Linux loses to the SNAT port race.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("client")
@app.command("c", hidden=True)
def client(
    remote_addr: arguments.RemoteAddr = "127.0.0.1:8080",
    workers: arguments.Dialers = None,
    go_routines: arguments.GoRoutines = None,
    local_ip: arguments.LocalIps = None,
    timeout_ms: arguments.TimeoutMs = 500,
    dial_interval_us: arguments.DialIntervalUs = 100_000,
    summary_interval_sec: arguments.SummaryIntervalSec = 5,
    mode: arguments.DialMode = Mode.rendezvous,
    source_ports: arguments.SourcePorts = None,
    lanes: arguments.Lanes = None,
    close: arguments.CloseBy = Close.rst,
    duration: arguments.RunFor = None,
    count: arguments.Count = None,
    warmup: arguments.WarmUp = None,
    max_error_rate: arguments.MaxErrorRate = None,
    output: arguments.Output = None,
    json: arguments.Json = False,
    no_pin: arguments.NoPin = False,
) -> None:
    """Dial a server from every CPU, and summarise what became of the dials."""
    wanted = _first(workers, go_routines, len(host.usable_cpus()))
    options = ClientOptions(
        remote_addr=remote_addr,
        workers=wanted,
        local_ips=tuple(local_ip or ()),
        timeout_ms=timeout_ms,
        dial_interval_us=dial_interval_us,
        summary_interval_sec=summary_interval_sec,
        mode=mode,
        source_ports=_parsed(parse_ports, source_ports, "--source-ports") or host.local_port_range(),
        lanes=_first(lanes, max(host.online_cpus(), wanted)),
        close=close,
        duration_s=_parsed(parse_duration_s, duration, "--duration"),
        count=_parsed(parse_count, count, "--count"),
        warmup_s=_parsed(parse_duration_s, warmup, "--warmup"),
        pin=not no_pin,
    )
    _dial(options, output, _parsed(parse_rate, max_error_rate, "--max-error-rate"), as_json=json)


def _dial(options: ClientOptions, output: Path | None, limit: float | None, *, as_json: bool) -> None:
    from snat_race import client, plan
    from snat_race.report.events import ClientPrinter

    target = plan.locate(options)
    if output:
        require_writable(output)
    printer = ClientPrinter(options.summary_interval_sec, as_json=as_json)
    result, fault = client.run(options, target, printer)
    _save(result, output)
    printer.finished(result)
    if fault:
        raise SnatRaceError(fault)
    _check_error_rate(result.summary, limit)


@app.command("server")
@app.command("s", hidden=True)
def server(
    local_addr: arguments.LocalAddr = "0.0.0.0:8080",
    workers: arguments.Acceptors = None,
    go_routines: arguments.GoRoutines = None,
) -> None:
    """Accept connections and close them at once."""
    from snat_race import server as runner

    options = ServerOptions(local_addr, _first(workers, go_routines, len(host.usable_cpus())))
    accepted = runner.run(
        options,
        lambda endpoint: print(
            f"Ready to accept connections on {endpoint} with {options.workers} acceptors; Ctrl-C stops.",
            flush=True,
        ),
    )
    print(f"Stopped. Accepted {accepted:,} connections.")


@app.command("lab")
def lab(
    containers: arguments.Containers = 2,
    workers: arguments.DialersEach = None,
    duration: arguments.MeasureFor = "2s",
    interval_us: arguments.IntervalUs = 1000,
    timeout_ms: arguments.LabTimeoutMs = 4,
    variant: arguments.Variants = None,
    output: arguments.Output = None,
    json: arguments.Json = False,
) -> None:
    """Race the kernel on this machine, in private network namespaces, and show what cures it."""
    from snat_race import lab as runner
    from snat_race.kernel import nat
    from snat_race.report.live import ProgressLine
    from snat_race.report.text import lab_report

    options = LabOptions(
        containers=containers,
        workers=_first(workers, max(1, len(host.usable_cpus()) // max(1, containers))),
        duration_s=parse_duration_s(duration, "--duration"),
        interval_us=interval_us,
        timeout_ms=timeout_ms,
        variants=nat.require_known(variant),
    )
    if output:
        require_writable(output)
    with ProgressLine() as progress:
        result = runner.run(options, progress)
    _save(result, output)
    print(lab_report(result), file=sys.stderr if json else sys.stdout)
    if json:
        print(dumps({"event": "result"} | result.model_dump(mode="json")))


def _save(result: "Result", output: Path | None) -> None:
    if output:
        write_atomically(output, result.model_dump_json(indent=1) + "\n")


def _parsed(parse: Callable[[str, str], Value], text: str | None, option: str) -> Value | None:
    return None if text is None else parse(text, option)


def _first(*choices: int | None) -> int:
    return next(choice for choice in choices if choice is not None)


def _check_error_rate(summary: "Summary", limit: float | None) -> None:
    if limit is None:
        return
    if not summary.attempted:
        raise ThresholdExceeded(f"--max-error-rate {limit:.3%}: nothing was dialled, so nothing is known")
    if summary.loss_rate > limit:
        raise ThresholdExceeded(f"--max-error-rate {limit:.3%}: observed {summary.loss_rate:.3%}")


def main() -> None:
    """Run the command line; every error ends here, as one line and an exit code."""
    code = 0
    # A stream that the shell closed (>&-) is None; text for it goes nowhere.
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()
    command = typer.main.get_command(app)
    try:
        with command.make_context("snat_race", sys.argv[1:]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as ended:
        code = ended.exit_code
    except (SnatRaceError, TyperException) as failed:
        code = _complain(failed)
    except BrokenPipeError:  # the reader, head say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
    sys.exit(code)


def _complain(failed: SnatRaceError | TyperException) -> int:
    message = str(failed)
    if isinstance(failed, TyperException):
        message = " ".join(failed.format_message().split())
        if not message:  # help was shown for want of a command
            return failed.exit_code
        if not message.startswith("Invalid value"):
            path = getattr(getattr(failed, "ctx", None), "command_path", "snat_race")
            message = f"{message.rstrip('.')}; see '{path} --help'"
        message = re.sub(r"Input should be a valid integer.*", "give a whole number", message)
    print(f"snat_race: {message}", file=sys.stderr)
    return failed.exit_code
