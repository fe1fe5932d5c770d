"""``watch``: a node's conntrack and TCP counters as they rise."""

import sys
from typing import TYPE_CHECKING

from snat_race.cli import help_text, parameters
from snat_race.cli.parsing import Seconds, namespace, naming
from snat_race.cli.result_writer import require_writable, save
from snat_race.errors import EnvironmentLacks, UsageError
from snat_race.runs.settings import WatchSettings

if TYPE_CHECKING:
    from snat_race.kernel.counters import CounterReader

EXAMPLES = help_text.examples(
    ("Watch this host, a line each second", "sudo $(which snat-race) watch"),
    ("Watch the host from a container with --pid host", "snat-race watch --netns 1 --interval 500ms"),
    (
        "Watch for ten minutes, and keep what was seen",
        "sudo $(which snat-race) watch --duration 10m -o watch.json",
    ),
)


def watch(
    netns: parameters.Netns = None,
    interval: parameters.Interval = Seconds(1),  # noqa: B008
    duration: parameters.RunFor = None,
    output: parameters.Output = None,
    json: parameters.Json = False,
    prometheus: parameters.Prometheus = None,
    quiet: parameters.QuietVerdict = False,
) -> None:
    """Show what conntrack and TCP count, as it rises, on each CPU: 'conntrack -S' as differences."""
    from snat_race.cli.events import WatchPrinter
    from snat_race.kernel.counters import CounterReader
    from snat_race.runs import watch

    if not 0.01 <= interval <= 86_400:
        raise UsageError(f"--interval: {interval} is out of range; give 10ms to 24h")
    settings = WatchSettings(netns=netns, interval_s=interval, duration_s=duration)
    if output:
        require_writable(output)
    reader = CounterReader(namespace(netns))
    if prometheus:
        _serve(reader, prometheus)
    _say_what_is_read(reader)
    title = f"{reader.namespace.name}, by {reader.read_from}"
    with WatchPrinter(title, as_json=json, quiet=quiet) as printer:
        result, ended_early = watch.run(settings, reader, printer, on_start=printer.started)
    try:  # first what would be lost
        save(result, output)
    finally:
        printer.finished(result)
    if isinstance(ended_early, EnvironmentLacks):
        raise EnvironmentLacks(f"{ended_early}; what was counted until then is right")
    if ended_early:
        raise ended_early


def _say_what_is_read(reader: "CounterReader") -> None:
    """Say how the counters are read."""
    if reader.netlink_refusal:
        print(
            f"reading {reader.read_from}, because netlink says '{reader.netlink_refusal}' "
            "(it takes CAP_NET_ADMIN, in a container --user 0 too)",
            file=sys.stderr,
        )


def _serve(reader: "CounterReader", text: str) -> None:
    from snat_race.load.endpoint import Endpoint
    from snat_race.report.live.prometheus import Exporter

    with naming("--prometheus"):
        endpoint = Endpoint.parse(text, "127.0.0.1")
        Exporter(reader.read).serve(endpoint.host, endpoint.low)
