"""``make forecast-check``: does the forecast hold? Compares predicted losses with those observed.

Two containers dial independently, ``client --mode independent`` with ``-d 190`` and ``-d 210``, so
that they drift past each other, from so few ephemeral ports that they agree often enough by chance.
Such clients sleep before each dial, so the window is measured, in between, with cold caches. The
range is Poisson's 95 % of the lowest to the highest end of the windows' intervals: a machine's window
changes by more from run to run than within one.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import poisson

from snat_race.analysis.forecast import Traffic, lost_per_s
from snat_race.kernel import counters, host
from snat_race.kernel.netns import enter_sandbox
from snat_race.lab.settings import Backend
from snat_race.lab.topology import IPV4, Topology, build
from snat_race.lab.variant_loader import VariantLoader
from snat_race.lab.variants import variant_named
from snat_race.load.endpoint import Endpoint
from snat_race.load.servers import TcpServer

PORT, LOWEST = 8080, 32768
SIZES = (16, 32, 64)  # of the range of ephemeral ports
TURNS = (SIZES, SIZES[::-1])
DIAL_S = 15
INTERVALS_US = (190, 210)
WINDOW = ["-m", "snat_race", "lab", "--window", "--caches", "cold", "--duration", "3s", "--json"]
OBSERVE = "--observe"  # what this script is started with to observe one size
# A port is free again at once, as it is in ordinary traffic by the time it comes round.
FREE_AT_ONCE = ("netfilter/nf_conntrack_tcp_timeout_close", 0)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What two clients did, and what they lost."""

    dials: int
    rates_per_s: list[float]  # of each client
    elapsed_s: float
    insert_failed: int


def main() -> None:
    """Print the windows, then a row for each size of the port range."""
    windows = [measured_window()]
    observed: dict[int, list[Observation]] = {size: [] for size in SIZES}
    for sizes in TURNS:
        for size in sizes:
            observed[size].append(Observation(**run_python([__file__, OBSERVE, str(size)])))
        windows.append(measured_window())
    low = min(window["window_ns_ci95"][0] for window in windows)
    high = max(window["window_ns_ci95"][1] for window in windows)
    mean = sum(window["window_ns"] for window in windows) / len(windows)
    values = ", ".join(f"{window['window_ns']:,.0f}" for window in windows)
    print(f"window, ns: {values} mean {mean:,.0f}")
    print(f"{'ports':>5}{'dials':>11}{'predicted':>11}{'range':>16}{'observed':>10}{'ratio':>7}")
    for size, observations in observed.items():
        print_row(size, observations, (low, mean, high))


def print_row(size: int, observations: list[Observation], windows_ns: tuple[float, float, float]) -> None:
    """Print what was observed of a size, and what windows of the low, mean and high length predict."""
    fewest, expected, most = (
        sum(predicted(observation, size, window_ns) for observation in observations)
        for window_ns in windows_ns
    )
    interval = f"{poisson.ppf(0.025, fewest):.0f} to {poisson.ppf(0.975, most):.0f}"
    dials = sum(observation.dials for observation in observations)
    lost = sum(observation.insert_failed for observation in observations)
    print(f"{size:>5}{dials:>11,}{expected:>11.1f}{interval:>16}{lost:>10,}{lost / expected:>7.2f}")


def predicted(observation: Observation, size: int, window_ns: float) -> float:
    """Return the losses that the forecast expects of two containers at the rates observed."""
    one, other = observation.rates_per_s
    traffic = Traffic(containers=2, rate_per_s=(one * other) ** 0.5, ports=size)
    return observation.elapsed_s * lost_per_s(window_ns, traffic, traffic.same_ephemeral_port)


def measured_window() -> dict[str, Any]:
    """Measure the race window."""
    window: dict[str, Any] = run_python(WINDOW)["window"]
    return window


def run_python(arguments: list[str]) -> dict[str, Any]:
    """Run Python in a process of its own, which takes its namespaces with it; return its JSON."""
    finished = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
    )
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def observe(size: int) -> Observation:
    """Dial from two containers with ``size`` ephemeral ports each."""
    enter_sandbox()
    topology = build(2)
    VariantLoader(topology.source, IPV4, "tcp", Backend.netlink).load(variant_named("masquerade"))
    topology.source.sysctl(*FREE_AT_ONCE)
    for container in topology.containers:
        container.sysctl("ipv4/ip_local_port_range", f"{LOWEST} {LOWEST + size - 1}")
    with topology.destination.entered():
        server = TcpServer(Endpoint(IPV4.destination_ip, PORT, PORT), [None], batch_ms=20)
        server.__enter__()
    before = counters.read_conntrack(topology.source)
    with tempfile.TemporaryDirectory() as folder:
        summaries = dial(topology, Path(folder))
    rose = counters.difference(counters.read_conntrack(topology.source), before)
    server.stop()
    return Observation(
        dials=sum(summary["attempted"] for summary in summaries),
        rates_per_s=[summary["rate_per_s"] for summary in summaries],
        elapsed_s=min(summary["elapsed_s"] for summary in summaries),
        insert_failed=sum(rose["insert_failed"]),
    )


def dial(topology: Topology, folder: Path) -> list[dict[str, Any]]:
    """Run a client in each container, each on a CPU of its own; return their summaries."""
    clients = []
    outputs = []
    for container, cpu, interval_us in zip(
        topology.containers, host.usable_cpus(), INTERVALS_US, strict=False
    ):
        output = folder / f"{interval_us}.json"
        client = [sys.executable, "-m", "snat_race", "client", "-r", f"{IPV4.destination_ip}:{PORT}"]
        dialling = ["-c", "1", "--mode", "independent", "-d", str(interval_us), "-t", "4"]
        ending = ["--duration", f"{DIAL_S}s", "-o", str(output)]
        with container.entered():
            clients.append(
                subprocess.Popen(
                    ["taskset", "-c", str(cpu), *client, *dialling, *ending], stdout=subprocess.DEVNULL
                )
            )
        outputs.append(output)
    for process in clients:
        process.wait(timeout=DIAL_S + 20)
    return [json.loads(output.read_text())["summary"] for output in outputs]


if __name__ == "__main__":
    if OBSERVE in sys.argv:
        print(json.dumps(asdict(observe(int(sys.argv[-1])))))
    else:
        main()
