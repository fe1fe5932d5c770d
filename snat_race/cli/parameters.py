"""The command line's vocabulary: each option and argument once, with its name, variable, range and help."""

import os
import sys
from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option
from typer.completion import get_completion_inspect_parameters, install_callback, show_callback

from snat_race import __version__
from snat_race.cli import parsing
from snat_race.cli.terminal import print_document
from snat_race.lab.settings import MOST_CONTAINERS, Backend, Caches, Expect, Wiring
from snat_race.runs.settings import LONGEST_TIMEOUT_MS, MOST_WORKERS, Close, Mode


class ReportFormat(StrEnum):
    """What a report looks like."""

    text = "text"
    markdown = "markdown"
    json = "json"
    csv = "csv"
    html = "html"
    hgrm = "hgrm"


class ComparisonFormat(StrEnum):
    """What a comparison looks like."""

    text = "text"
    markdown = "markdown"
    json = "json"


class FailIf(StrEnum):
    """Outcomes that may fail a comparison."""

    more = "more"
    fewer = "fewer"
    inconclusive = "inconclusive"


# What a shell offers for values that are no enum.


def _scenarios() -> list[tuple[str, str]]:
    from snat_race.lab.scenarios import SCENARIOS

    return [(scenario.name, scenario.description) for scenario in SCENARIOS.values()]


def _variants() -> list[tuple[str, str]]:
    from snat_race.lab.variants import ALL, VARIANTS

    named = {variant.name: variant.description for variant in VARIANTS.values()} | {ALL: "all of these"}
    # bash, which alone sets COMP_WORDS, inserts just that: outside quotes a space needs a backslash.
    words = os.environ.get("COMP_WORDS")
    bare = words is not None and words.rpartition("\n")[2][:1] not in ("'", '"')
    return [(name.replace(" ", r"\ ") if bare else name, about) for name, about in named.items()]


# Options that print something and end the program. A shell that completes what follows wants none of it.


