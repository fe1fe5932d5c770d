"""``client``: dial a server."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from snat_race.cli import parameters
from snat_race.cli.limits import gathered, require
from snat_race.cli.parsing import first, naming, parse_count, parse_duration_s, parse_ports, parsed
from snat_race.cli.result_writer import require_writable, save
from snat_race.errors import SnatRaceError, UsageError
from snat_race.kernel import host
from snat_race.runs.settings import ClientSettings, Close, Mode

if TYPE_CHECKING:
    from snat_race.analysis.thresholds import Thresholds
    from snat_race.report.live.views import ClientView


def client(
    remote_addr: parameters.RemoteAddr = "127.0.0.1:8080",
    workers: parameters.Dialers = None,
    go_routines: parameters.GoRoutines = None,
    local_ip: parameters.LocalIps = None,
    timeout_ms: parameters.TimeoutMs = 500,
    dial_interval_us: parameters.DialIntervalUs = 100_000,
    summary_interval_sec: parameters.SummaryIntervalSec = 5,
    mode: parameters.DialMode = Mode.rendezvous,
    source_ports: parameters.SourcePorts = None,
    lanes: parameters.Lanes = None,
    close: parameters.CloseBy = Close.rst,
    duration: parameters.RunFor = None,
    count: parameters.Count = None,
    warmup: parameters.WarmUp = None,
    max_error_rate: parameters.MaxErrorRate = None,
    max_p99: parameters.MaxP99 = None,
    max_race_losses: parameters.MaxRaceLosses = None,
    output: parameters.Output = None,
    json: parameters.Json = False,
    live: parameters.Live = False,
    no_pin: parameters.NoPin = False,
    watch_netns: parameters.WatchNetns = None,
) -> None:
    """Dial a server from every CPU, and summarise what became of the dials."""
    limits = gathered(max_error_rate, max_p99, max_race_losses)
    if live and json:
        raise UsageError("--live: draws where --json writes its text; give one of them")
    options = ClientSettings(
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
    options: ClientSettings, output: Path | None, limits: "Thresholds", *, as_json: bool, live: bool
) -> None:
    from snat_race.cli.events import ClientPrinter
    from snat_race.kernel import netns_lookup
    from snat_race.kernel.counters import CounterReader
    from snat_race.report.wording.findings import of_container
    from snat_race.runs import client, worker_placement

    with naming("--remote-addr"):
        remote = worker_placement.find_remote(options.remote_addr)
    with naming("--local-ip"):
        target = worker_placement.find_target(options, remote)
    with naming("--watch-netns"):
        namespaces = netns_lookup.find_all(options.watch_netns)
    readers = [CounterReader(namespace) for namespace in namespaces]
    for reader in readers:
        if device := netns_lookup.container_device(reader.namespace):
            hint = of_container(reader.namespace.name, device)
            print(f"warning: --watch-netns: {hint}; its NAT is elsewhere", file=sys.stderr)
    if output:
        require_writable(output)
    view = _view(options, remote.text) if live else None
    printer = ClientPrinter(options.summary_interval_sec, as_json=as_json, view=view)
    with view or nullcontext():
        result, fault = client.run(options, target, readers, printer)
    try:  # either, if the other cannot be written
        printer.finished(result)
    finally:
        save(result, output)
    if fault:
        raise SnatRaceError(fault)
    require(limits, [("", result.summary, result.diagnosis)], as_json=as_json)


def _view(options: ClientSettings, remote: str) -> "ClientView | None":
    """Return a live view, if there is a terminal to draw it on."""
    from snat_race.report.live.panel import drawable
    from snat_race.report.live.views import ClientView

    console = drawable(sys.stdout)
    return ClientView(console, remote, options.workers) if console else None
