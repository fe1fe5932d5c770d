"""The commands: parse, compose, render, exit codes. The only place that catches errors.

Heavy imports stand inside the commands, so that ``--help`` answers at once.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from snat_race.errors import SnatRaceError, ThresholdExceeded, UsageError
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

app = typer.Typer(
    help="Reproduce, measure and explain the SYNs that Linux loses to the SNAT port race.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

OUTPUT = typer.Option("--output", "-o", help="Write the result as JSON to this file.", metavar="FILE")
JSON = typer.Option("--json", help="Events as JSON on stdout, one a line; text on stderr.")
HIDDEN_WORKERS = typer.Option("--go-routines", envvar="GO_ROUTINES", hidden=True)


@app.command("client")
@app.command("c", hidden=True)
def client(
    remote_addr: Annotated[
        str, typer.Option("--remote-addr", "-r", envvar="REMOTE_ADDR", help="HOST:PORT to dial.")
    ] = "127.0.0.1:8080",
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-c", envvar="WORKERS", help="Dialers; one per usable CPU by default."),
    ] = None,
    go_routines: Annotated[int | None, HIDDEN_WORKERS] = None,
    local_ip: Annotated[
        list[str] | None,
        typer.Option("--local-ip", "-l", envvar="LOCAL_IP", help="Dial from this address; repeatable."),
    ] = None,
    timeout_ms: Annotated[
        int, typer.Option("--timeout-ms", "-t", envvar="TIMEOUT_MS", help="Give up a dial after this long.")
    ] = 500,
    dial_interval_us: Annotated[
        int,
        typer.Option(
            "--dial-interval-us", "-d", envvar="DIAL_INTERVAL_US", help="Between dials; 0 is flat out."
        ),
    ] = 100_000,
    summary_interval_sec: Annotated[
        int,
        typer.Option(
            "--summary-interval-sec", "-s", envvar="SUMMARY_INTERVAL_S", help="Between summaries."
        ),
    ] = 5,
    mode: Annotated[
        Mode, typer.Option(help="Meet other clients by the clock, or dial as each worker likes.")
    ] = Mode.rendezvous,
    source_ports: Annotated[
        str | None,
        typer.Option(metavar="LOW-HIGH", help="Rendezvous ports; ip_local_port_range by default."),
    ] = None,
    lanes: Annotated[
        int | None,
        typer.Option(help="Ports used in each slot; all parties must agree. The host's CPUs by default."),
    ] = None,
    close: Annotated[Close, typer.Option(help="End dials by RST, or by FIN as the ancestor.")] = Close.rst,
    duration: Annotated[str | None, typer.Option(metavar="TIME", help="Stop after 10s, 2m, ...")] = None,
    count: Annotated[str | None, typer.Option(metavar="N", help="Stop after N dials: 1000, 50k, ...")] = None,
    warmup: Annotated[
        str | None, typer.Option(metavar="TIME", help="Dial this long first, uncounted.")
    ] = None,
    max_error_rate: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Exit 3 if more dials fail: 0.1%.")
    ] = None,
    output: Annotated[Path | None, OUTPUT] = None,
    json: Annotated[bool, JSON] = False,
    no_pin: Annotated[bool, typer.Option("--no-pin", help="Leave workers unpinned.")] = False,
) -> None:
    """Dial a server from every CPU, and summarise what became of the dials."""
    from snat_race import client as runner
    from snat_race.kernel import host
    from snat_race.report.events import ClientPrinter

    wanted = _first(workers, go_routines, len(host.usable_cpus()))
    options = ClientOptions(
        remote_addr=remote_addr,
        workers=wanted,
        local_ips=tuple(local_ip or ()),
        timeout_ms=timeout_ms,
        dial_interval_us=dial_interval_us,
        summary_interval_sec=summary_interval_sec,
        mode=mode,
        source_ports=parse_ports(source_ports, "--source-ports") if source_ports else host.local_port_range(),
        lanes=_first(lanes, max(host.online_cpus(), wanted)),
        close=close,
        duration_s=parse_duration_s(duration, "--duration") if duration else None,
        count=parse_count(count, "--count") if count else None,
        warmup_s=parse_duration_s(warmup, "--warmup") if warmup else None,
        max_error_rate=parse_rate(max_error_rate, "--max-error-rate") if max_error_rate else None,
        output=output,
        json=json,
        pin=not no_pin,
    )
    target = runner.locate(options)
    if output:
        require_writable(output)
    printer = ClientPrinter(summary_interval_sec, as_json=json)
    result, fault = runner.run(options, target, printer)
    printer.finished(result)
    if output:
        write_atomically(output, result.model_dump_json(indent=1) + "\n")
    if fault:
        raise SnatRaceError(fault)
    _check_error_rate(result.summary.loss_rate, options.max_error_rate)


@app.command("server")
@app.command("s", hidden=True)
def server(
    local_addr: Annotated[
        str,
        typer.Option(
            "--local-addr", "-r", envvar="LOCAL_ADDR", help="HOST:PORT, [V6]:PORT or :LOW-HIGH to listen on."
        ),
    ] = "0.0.0.0:8080",
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-c", envvar="WORKERS", help="Acceptors; one per usable CPU by default."),
    ] = None,
    go_routines: Annotated[int | None, HIDDEN_WORKERS] = None,
) -> None:
    """Accept connections and close them at once."""
    from snat_race import server as runner
    from snat_race.kernel import host

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
    containers: Annotated[int, typer.Option(help="Clients behind the NAT, each with its own address.")] = 2,
    workers: Annotated[
        int | None, typer.Option(help="Dialers per container; by default all usable CPUs are shared out.")
    ] = None,
    duration: Annotated[str, typer.Option(metavar="TIME", help="Measure each variant this long.")] = "2s",
    interval_us: Annotated[int, typer.Option(help="From one dial of a worker to the next.")] = 1000,
    timeout_ms: Annotated[int, typer.Option(help="A SYN unanswered for this long is lost.")] = 8,
    variant: Annotated[
        list[str] | None, typer.Option(help="SNAT rule to measure; repeatable, the baseline first.")
    ] = None,
    output: Annotated[Path | None, OUTPUT] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Race the kernel on this machine, in private network namespaces, and show what cures it."""
    from snat_race import lab as runner
    from snat_race.kernel import host, nat
    from snat_race.report.live import ProgressLine
    from snat_race.report.text import lab_report

    options = LabOptions(
        containers=containers,
        workers=_first(workers, max(1, len(host.usable_cpus()) // max(1, containers))),
        duration_s=parse_duration_s(duration, "--duration"),
        interval_us=interval_us,
        timeout_ms=timeout_ms,
        variants=nat.require_known(variant),
        output=output,
        json=json,
    )
    if output:
        require_writable(output)
    with ProgressLine() as progress:
        result = runner.run(options, progress)
    print(lab_report(result), file=sys.stderr if json else sys.stdout)
    if json:
        print(result.model_dump_json())
    if output:
        write_atomically(output, result.model_dump_json(indent=1) + "\n")


def _first(*choices: int | None) -> int:
    return next(choice for choice in choices if choice is not None)


def _check_error_rate(observed: float, limit: float | None) -> None:
    if limit is not None and observed > limit:
        raise ThresholdExceeded(f"--max-error-rate {limit:.3%}: observed {observed:.3%}")


def main() -> None:
    """Run the command line; every error ends here, as one line and an exit code."""
    try:
        code = app(prog_name="snat_race", standalone_mode=False) or 0
        sys.stdout.flush()
    except (SnatRaceError, TyperException) as failed:
        code = _complain(failed)
    except BrokenPipeError:  # the reader, head say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = 130
    except Exception as fault:
        if os.environ.get("SNAT_RACE_DEBUG"):
            raise
        print(f"snat_race: internal fault: {type(fault).__name__}: {fault}; "
              "please report it with the output of SNAT_RACE_DEBUG=1", file=sys.stderr)
        code = 1
    sys.exit(code)


def _complain(failed: SnatRaceError | TyperException) -> int:
    message = str(failed)
    if isinstance(failed, TyperException):
        message = " ".join(failed.format_message().split())
        if not message:  # help was shown for want of a command
            return failed.exit_code
        if not message.startswith("Invalid value"):
            message += " See 'python -m snat_race --help'."
    print(f"snat_race: {message}", file=sys.stderr)
    return failed.exit_code