def _print_version(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        print(f"snat-race {__version__}")
        raise typer.Exit


def _print_lab_listing(context: typer.Context, wanted: bool) -> None:
    from snat_race.lab.scenarios import SCENARIOS
    from snat_race.lab.variants import VARIANTS
    from snat_race.report.builders.lab_listing import document

    if wanted and not context.resilient_parsing:
        listing = document(
            VARIANTS.values(), SCENARIOS.values(), variant_option="--variant", scenario_option="--scenario"
        )
        print_document(listing, sys.stdout)
        raise typer.Exit


def _print_schema(context: typer.Context, wanted: bool) -> None:
    from snat_race.cli.result_reader import schema

    if wanted and not context.resilient_parsing:
        print(dumps(schema(), indent=1))
        raise typer.Exit


def know_shells() -> None:
    """Have typer register its shells, which it does only when it adds these options itself."""
    get_completion_inspect_parameters()


def _install_completion(context: typer.Context, parameter: typer.CallbackParam, wanted: bool) -> None:
    know_shells()
    install_callback(context, parameter, wanted)


def _show_completion(context: typer.Context, parameter: typer.CallbackParam, wanted: bool) -> None:
    know_shells()
    show_callback(context, parameter, wanted)


# The program itself

Version = Annotated[
    bool,
    Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version, and stop."),
]
InstallCompletion = Annotated[
    bool,
    Option(
        "--install-completion",
        callback=_install_completion,
        is_eager=True,
        help="Have this shell complete commands and options, and stop.",
    ),
]
ShowCompletion = Annotated[
    bool,
    Option(
        "--show-completion",
        callback=_show_completion,
        is_eager=True,
        help="Print what a shell needs to complete commands and options, and stop.",
    ),
]

# Several commands

Output = Annotated[
    Path | None, Option("--output", "-o", metavar="FILE", help="Write the result to FILE, as JSON.")
]
Json = Annotated[
    bool,
    Option("--json", help="Print events as JSON on stdout, one a line; text goes to stderr."),
]
Details = Annotated[
    bool,
    Option("--details", help="Also tell of latencies, of each period, and of how it was measured."),
]
QuietSummary = Annotated[
    bool, Option("--quiet", "-q", help="Print the summary at the end only, and warnings.")
]
QuietVerdict = Annotated[bool, Option("--quiet", "-q", help="Print the verdict only, and warnings.")]
MaxErrorRate = Annotated[
    float | None,
    Option(
        "--max-error-rate",
        metavar="SHARE",
        parser=parsing.share,
        help="Exit 3 if a larger share of dials fails, or connects late by a retransmit: 0.1%, 0.001.",
    ),
]
MaxP99 = Annotated[
    int | None,
    Option(
        "--max-p99",
        metavar="TIME",
        parser=parsing.duration_ns,
        help="Exit 3 if a hundredth of the dials takes longer: 50ms, 800us; a plain number is seconds.",
    ),
]
MaxRaceLosses = Annotated[
    int | None,
    Option(
        "--max-race-losses",
        metavar="N",
        min=0,
        help="Exit 3 if the race loses more SYNs than this; 4 if the cause of losses is not known.",
    ),
]
_NAMESPACE = "PID|NAME|PATH|docker:CONTAINER"
Netns = Annotated[
    str | None,
    Option("--netns", metavar=_NAMESPACE, help="Look into this network namespace; by default our own."),
]

# client, as the Go tool had it

RemoteAddr = Annotated[
    str,
    Option(
        "--remote-addr",
        "-r",
        metavar="HOST:PORT",
        envvar="REMOTE_ADDR",
        help="Dial this server. PORT is a number or a service's name.",
    ),
]
_WORKERS_VARIABLES = ["WORKERS", "GO_ROUTINES"]  # ours, then the Go tool's
GO_NAMES = {"--workers": ("--go-routines",)}  # options that the Go tool has by another name
Dialers = Annotated[
    int | None,
    Option(
        "--workers",
        "-c",
        metavar="N",
        min=1,
        max=MOST_WORKERS,
        envvar=_WORKERS_VARIABLES,
        help="Dial with this many processes; by default one per usable CPU.",
    ),
]
LocalIps = Annotated[
    list[str] | None,
    Option(
        "--local-ip",
        "-l",
        metavar="IP",
        envvar="LOCAL_IP",
        help="Dial from this address of the host; repeatable.",
    ),
]
TimeoutMs = Annotated[
    int,
    Option(
        "--timeout-ms",
        "-t",
        metavar="MS",
        min=0,
        max=LONGEST_TIMEOUT_MS,
        envvar="TIMEOUT_MS",
        help="Give up a dial after this long; 0: when the kernel does.",
    ),
]
DialIntervalUs = Annotated[
    int,
    Option(
        "--dial-interval-us",
        "-d",
        metavar="US",
        min=0,
        max=3_600_000_000,
        envvar="DIAL_INTERVAL_US",
        help="Time from one dial of a process to its next; 0: flat out, which takes --mode independent.",
    ),
]
SummaryIntervalSec = Annotated[
    int,
    Option(
        "--summary-interval-sec",
        "-s",
        metavar="SECONDS",
        min=1,
        max=86_400,
        envvar="SUMMARY_INTERVAL_S",
        help="Time between two summaries.",
    ),
]

# client, what we add

DialMode = Annotated[
    Mode,
    Option(
        "--mode",
        metavar="|".join(Mode),
        help="Meet other clients by the clock, or dial each for itself as the Go tool did.",
    ),
]
SourcePorts = Annotated[
    parsing.PortRange | None,
    Option(
        "--source-ports",
        metavar="LOW-HIGH",
        parser=parsing.port_range,
        help="Ports to meet on; by default the kernel's ip_local_port_range.",
    ),
]
Lanes = Annotated[
    int | None,
    Option(
        "--lanes",
        metavar="N",
        min=1,
        max=65_535,
        help="Ports used in a slot. All parties must agree; by default the host's CPUs, or --workers.",
    ),
]
CloseBy = Annotated[
    Close,
    Option("--close", metavar="|".join(Close), help="End a dial by RST, or by FIN as the Go tool did."),
]
RunFor = Annotated[
    parsing.Seconds | None,
    Option(
        "--duration",
        metavar="TIME",
        parser=parsing.duration_s,
        help="Stop after 10s, 1m30s, 1.5h; by default on a signal.",
    ),
]
Count = Annotated[
    int | None,
    Option("--count", metavar="N", parser=parsing.count, help="Stop after N dials: 1000, 50k, 2M."),
]
WarmUp = Annotated[
    parsing.Seconds | None,
    Option("--warmup", metavar="TIME", parser=parsing.duration_s, help="Dial this long first, uncounted."),
]
Live = Annotated[
    bool,
    Option(
        "--live",
        help="Keep a panel below the usual text, on a terminal: rates, losses, latencies, each worker.",
    ),
]
NoPin = Annotated[bool, Option("--no-pin", help="Let the kernel move the processes from CPU to CPU.")]
WatchNetns = Annotated[
    list[str] | None,
    Option(
        "--watch-netns",
        metavar=_NAMESPACE,
        help="Read the counters of this network namespace meanwhile, such as the NAT's; repeatable.",
    ),
]

# server

LocalAddr = Annotated[
    str,
    Option(
        "--local-addr",
        "-r",
        metavar="HOST:PORT",
        envvar="LOCAL_ADDR",
        help="Listen there. [V6]:PORT and a range of ports, :8080-8087, are understood too.",
    ),
]
Acceptors = Annotated[
    int | None,
    Option(
        "--workers",
        "-c",
        metavar="N",
        min=1,
        max=MOST_WORKERS,
        envvar=_WORKERS_VARIABLES,
        help="Accept with this many processes; by default one per usable CPU.",
    ),
]

# lab

ScenarioName = Annotated[
    str,
    Option(
        "--scenario",
        metavar="NAME",
        autocompletion=_scenarios,
        help="What to stage; --list names the scenarios.",
    ),
]
Variants = Annotated[
    list[str] | None,
    Option(
        "--variant",
        metavar="RULE",
        autocompletion=_variants,
        help="A rule to measure, the baseline first, or 'all'; repeatable. --list names them.",
    ),
]
Rules = Annotated[
    list[str] | None,
    Option("--rule", metavar="COMMAND", help="Measure a rule of yours: 'iptables -t nat ...'; repeatable."),
]
NftFiles = Annotated[
    list[Path] | None, Option("--nft", metavar="FILE", help="Measure a ruleset of yours; repeatable.")
]
LoadedBy = Annotated[
    Backend,
    Option("--backend", metavar="|".join(Backend), help="What loads the rules that --variant names."),
]
Containers = Annotated[
    int | None,
    Option(
        "--containers",
        metavar="N",
        min=1,
        max=MOST_CONTAINERS,
        help="Clients behind the NAT, each with an address of its own: 2 or more, or 1 with the scenario "
        "dns; by default 2.",
    ),
]
DialersEach = Annotated[
    int | None,
    Option(
        "--workers",
        metavar="N",
        min=1,
        max=MOST_WORKERS,
        help="Processes that dial per container; by default the CPUs are shared out.",
    ),
]
WiredAs = Annotated[
    Wiring, Option("--topology", metavar="|".join(Wiring), help="How the containers reach the NAT.")
]
Cpus = Annotated[
    parsing.CpuList | None,
    Option(
        "--cpus",
        metavar="LIST",
        parser=parsing.cpu_list,
        help="CPUs to pin the processes to, as 0,2-5; by default all.",
    ),
]
MeasureFor = Annotated[
    parsing.Seconds,
    Option("--duration", metavar="TIME", parser=parsing.duration_s, help="Measure each rule this long."),
]
IntervalUs = Annotated[
    int | None,
    Option(
        "--interval-us",
        metavar="US",
        min=100,
        max=60_000_000,
        help="Time from one dial of a process to its next; by default 1000.",
    ),
]
LabTimeoutMs = Annotated[
    int | None,
    Option(
        "--timeout-ms",
        metavar="MS",
        min=1,
        max=900,
        help="A dial not answered for this long is lost; by default 4, or 8 for UDP.",
    ),
]
Expected = Annotated[
    Expect | None,
    Option(
        "--expect",
        metavar="|".join(Expect),
        help="Exit 3 if any rule measured shows the contrary; 4 if any cannot tell.",
    ),
]
Ktap = Annotated[
    bool,
    Option("--ktap", help="Print KTAP, as kernel tests do. It expects no race, unless --expect says more."),
]
MeasureWindow = Annotated[
    bool,
    Option("--window", help="Measure the race window of the first rule too, as --variant all does."),
]
HowWarm = Annotated[
    Caches,
    Option(
        "--caches",
        metavar="|".join(Caches),
        help="What warms the caches before each dial. hot: dials through the NAT; warm: dials that end "
        "before it; cold: nothing.",
    ),
]
ByPackets = Annotated[
    bool,
    Option("--trace", help="Also prove each loss by its packets, as 'snat-race trace' does; of TCP only."),
]
Seed = Annotated[
    int | None,
    Option(
        "--seed",
        metavar="N",
        min=0,
        max=(1 << 32) - 1,
        help="Repeat the source ports and offsets of the run that had this seed.",
    ),
]
ListThem = Annotated[
    bool,
    Option(
        "--list",
        callback=_print_lab_listing,
        is_eager=True,
        help="Explain variants and scenarios, and stop.",
    ),
]

# forecast

FromResult = Annotated[
    Path | None, Option("--from", metavar="RESULT", help="A lab's result that holds a window.")
]
WindowNs = Annotated[
    float | None,
    Option(
        "--window-ns",
        metavar="NS",
        parser=parsing.above_zero,
        help="The race window, if there is no result.",
    ),
]
ForecastContainers = Annotated[
    int,
    Option("--containers", metavar="N", min=2, max=1_000_000, help="Clients behind one NAT address."),
]
RatePerContainer = Annotated[
    float,
    Option(
        "--rate-per-container",
        metavar="N",
        parser=parsing.above_zero,
        help="New connections a second of each client.",
    ),
]
Destinations = Annotated[
    int,
    Option(
        "--destinations",
        metavar="N",
        min=1,
        max=1_000_000_000,
        help="Different address:port that they dial, equally often.",
    ),
]
EphemeralPorts = Annotated[
    int | None,
    Option(
        "--ports",
        metavar="N",
        min=1,
        max=65_535,
        help="Ports in a client's ip_local_port_range; by default as many as in this machine's.",
    ),
]
SharedCpus = Annotated[
    int,
    Option(
        "--cpus",
        metavar="N",
        min=0,
        max=1_000_000,
        help="CPUs the clients are spread over; 0: so many that no two clients share one.",
    ),
]

# watch

Interval = Annotated[
    parsing.Seconds,
    Option(
        "--interval",
        "-i",
        metavar="TIME",
        parser=parsing.duration_s,
        help="Time between two readings, 10ms to 24h.",
    ),
]
Prometheus = Annotated[
    str | None,
    Option(
        "--prometheus",
        metavar="ADDR:PORT",
        help="Also serve the counters to Prometheus there; at :PORT, to this host only.",
    ),
]

# trace

To = Annotated[
    parsing.Destination | None,
    Option(
        "--to",
        metavar="ADDR[:PORT]",
        parser=parsing.destination,
        help="Count only SYNs for this address, before or behind a DNAT.",
    ),
]
TraceInterval = Annotated[
    parsing.Seconds,
    Option(
        "--interval",
        "-i",
        metavar="TIME",
        parser=parsing.duration_s,
        help="Time between two lines about SYNs without a winner, 100ms to 24h.",
    ),
]
LossCount = Annotated[
    int | None,
    Option(
        "--count",
        metavar="N",
        parser=parsing.count,
        help="Stop after N SYNs that lost the race: 1, 50, 1k.",
    ),
]
RingSize = Annotated[
    int,
    Option("--ring", metavar="MIB", min=1, max=1024, help="Memory for SYNs that nobody has read yet."),
]

# doctor and mitigate

PlannedWorkers = Annotated[
    int | None,
    Option(
        "--workers",
        "-c",
        metavar="N",
        min=1,
        max=MOST_WORKERS,
        help="How many processes are to dial on this host; by default one per CPU.",
    ),
]
Apply = Annotated[bool, Option("--apply", help="Change the rules, and read them back.")]
TcpOnly = Annotated[
    bool,
    Option(
        "--tcp-only",
        help="Leave UDP its ports, for calls, games and VPNs of peers: put a rule for TCP in front of each "
        "exposed one.",
    ),
]
Dump = Annotated[
    Path | None,
    Option(
        "--dump",
        metavar="FILE",
        help="Where --apply saves what --revert needs; by default in this folder. In a container, name a "
        "file on a mount.",
    ),
]
Revert = Annotated[
    Path | None, Option("--revert", metavar="FILE", help="Put back what --apply changed, and nothing else.")
]

# report and compare

Results = Annotated[
    list[Path], Argument(metavar="FILE...", help="Results: files of --output, or streams of --json.")
]
ReportAs = Annotated[
    ReportFormat, Option("--format", metavar="|".join(ReportFormat), help="What to make of the results.")
]
ReportOutput = Annotated[
    Path | None, Option("--output", "-o", metavar="FILE", help="Write to FILE; by default to stdout.")
]
OneVariant = Annotated[
    str | None,
    Option("--variant", metavar="NAME", help="The rule whose latencies --format hgrm shows."),
]
Schema = Annotated[
    bool,
    Option(
        "--schema",
        callback=_print_schema,
        is_eager=True,
        help="Print the JSON Schema of results, and stop.",
    ),
]
ComparedResults = Annotated[
    list[Path], Argument(metavar="BASE OTHER...", help="Results of the same kind, the baseline first.")
]
CompareAs = Annotated[
    ComparisonFormat, Option("--format", metavar="|".join(ComparisonFormat), help="What to make of them.")
]
FailIfAny = Annotated[
    list[FailIf] | None,
    Option(
        "--fail-if",
        metavar="|".join(FailIf),
        help="Exit 3 if any result has this outcome against the baseline; repeatable.",
    ),
]
