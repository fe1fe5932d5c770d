"""``make forecast-check``: does the forecast hold? Predicted losses beside those observed.

Two containers dial independently, ``client --mode independent`` with ``-d 190`` and ``-d 210`` so
that they drift past each other, from so few ephemeral ports that they agree often enough by chance.
Such clients sleep before each dial, so the window is measured, in between, with cold caches. The
range is Poisson's 95 % of the lowest to the highest end of the windows' intervals: a machine's window
changes by more from run to run than within one.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scipy.stats import poisson

from snat_race.analysis.forecast import Traffic, lost_per_s
from snat_race.kernel import counters, host
from snat_race.kernel.netns import enter_sandbox
from snat_race.lab import variants
from snat_race.lab.settings import Backend
from snat_race.lab.topology import IPV4, Topology, build
from snat_race.lab.variant_loader import VariantLoader
from snat_race.load.endpoint import Endpoint
from snat_race.load.servers import TcpServer

PORT, LOWEST = 8080, 32768
SIZES = (16, 32, 64)
TURNS = (SIZES, SIZES[::-1])
DIAL_S = 15
INTERVALS_US = (190, 210)
WINDOW = ["lab", "--window", "--caches", "cold", "--duration", "3s", "--json"]
OBSERVE = "--observe"
# A port is free again at once, as it is in ordinary traffic by the time it comes round.
FORGET_AT_ONCE = ("netfilter/nf_conntrack_tcp_timeout_close", 0)


def main() -> None:
    """Print the windows, then a row for each size of the port range."""
    windows = [window()]
    observed: dict[int, list[dict[str, Any]]] = {size: [] for size in SIZES}
    for turn in TURNS:
        for size in turn:
            observed[size].append(run([__file__, OBSERVE, str(size)]))
        windows.append(window())
    bounds = [each["window_ns_ci95"] for each in windows]
    low, high = min(bound[0] for bound in bounds), max(bound[1] for bound in bounds)
    window_ns = sum(each["window_ns"] for each in windows) / len(windows)
    print(
        "window, ns:", ", ".join(f"{each['window_ns']:,.0f}" for each in windows), f"mean {window_ns:,.0f}"
    )
    print(f"{'ports':>5}{'dials':>11}{'predicted':>11}{'range':>16}{'observed':>10}{'ratio':>7}")
    for size, rounds in observed.items():
        expected = [sum(predicted(each, size, ns) for each in rounds) for ns in (low, window_ns, high)]
        interval = poisson.ppf(0.025, expected[0]), poisson.ppf(0.975, expected[2])
        lost = sum(each["insert_failed"] for each in rounds)
        print(
            f"{size:>5}{sum(each['dials'] for each in rounds):>11,}{expected[1]:>11.1f}"
            f"{f'{interval[0]:.0f} to {interval[1]:.0f}':>16}{lost:>10,}{lost / expected[1]:>7.2f}"
        )


def predicted(observation: dict[str, Any], size: int, window_ns: float) -> float:
    """Return the losses that the forecast expects of two containers at the rates observed."""
    one, other = observation["rates_per_s"]
    traffic = Traffic(containers=2, rate_per_s=(one * other) ** 0.5, ports=size)
    return observation["elapsed_s"] * lost_per_s(window_ns, traffic, traffic.same_ephemeral_port)


def window() -> dict[str, Any]:
    """Measure the race window."""
    found: dict[str, Any] = run(["-m", "snat_race", *WINDOW])["window"]
    return found


def run(arguments: list[str]) -> dict[str, Any]:
    """Run Python in a process of its own, which takes its namespaces with it; return its JSON."""
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def observe(size: int) -> dict[str, Any]:
    """Dial from two containers with ``size`` ephemeral ports each."""
    enter_sandbox()
    hosts = build(2)
    VariantLoader(hosts.source, IPV4, "tcp", Backend.netlink).load(variants.VARIANTS["masquerade"])
    hosts.source.sysctl(*FORGET_AT_ONCE)
    for container in hosts.containers:
        container.sysctl("ipv4/ip_local_port_range", f"{LOWEST} {LOWEST + size - 1}")
    with hosts.destination.entered():
        server = TcpServer(Endpoint(IPV4.destination_ip, PORT, PORT), [None], batch_ms=20)
        server.__enter__()
    before = counters.read_conntrack(hosts.source)
    with tempfile.TemporaryDirectory() as folder:
        summaries = dial(hosts, Path(folder))
    rise = counters.difference(counters.read_conntrack(hosts.source), before)
    server.stop()
    return {
        "dials": sum(each["attempted"] for each in summaries),
        "rates_per_s": [each["rate_per_s"] for each in summaries],
        "elapsed_s": min(each["elapsed_s"] for each in summaries),
        "insert_failed": sum(rise["insert_failed"]),
    }


def dial(hosts: Topology, folder: Path) -> list[dict[str, Any]]:
    """Run a client in each container, each on a CPU of its own; return their summaries."""
    clients = []
    load = ["-c", "1", "--mode", "independent", "-t", "4", "--duration", f"{DIAL_S}s"]
    places = zip(hosts.containers, host.usable_cpus(), INTERVALS_US, strict=False)
    for number, (container, cpu, interval_us) in enumerate(places):
        command = ["taskset", "-c", str(cpu), sys.executable, "-m", "snat_race", "client", *load]
        command += [
            "-r",
            f"{IPV4.destination_ip}:{PORT}",
            "-d",
            str(interval_us),
            "-o",
            str(folder / str(number)),
        ]
        with container.entered():
            clients.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    for client in clients:
        client.wait(timeout=DIAL_S + 20)
    return [json.loads((folder / str(number)).read_text())["summary"] for number in range(len(clients))]


if __name__ == "__main__":
    if OBSERVE in sys.argv:
        print(json.dumps(observe(int(sys.argv[-1]))))
    else:
        main()
