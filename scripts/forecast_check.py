"""``make forecast-check``: does the forecast hold? Predicted against observed losses.

Two containers dial flat out and independently, from so few ephemeral ports that they agree often
enough by chance. The window is measured before and after; the rates are those observed.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from scipy.stats import poisson

from snat_race.analysis.forecast import lost_per_s, same_ephemeral_port
from snat_race.kernel import counters, host, nat
from snat_race.kernel.choices import Backend
from snat_race.kernel.firewall import Firewall
from snat_race.kernel.namespaces import enter_sandbox
from snat_race.kernel.topology import IPV4, Topology, build
from snat_race.load.endpoint import Endpoint
from snat_race.load.listener import Server

PORT = 8080
SIZES = (32, 64, 128)
DURATION_S = 10


def main() -> None:
    """Print a row for each size of the port range."""
    before = window()
    rows = [subprocess_row(size) for size in SIZES]
    after = window()
    windows = [before, after]
    low, high = min(w["window_ns_ci95"][0] for w in windows), max(w["window_ns_ci95"][1] for w in windows)
    window_ns = sum(w["window_ns"] for w in windows) / 2
    print(
        f"window {before['window_ns']:.0f} ns before, {after['window_ns']:.0f} ns after; used {window_ns:.0f} ns"
    )
    print(
        f"{'ports':>6}{'dials':>10}{'rate A':>9}{'rate B':>9}{'predicted':>11}{'95 % interval':>16}{'observed':>10}{'insert_failed':>15}"
    )
    for size, row in zip(SIZES, rows, strict=True):
        a, b = row["rates"]
        pair = (a * b) ** 0.5
        expected = [
            row["elapsed_s"] * lost_per_s(w, 2, pair, same_ephemeral_port(size))
            for w in (low, window_ns, high)
        ]
        lowest, highest = poisson.ppf(0.025, expected[0]), poisson.ppf(0.975, expected[2])
        print(
            f"{size:>6}{row['dials']:>10,}{a:>9,.0f}{b:>9,.0f}{expected[1]:>11.1f}"
            f"{f'{lowest:.0f} - {highest:.0f}':>16}{row['lost']:>10,}{row['insert_failed']:>15,}"
        )


def window() -> dict:
    """Measure the race window."""
    command = [sys.executable, "-m", "snat_race", "lab", "--window", "--json"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return json.loads(done.stdout)["window"]


def subprocess_row(size: int) -> dict:
    """Observe one size in a process of its own, which then leaves its namespaces."""
    command = [sys.executable, __file__, "--observe", str(size)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def observe(size: int) -> dict:
    """Dial flat out from two containers with ``size`` ephemeral ports each."""
    enter_sandbox()
    hosts = build(2)
    Firewall(hosts.source, IPV4, "tcp", Backend.netlink).install(nat.VARIANTS["masquerade"])
    # A port is free again at once, as in ordinary traffic, where it rarely comes back in time.
    hosts.source.sysctl("netfilter/nf_conntrack_tcp_timeout_close", 0)
    for container in hosts.containers:
        container.sysctl("ipv4/ip_local_port_range", f"32768 {32768 + size - 1}")
    with hosts.destination.entered():
        server = Server(Endpoint(IPV4.destination_ip, PORT, PORT), [None], batch_ms=20)
        server.__enter__()
    before, tcp = counters.read_conntrack(hosts.source), counters.read_tcp(hosts.destination)
    with tempfile.TemporaryDirectory() as folder:
        results = run_clients(hosts, Path(folder))
    rise = counters.rise(counters.read_conntrack(hosts.source), before)
    server.stop()
    met = counters.rise(counters.read_tcp(hosts.destination), tcp)
    print({k: v for k, v in met.items() if v[0]}, file=sys.stderr)
    summaries = [each["summary"] for each in results]
    return {
        "dials": sum(each["attempted"] for each in summaries),
        "rates": [each["rate_per_s"] for each in summaries],
        "elapsed_s": min(each["elapsed_s"] for each in summaries),
        "lost": sum(each["errors"].get("TIMEOUT", 0) for each in summaries),
        "errors": [each["errors"] for each in summaries],
        "insert_failed": sum(rise["insert_failed"]),
    }


def run_clients(hosts: Topology, folder: Path) -> list[dict]:
    """Run a client in each container, each on a CPU of its own; return their results."""
    clients = []
    for number, (container, cpu) in enumerate(zip(hosts.containers, host.usable_cpus(), strict=False)):
        command = [
            "taskset",
            "-c",
            str(cpu),
            sys.executable,
            "-m",
            "snat_race",
            "client",
            "-r",
            f"{IPV4.destination_ip}:{PORT}",
            "-c",
            "1",
            "--mode",
            "independent",
            "-d",
            "0",
            "-t",
            "4",
            "--duration",
            f"{DURATION_S}s",
            "--output",
            str(folder / f"{number}.json"),
        ]
        with container.entered():
            clients.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    for client in clients:
        client.wait(timeout=DURATION_S + 20)
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(len(clients))]


if __name__ == "__main__":
    if "--observe" in sys.argv:
        print(json.dumps(observe(int(sys.argv[-1]))))
    else:
        main()
