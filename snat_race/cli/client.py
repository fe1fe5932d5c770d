"""``client``: dial a server."""

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from snat_race.cli import help_text, parameters
from snat_race.cli.limits import measured_in, require
from snat_race.cli.parsing import naming
from snat_race.cli.result_writer import require_writable, save
from snat_race.errors import UsageError
from snat_race.runs.settings import LONGEST_TIMEOUT_MS, ClientSettings, Close, Mode
from snat_race.runs.signals import StopSignals

if TYPE_CHECKING:
    from snat_race.kernel.counters import CounterReader
    from snat_race.report.live.client_view import ClientView

EXAMPLES = help_text.examples(
    (
        "Dial a server beyond the NAT for 30 seconds, 1,000 times a second",
        "snat-race client -r 10.18.10.137:8080 -d 1000 --duration 30s",
    ),
    (
        "See the NAT's counters rise meanwhile, and keep the result",
        "snat-race client -r server:8080 --watch-netns 1 -o client.json",
    ),
    (
        "As the Go tool dialled, and fail if more than 0.1 % is lost",
        "snat-race client -r server:8080 --mode independent --close fin --count 50k --max-error-rate 0.1%",
    ),
)


def client(
    remote_addr: parameters.RemoteAddr = "127.0.0.1:8080",
    workers: parameters.Dialers = None,
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
    no_pin: parameters.NoPin = False,
    watch_netns: parameters.WatchNetns = None,
    max_error_rate: parameters.MaxErrorRate = None,
    max_p99: parameters.MaxP99 = None,
    max_race_losses: parameters.MaxRaceLosses = None,
    output: parameters.Output = None,
    json: parameters.Json = False,
    live: parameters.Live = False,
    quiet: parameters.QuietSummary = False,
) -> None:
    """Dial a server from every CPU, and summarise what became of the dials."""
    from snat_race.analysis.thresholds import Thresholds
    from snat_race.cli.events import ClientPrinter
    from snat_race.kernel import host
    from snat_race.runs import client, worker_placement

    if live and (json or quiet):
        raise UsageError("--live: draws where --json and --quiet want silence; give one of them")
    dialers = workers or len(host.usable_cpus())
    settings = ClientSettings(
        remote_addr=remote_addr,
        workers=dialers,
        local_ips=tuple(filter(None, local_ip or ())),  # an empty one is none, as the Go tool had it
        timeout_ms=timeout_ms or LONGEST_TIMEOUT_MS,  # the kernel gives up long before that
        dial_interval_us=dial_interval_us,
        summary_interval_sec=summary_interval_sec,
        mode=mode,
        source_ports=source_ports or host.local_port_range(),
        lanes=lanes or max(host.online_cpus(), dialers),
        close=close,
        duration_s=duration,
        count=count,
        warmup_s=warmup,
        pin=not no_pin,
        watch_netns=tuple(watch_netns or ()),
    )
    _check(settings)
    limits = Thresholds(error_rate=max_error_rate, p99_ns=max_p99, race_losses=max_race_losses)
    # An exit code that is asked for is that of the whole run, whoever reads what it prints.
    StopSignals.of_process().outlives_reader = bool(limits and (duration or count))
    with naming("--remote-addr"):
        remote = worker_placement.find_remote(remote_addr, settings.timeout_ms)
    with naming("--local-ip"):
        target = worker_placement.find_target(settings, remote)
    readers = _readers(settings.watch_netns)
    if output:
        require_writable(output)
    view = _view(remote.text, dialers) if live else None
    printer = ClientPrinter(summary_interval_sec, as_json=json, quiet=quiet, view=view)
    with view or nullcontext():
        result, fault = client.run(settings, target, readers, printer)
    try:  # first what would be lost
        save(result, output)
    finally:
        printer.finished(result)
    if fault:
        raise fault
    require(limits, measured_in(result), as_json=json)


def _check(settings: ClientSettings) -> None:
    """Check what concerns more than one option.

    Raises:
        UsageError: two options do not go together.

    """
    addresses = len(settings.local_ips)
    if addresses > settings.workers:
        raise UsageError(
            f"--workers: {settings.workers} cannot dial from {addresses} addresses; "
            f"give at least {addresses}"
        )
    if settings.mode is not Mode.rendezvous:
        return
    low, high = settings.source_ports
    needed = -(-settings.workers // max(1, addresses))
    if not settings.dial_interval_us:
        raise UsageError("--dial-interval-us: 0 (flat out) has no slots to meet in; add --mode independent")
    if settings.lanes < needed:
        raise UsageError(f"--lanes: {settings.workers} workers need at least {needed} lanes")
    if high - low + 1 < settings.lanes:
        raise UsageError(
            f"--source-ports: {low}-{high} has fewer ports than the {settings.lanes} lanes; widen it"
        )


def _readers(names: tuple[str, ...]) -> "list[CounterReader]":
    """Return what reads the counters of each namespace."""
    from snat_race.kernel import netns_lookup
    from snat_race.kernel.counters import CounterReader

    with naming("--watch-netns"):
        namespaces = netns_lookup.find_all(names)
    return [CounterReader(namespace) for namespace in namespaces]


def _view(remote: str, workers: int) -> "ClientView | None":
    """Return a live view, if there is a terminal to draw it on."""
    from snat_race.report.live.client_view import ClientView
    from snat_race.report.live.panel import drawable

    console = drawable(sys.stdout)
    return ClientView(console, remote, workers) if console else None
