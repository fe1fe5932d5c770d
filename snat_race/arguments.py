"""The command line's vocabulary: each option once, with its name, variable and help."""

from pathlib import Path
from typing import Annotated

from typer import Option

from snat_race.options import Close, Mode

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
NoPin = Annotated[bool, Option("--no-pin", help="Leave workers unpinned.")]
Output = Annotated[
    Path | None, Option("--output", "-o", metavar="FILE", help="Write the result to FILE as JSON.")
]
Json = Annotated[bool, Option("--json", help="Events as JSON on stdout, one a line; text on stderr.")]

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

Containers = Annotated[int, Option("--containers", help="Clients behind the NAT, each with an address.")]
DialersEach = Annotated[
    int | None, Option("--workers", help="Dialers per container; by default the CPUs are shared out.")
]
MeasureFor = Annotated[str, Option("--duration", metavar="TIME", help="Measure each rule this long.")]
IntervalUs = Annotated[int, Option("--interval-us", help="From one dial of a worker to its next.")]
LabTimeoutMs = Annotated[int, Option("--timeout-ms", help="A SYN unanswered for this long is lost.")]
Variants = Annotated[
    list[str] | None,
    Option(
        "--variant",
        metavar="RULE",
        help="'masquerade' or 'masquerade fully-random', the baseline first; repeatable.",
    ),
]
