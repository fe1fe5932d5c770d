"""``make bench``: what the dialer costs beside C, and how steadily the lab provokes the race.

Everything runs in private namespaces on this machine, side by side and interleaved; the figures
to quote are the medians and the ratio.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from snat_race.kernel import counters, host, nat
from snat_race.kernel.choices import Backend
from snat_race.kernel.firewall import Firewall
from snat_race.kernel.namespaces import enter_sandbox
from snat_race.kernel.topology import IPV4, Topology, build
from snat_race.load.endpoint import Endpoint
from snat_race.load.exchange import DialPlan, Exchange
from snat_race.load.fleet import Berth, Fleet
from snat_race.load.listener import Server

PORT = 8080
ROUNDS = 15
ROUND_S = 1.0
LAB_RUNS = 10


def main() -> None:
    """Print the dial-rate rows, then the yield rows."""
    dial_rate()
    yields()


def dial_rate() -> None:
    """Compare one worker, flat out, with a C loop of the same system calls."""
    compiler = shutil.which("cc")
    if not compiler:
        print("dial rate: skipped, there is no C compiler: sudo apt-get install gcc")
        return
    with tempfile.TemporaryDirectory() as folder:
        loop = Path(folder) / "dial_loop"
        source = Path(__file__).with_name("dial_loop.c")
        subprocess.run([compiler, "-O2", "-Wall", "-o", str(loop), str(source)], check=True)
        enter_sandbox()
        hosts = build(1)
        Firewall(hosts.source, IPV4, "tcp", Backend.netlink).install(nat.VARIANTS["masquerade"])
        cpus = host.usable_cpus()
        with ExitStack() as stack:
            with hosts.destination.entered():
                server = Server(Endpoint(IPV4.destination_ip, PORT, PORT), [cpus[-1]])
                stack.enter_context(server)
            rates = _interleaved(loop, hosts, cpus[0])
    ratios = [python / c for python, c in zip(*rates, strict=True)]
    for name, values in zip(("python", "c"), rates, strict=True):
        print(f"dial rate {name:<7} median {statistics.median(values):>9,.0f}/s  " + _span(values, ",.0f"))
    print(f"dial rate python/c median {statistics.median(ratios):.3f}    " + _span(ratios, ".3f"))


def _interleaved(loop: Path, hosts: Topology, cpu: int) -> tuple[list[float], list[float]]:
    python: list[float] = []
    c: list[float] = []
    plan = DialPlan(socket.AF_INET, (IPV4.destination_ip, PORT), None, 500, Exchange.tcp_rst, 0)
    container = hosts.containers[0]
    with Fleet([Berth(plan, cpu, container.enter)], lambda: False) as fleet:
        for number in range(ROUNDS):
            for turn in (python, c) if number % 2 else (c, python):
                counters.flush_conntrack(hosts.source)
                if turn is python:
                    before = fleet.tally()
                    for _ in fleet.round(ROUND_S, every_s=0.25):
                        pass
                    python.append(fleet.tally().since(before).attempted / ROUND_S)
                else:
                    c.append(_c_dials(loop, container.enter, cpu) / ROUND_S)
    return python, c


def _c_dials(loop: Path, enter: object, cpu: int) -> int:
    def settle() -> None:
        enter()  # type: ignore[operator]
        os.sched_setaffinity(0, {cpu})

    command = [str(loop), IPV4.destination_ip, str(PORT), str(ROUND_S)]
    done = subprocess.run(command, preexec_fn=settle, capture_output=True, check=True, text=True)
    dials, failed, _ = map(int, done.stdout.split())
    if failed:
        sys.exit(f"{failed} of the C loop's dials failed; the comparison is void")
    return dials


def yields() -> None:
    """Run the lab as a user would, several times, and show collisions per paired dial."""
    shares, lost, wall = [], [], []
    for _ in range(LAB_RUNS):
        command = [sys.executable, "-m", "snat_race", "lab", "--json"]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        result = json.loads(done.stdout)
        racing = result["variants"][0]["summary"]
        shares.append(racing["collisions"] / max(1, racing["paired"]))
        lost.append(racing["failed"] / racing["elapsed_s"])
        wall.append(result["elapsed_s"])
        for variant in result["variants"]:
            rose = sum(variant["kernel"]["source"]["insert_failed"])
            if variant["summary"]["failed"] != rose or (rose and variant["summary"] is not racing):
                print(f"{variant['name']}: {variant['summary']['failed']} lost, insert_failed +{rose}")
    print(f"collisions/paired  median {statistics.median(shares):.3f}  " + _span(shares, ".3f"))
    print(f"SYNs lost a second median {statistics.median(lost):.0f}  " + _span(lost, ".0f"))
    print(f"lab, seconds       median {statistics.median(wall):.2f}  " + _span(wall, ".2f"))


def _span(values: list[float], form: str) -> str:
    return f"min {min(values):{form}}  max {max(values):{form}}  n {len(values)}"


if __name__ == "__main__":
    main()
