"""``watch``: a node's conntrack and TCP counters as they rise."""

import sys
from json import dumps
from typing import TYPE_CHECKING

from snat_race.cli import parameters
from snat_race.cli.parsing import naming, parse_duration_s, parsed
from snat_race.cli.result_writer import require_writable, save
from snat_race.errors import EnvironmentLacks
from snat_race.runs.settings import WatchSettings

if TYPE_CHECKING:
    from snat_race.kernel.counters import CounterReader
    from snat_race.results.counters import CounterDelta
    from snat_race.results.schema import Started, WatchResult


def watch(
    netns: parameters.Netns = None,
    interval: parameters.Interval = "1s",
    duration: parameters.WatchFor = None,
    output: parameters.Output = None,
    json: parameters.Json = False,
    prometheus: parameters.Prometheus = None,
) -> None:
    """Show what conntrack and TCP count, as it rises, on each CPU: 'conntrack -S' as differences."""
    from snat_race.kernel import netns_lookup
    from snat_race.kernel.counters import CounterReader
    from snat_race.report.live.watch_table import closing

    options = WatchSettings(
        netns=netns,
        interval_s=parse_duration_s(interval, "--interval"),
        duration_s=parsed(parse_duration_s, duration, "--duration"),
    )
    if output:
        require_writable(output)
    with naming("--netns"):
        namespace = netns_lookup.here() if netns is None else netns_lookup.find(netns)
    reader = CounterReader(namespace)
    if prometheus:
        _serve(reader, prometheus)
    _say_what_is_read(reader)
    result, ended_early = _run(options, reader, output is not None, as_json=json)
    save(result, output)
    if json:
        print(dumps({"event": "result"} | result.model_dump(mode="json")), flush=True)
    else:
        print(closing(result))
    if ended_early:
        raise EnvironmentLacks(f"{ended_early}; what was counted until then is right")


def _run(
    options: WatchSettings, reader: "CounterReader", keep: bool, *, as_json: bool
) -> "tuple[WatchResult, EnvironmentLacks | None]":
    from snat_race.report.live.watch_table import LivePrinter, print_line, suits_a_live_table
    from snat_race.runs import watch

    if as_json:
        return watch.run(options, reader, _event, keep_periods=keep, on_start=_start_event)
    if not suits_a_live_table():
        return watch.run(options, reader, print_line, keep_periods=keep)
    with LivePrinter(f"{reader.namespace.name}, by {reader.source}") as printer:
        return watch.run(options, reader, printer, keep_periods=keep)


def _start_event(head: "Started") -> None:
    print(dumps(head.model_dump(mode="json")), flush=True)


def _event(lap: "CounterDelta") -> None:
    from snat_race.results.model import SCHEMA_VERSION

    print(
        dumps({"event": "period", "schema_version": SCHEMA_VERSION} | lap.model_dump(mode="json")),
        flush=True,
    )


def _say_what_is_read(reader: "CounterReader") -> None:
    """Say how the counters are read, and warn where they cannot show the NAT."""
    from snat_race.kernel import netns_lookup
    from snat_race.report.wording.findings import of_container

    if reader.netlink_refusal:
        print(
            f"reading {reader.source}, because netlink says '{reader.netlink_refusal}' "
            "(it takes CAP_NET_ADMIN, in a container --user 0 too)",
            file=sys.stderr,
        )
    if device := netns_lookup.container_device(reader.namespace):
        hint = of_container(reader.namespace.name, device)
        print(
            f"warning: {hint}; the NAT's counters are those of the host: run there, or with --netns 1 "
            "in a container with --pid host",
            file=sys.stderr,
        )


def _serve(reader: "CounterReader", text: str) -> None:
    from snat_race.load.endpoint import Endpoint
    from snat_race.report.live.prometheus import Exporter

    with naming("--prometheus"):
        endpoint = Endpoint.parse(text, "127.0.0.1")
    Exporter(reader.read).serve(endpoint.host, endpoint.low)
