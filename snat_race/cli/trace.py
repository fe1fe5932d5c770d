"""``trace``: who loses the race to whom, proven by packets."""

from snat_race.cli import help_text, parameters
from snat_race.cli.parsing import Seconds, namespace
from snat_race.cli.result_writer import require_writable, save
from snat_race.errors import EnvironmentLacks, UsageError
from snat_race.runs.settings import TraceSettings

EXAMPLES = help_text.examples(
    ("Name the victims on this host, as they lose", "sudo $(which snat-race) trace"),
    ("Trace one server for ten minutes", "sudo $(which snat-race) trace --to 10.0.0.1:8080 --duration 10m"),
    ("Trace the host from a container with --pid host", "snat-race trace --netns 1 -o trace.json"),
)


def trace(
    netns: parameters.Netns = None,
    to: parameters.To = None,
    interval: parameters.TraceInterval = Seconds(1),  # noqa: B008
    duration: parameters.RunFor = None,
    count: parameters.LossCount = None,
    ring: parameters.RingSize = 32,
    output: parameters.Output = None,
    json: parameters.Json = False,
    quiet: parameters.QuietVerdict = False,
) -> None:
    """Name each SYN that loses the race, and the one that it loses to: seen on every device, on its way."""
    from snat_race.cli.events import TracePrinter
    from snat_race.kernel.counters import CounterReader
    from snat_race.runs import trace

    if not 0.1 <= interval <= 86_400:
        raise UsageError(f"--interval: {interval} is out of range; give 100ms to 24h")
    settings = TraceSettings(
        netns=netns,
        to=to,
        interval_s=interval,
        duration_s=duration,
        count=count,
        ring_mib=ring,
    )
    if output:
        require_writable(output)
    reader = CounterReader(namespace(netns))
    printer = TracePrinter(as_json=json, quiet=quiet)
    result, ended_early = trace.run(settings, reader, printer)
    try:  # first what would be lost
        save(result, output)
    finally:
        printer.finished(result)
    if ended_early:
        raise EnvironmentLacks(f"{ended_early}; what was seen until then is right")
