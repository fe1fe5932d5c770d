"""``watch``: a node's conntrack and TCP counters as they rise."""

import sys
from json import dumps
from typing import TYPE_CHECKING

from snat_race.cli import parameters
from snat_race.cli.parsing import parse_duration_s, parsed
from snat_race.cli.result_writer import require_writable, save
from snat_race.errors import EnvironmentLacks
from snat_race.runs.settings import WatchSettings

if TYPE_CHECKING:
    from snat_race.kernel.counters import Node
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
    from snat_race.kernel.counters import Node
    from snat_race.report.live.watch_table import closing

    options = WatchSettings(
        netns=netns,
        interval_s=parse_duration_s(interval, "--interval"),
        duration_s=parsed(parse_duration_s, duration, "--duration"),
    )
    if output:
        require_writable(output)
    node = Node(netns_lookup.find(netns, "--netns") if netns is not None else netns_lookup.here())
    if prometheus:
        _serve(node, prometheus)
    _say_what_is_read(node)
    result, fault = _run(options, node, output is not None, as_json=json)
    save(result, output)
    if json:
        print(dumps({"event": "result"} | result.model_dump(mode="json")), flush=True)
    else:
        print(closing(result))
    if fault:
        raise EnvironmentLacks(f"{fault}; what was counted until then is right")


def _run(options: WatchSettings, node: "Node", keep: bool, *, as_json: bool) -> "tuple[WatchResult, str]":
    from snat_race.report.live.watch_table import LivePrinter, print_line, suits_a_live_table
    from snat_race.runs import watch

    if as_json:
        return watch.run(options, node, _event, keep=keep, started=_start_event)
    if not suits_a_live_table():
        return watch.run(options, node, print_line, keep=keep)
    with LivePrinter(f"{node.namespace.name}, by {node.source}") as printer:
        return watch.run(options, node, printer, keep=keep)


def _start_event(head: "Started") -> None:
    print(dumps(head.model_dump(mode="json")), flush=True)


def _event(lap: "CounterDelta") -> None:
    from snat_race.results.model import SCHEMA_VERSION

    print(
        dumps({"event": "period", "schema_version": SCHEMA_VERSION} | lap.model_dump(mode="json")),
        flush=True,
    )


def _say_what_is_read(node: "Node") -> None:
    """Say how the counters are read, and warn where they cannot show the NAT."""
    from snat_race.kernel import netns_lookup

    if node.why_not_netlink:
        print(
            f"reading {node.source}, for netlink says '{node.why_not_netlink}' (it takes CAP_NET_ADMIN, "
            "in a container --user 0 too)",
            file=sys.stderr,
        )
    if container := netns_lookup.container(node.namespace):
        print(
            f"warning: {container}; the NAT's counters are those of the host: run there, or with --netns 1 "
            "in a container with --pid host",
            file=sys.stderr,
        )


def _serve(node: "Node", text: str) -> None:
    from snat_race.load.endpoint import Endpoint
    from snat_race.report.live.prometheus import Exporter

    endpoint = Endpoint.parse(text, "--prometheus", "127.0.0.1")
    Exporter(node.read).serve(endpoint.host, endpoint.low)
