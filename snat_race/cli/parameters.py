"""The command line's vocabulary: each option once, with its name, variable and help."""

from pathlib import Path
from typing import Annotated

from typer import Option

from snat_race.cli import completion
from snat_race.lab.settings import Backend, Caches, Expect, Wiring
from snat_race.runs.settings import Close, Mode

RemoteAddr = Annotated[str, Option("--remote-addr", "-r", envvar="REMOTE_ADDR", help="HOST:PORT to dial.")]
Dialers = Annotated[
    int | None, Option("--workers", "-c", envvar="WORKERS", help="Dialers; by default one per usable CPU.")
]
GoRoutines = Annotated[int | None, Option("--go-routines", envvar="GO_ROUTINES", hidden=True)]
LocalIps = Annotated[
    list[str] | None,
    Option("--local-ip", "-l", envvar="LOCAL_IP", metavar="IP", help="Dial from this address; repeatable."),
]
TimeoutMs = Annotated[
    int, Option("--timeout-ms", "-t", envvar="TIMEOUT_MS", help="Give up a dial after this long.")
]
DialIntervalUs = Annotated[
    int,
    Option("--dial-interval-us", "-d", envvar="DIAL_INTERVAL_US", help="Between two dials; 0 is flat out."),
]
SummaryIntervalSec = Annotated[
    int,
    Option("--summary-interval-sec", "-s", envvar="SUMMARY_INTERVAL_S", help="Between two summaries."),
]
DialMode = Annotated[
    Mode, Option("--mode", help="Meet other clients by the clock, or dial as each worker likes.")
]
SourcePorts = Annotated[
    str | None,
    Option(
        "--source-ports", metavar="LOW-HIGH", help="Ports to meet on; by default the kernel's local range."
    ),
]
Lanes = Annotated[
    int | None,
    Option("--lanes", help="Ports used in a slot; all parties must agree. By default the host's CPUs."),
]
CloseBy = Annotated[Close, Option("--close", help="End dials by RST, or by FIN as the Go tool did.")]
RunFor = Annotated[str | None, Option("--duration", metavar="TIME", help="Stop after 10s, 2m, ...")]
Count = Annotated[str | None, Option("--count", metavar="N", help="Stop after N dials: 1000, 50k, ...")]
WarmUp = Annotated[str | None, Option("--warmup", metavar="TIME", help="Dial this long first, uncounted.")]
MaxErrorRate = Annotated[
    str | None, Option("--max-error-rate", metavar="SHARE", help="Exit 3 if more dials fail: 0.1%.")
]
MaxP99 = Annotated[
    str | None, Option("--max-p99", metavar="TIME", help="Exit 3 if a hundredth takes longer: 50ms.")
]
MaxRaceLosses = Annotated[
    int | None,
    Option(
        "--max-race-losses", metavar="N", help="Exit 3 if more SYNs are lost to the race; 4 if unknown."
    ),
]
NoPin = Annotated[bool, Option("--no-pin", help="Leave workers unpinned.")]
Output = Annotated[
    Path | None, Option("--output", "-o", metavar="FILE", help="Write the result to FILE as JSON.")
]
Json = Annotated[bool, Option("--json", help="Events as JSON on stdout, one a line; text on stderr.")]
Live = Annotated[
    bool,
    Option(
        "--live",
        help="Below the usual text, which is printed as ever, keep a panel of what happens now: rates, "
        "losses, latencies, each worker. On a terminal only.",
    ),
]

Netns = Annotated[
    str | None,
    Option(
        "--netns",
        metavar="PID|NAME|PATH|docker:CONTAINER",
        help="Look into this network namespace; by default into our own.",
    ),
]
WatchNetns = Annotated[
    list[str] | None,
    Option(
        "--watch-netns",
        metavar="PID|NAME|PATH|docker:CONTAINER",
        help="Read the counters of this namespace meanwhile, that of the NAT say; repeatable.",
    ),
]
Interval = Annotated[str, Option("--interval", "-i", metavar="TIME", help="Between two readings.")]
WatchFor = Annotated[
    str | None,
    Option("--duration", metavar="TIME", help="Stop after 10s, 2m, ...; by default on a signal."),
]
Prometheus = Annotated[
    str | None,
    Option("--prometheus", metavar="ADDR:PORT", help="Also serve the counters to Prometheus there."),
]

