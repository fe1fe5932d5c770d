"""``client``: dial a server."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from snat_race.commands import arguments, first, parsed, save
from snat_race.commands.thresholds import gathered, require
from snat_race.errors import SnatRaceError, UsageError
from snat_race.kernel import host
from snat_race.options import (
    ClientOptions,
    Close,
    Mode,
    parse_count,
    parse_duration_s,
    parse_ports,
)
from snat_race.output import require_writable

if TYPE_CHECKING:
    from snat_race.analysis.thresholds import Thresholds
    from snat_race.report.live import ClientView


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
    max_p99: arguments.MaxP99 = None,
    max_race_losses: arguments.MaxRaceLosses = None,
    output: arguments.Output = None,
    json: arguments.Json = False,
    live: arguments.Live = False,
    no_pin: arguments.NoPin = False,
    watch_netns: arguments.WatchNetns = None,
) -> None:
    """Dial a server from every CPU, and summarise what became of the dials."""
    limits = gathered(max_error_rate, max_p99, max_race_losses)
    if live and json:
        raise UsageError("--live: draws where --json writes its text; give one of them")
    options = ClientOptions(
        remote_addr, (wanted := first(workers, go_routines, len(host.usable_cpus()))),
        tuple(local_ip or ()), timeout_ms, dial_interval_us, summary_interval_sec, mode,
        source_ports=parsed(parse_ports, source_ports, "--source-ports") or host.local_port_range(),
        lanes=first(lanes, max(host.online_cpus(), wanted)), close=close,
        duration_s=parsed(parse_duration_s, duration, "--duration"),
        count=parsed(parse_count, count, "--count"),
        warmup_s=parsed(parse_duration_s, warmup, "--warmup"),
        pin=not no_pin, watch_netns=tuple(watch_netns or ()),
    )  # fmt: skip
    _dial(options, output, limits, as_json=json, live=live)


def _dial(
    options: ClientOptions, output: Path | None, limits: "Thresholds", *, as_json: bool, live: bool
) -> None:
    from snat_race import client, plan
    from snat_race.kernel import places
    from snat_race.kernel.counters import Node
    from snat_race.report.events import ClientPrinter

    target = plan.locate(options)
    nodes = [Node(each) for each in places.find_all(options.watch_netns, "--watch-netns")]
    for node in nodes:
        if hint := places.container(node.namespace):
            print(f"warning: --watch-netns: {hint}; its NAT is elsewhere", file=sys.stderr)
    if output:
        require_writable(output)
    view = _view(options, target.remote_text) if live else None
    printer = ClientPrinter(options.summary_interval_sec, as_json=as_json, view=view)
    with view or nullcontext():
        result, fault = client.run(options, target, nodes, printer)
    try:  # either, if the other cannot be written
        printer.finished(result)
    finally:
        save(result, output)
    if fault:
        raise SnatRaceError(fault)
    require(limits, [("", result.summary, result.diagnosis)], as_json=as_json)


def _view(options: ClientOptions, remote: str) -> "ClientView | None":
    """Return a live view, if there is a terminal to draw it on."""
    from snat_race.report.live import ClientView
    from snat_race.report.panel import drawable

    console = drawable(sys.stdout)
    return ClientView(console, remote, options.workers) if console else None