PlannedWorkers = Annotated[
    int, Option("--workers", "-c", help="How many dialers this host is to run; by default one per CPU.")
]
Apply = Annotated[bool, Option("--apply", help="Change the rules, and read them back.")]
Dump = Annotated[
    Path | None,
    Option(
        "--dump", metavar="FILE", help="Where --apply saves what --revert needs; by default in this folder."
    ),
]
Revert = Annotated[
    Path | None, Option("--revert", metavar="FILE", help="Put back what --apply changed, and nothing else.")
]

LocalAddr = Annotated[
    str,
    Option(
        "--local-addr", "-r", envvar="LOCAL_ADDR", help="HOST:PORT, [V6]:PORT or :LOW-HIGH to listen on."
    ),
]
Acceptors = Annotated[
    int | None,
    Option("--workers", "-c", envvar="WORKERS", help="Acceptors; by default one per usable CPU."),
]

ScenarioName = Annotated[
    str,
    Option(
        "--scenario",
        metavar="NAME",
        autocompletion=completion.scenarios,
        help="What to stage; --list names the scenarios.",
    ),
]
Variants = Annotated[
    list[str] | None,
    Option(
        "--variant",
        metavar="RULE",
        autocompletion=completion.variants,
        help="A rule to measure, the baseline first, or 'all'; repeatable.",
    ),
]
Rules = Annotated[
    list[str] | None,
    Option("--rule", metavar="COMMAND", help="Measure a rule of yours, 'iptables -t nat ...'; repeatable."),
]
NftFiles = Annotated[
    list[Path] | None, Option("--nft", metavar="FILE", help="Measure a ruleset of yours; repeatable.")
]
LoadedBy = Annotated[Backend, Option("--backend", help="What loads the rules that --variant names.")]
Containers = Annotated[
    int | None, Option("--containers", help="Clients behind the NAT, each with an address; 2.")
]
DialersEach = Annotated[
    int | None, Option("--workers", help="Dialers per container; by default the CPUs are shared out.")
]
WiredAs = Annotated[Wiring, Option("--topology", help="How the containers reach the NAT.")]
Cpus = Annotated[
    str | None, Option("--cpus", metavar="LIST", help="CPUs to pin dialers to, as 0,2-5; by default all.")
]
MeasureFor = Annotated[str, Option("--duration", metavar="TIME", help="Measure each rule this long.")]
IntervalUs = Annotated[
    int | None, Option("--interval-us", help="From one dial of a worker to its next; 1000.")
]
LabTimeoutMs = Annotated[
    int | None, Option("--timeout-ms", help="What is unanswered for this long is lost; 4, or 8 for UDP.")
]
Expected = Annotated[
    Expect | None,
    Option("--expect", help="Exit 3 unless every rule measured shows this; 4 if none can tell."),
]
Ktap = Annotated[
    bool, Option("--ktap", help="Print KTAP, as kernel tests do; expects no-race, unless told.")
]
MeasureWindow = Annotated[
    bool, Option("--window", help="Also measure the race window of the first rule; so does --variant all.")
]
HowWarm = Annotated[
    Caches,
    Option(
        "--caches", help="What precedes each dial: others through the NAT, others up to it, or nothing."
    ),
]
Seed = Annotated[
    int | None, Option("--seed", help="Repeat the source ports and offsets of the run that had this seed.")
]

FromResult = Annotated[
    Path | None, Option("--from", metavar="RESULT", help="A lab result that holds a window.")
]
WindowNs = Annotated[float | None, Option("--window-ns", help="The race window, if there is no result.")]
ForecastContainers = Annotated[int, Option("--containers", help="Clients behind one NAT address.")]
RatePerContainer = Annotated[
    float, Option("--rate-per-container", help="New connections a second of each.")
]
Destinations = Annotated[
    int, Option("--destinations", help="Different address:port that they dial, equally often.")
]
EphemeralPorts = Annotated[
    int | None, Option("--ports", help="Ports in ip_local_port_range; by default this machine's.")
]
SharedCpus = Annotated[
    int, Option("--cpus", help="CPUs the clients are spread over; 0: so many that none share one.")
]
