"""``make bench``: what the dialer costs compared with C, and how steadily the lab provokes the race.

Everything runs in private namespaces on this machine, interleaved; the figures to quote are the medians
and the ratio. The C dialers run in a process of their own, which this script starts with ``--c``.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from snat_race.kernel import counters, host
from snat_race.kernel.netns import enter_sandbox
from snat_race.lab.settings import Backend
from snat_race.lab.topology import IPV4, Topology, build
from snat_race.lab.variant_loader import VariantLoader
from snat_race.lab.variants import variant_named
from snat_race.load.dialer_config import DialerConfig, Exchange
from snat_race.load.dialer_pool import DialerPool, Placement
from snat_race.load.endpoint import Endpoint
from snat_race.load.servers import TcpServer

PORT = 8080
ROUNDS = 15
ROUND_S = 1.0
LAB_RUNS = 10
PAIR_S, INTERVAL_US = 2.0, 1000
REMOTE = [IPV4.destination_ip, str(PORT)]
C_PAIR = "--c"  # what this script is started with to run a pair of C dialers


def main() -> None:
    """Print the yield of the lab, then the dial rates."""
    with tempfile.TemporaryDirectory() as folder:
        dial_loop = compiled(Path(folder))
        measure_yield(dial_loop)
        if dial_loop:
            measure_dial_rate(dial_loop)


def compiled(folder: Path) -> Path | None:
    """Compile the C dialer; without a compiler, say so and return None."""
    compiler = shutil.which("cc")
    if not compiler:
        print("C: skipped, there is no compiler: sudo apt-get install gcc")
        return None
    program, source = folder / "dial_loop", Path(__file__).with_name("dial_loop.c")
    subprocess.run([compiler, "-O2", "-Wall", "-o", str(program), str(source)], check=True)
    return program


def set_up(stack: ExitStack, containers: int) -> Topology:
    """Set up containers behind a plain masquerade, and a server beyond it."""
    enter_sandbox()
    topology = build(containers)
    VariantLoader(topology.source, IPV4, "tcp", Backend.netlink).load(variant_named("masquerade"))
    with topology.destination.entered():
        server = TcpServer(Endpoint(IPV4.destination_ip, PORT, PORT), [None], batch_ms=20)
        stack.enter_context(server)
    return topology


def measure_dial_rate(dial_loop: Path) -> None:
    """Compare one worker, flat out, with a C loop of the same system calls."""
    python_rates: list[float] = []
    c_rates: list[float] = []
    with ExitStack() as stack:
        topology, cpu = set_up(stack, 1), host.usable_cpus()[0]
        container = topology.containers[0]
        config = DialerConfig(
            family=socket.AF_INET,
            remote=(IPV4.destination_ip, PORT),
            timeout_ms=500,
            exchange=Exchange.tcp_rst,
        )
        placement = Placement(config=config, cpus=(cpu,), prepare=container.enter)
        pool = stack.enter_context(DialerPool([placement], lambda: False))
        for number in range(ROUNDS):
            for rates in (python_rates, c_rates) if number % 2 else (c_rates, python_rates):
                counters.flush_conntrack(topology.source)
                if rates is python_rates:
                    dials = python_dials(pool)
                else:
                    dials = c_dials(dial_loop, container.enter, cpu)
                rates.append(dials / ROUND_S)
    ratios = [python / c for python, c in zip(python_rates, c_rates, strict=True)]
    print_row("dial rate, python, /s", python_rates, ",.0f")
    print_row("dial rate, c, /s", c_rates, ",.0f")
    print_row("dial rate, python/c", ratios, ".3f")


def python_dials(pool: DialerPool) -> int:
    """Return how many dials the pool made in a round."""
    before = pool.counts()
    for _ in pool.round(ROUND_S, every_s=0.25):
        pass
    return pool.counts().since(before).attempted


def c_dials(dial_loop: Path, enter: Callable[[], None], cpu: int) -> int:
    """Return how many dials the C loop made in a round."""
    finished = subprocess.run(
        [str(dial_loop), *REMOTE, str(ROUND_S)],
        preexec_fn=partial(move_to, enter, cpu),
        capture_output=True,
        check=True,
        text=True,
    )
    dials, failed, _ = map(int, finished.stdout.split())
    if failed:
        sys.exit(f"{failed} of the C loop's dials failed; the comparison is void")
    return dials


def move_to(enter: Callable[[], None], cpu: int) -> None:
    """Move this process to a container and a CPU."""
    enter()
    os.sched_setaffinity(0, {cpu})


def measure_yield(dial_loop: Path | None) -> None:
    """Run the lab as a user would, several times, and a pair of C dialers in the same slots after each."""
    collided, collided_c, lost_per_s, elapsed_s = [], [], [], []
    for _ in range(LAB_RUNS):
        result = json.loads(run_python("-m", "snat_race", "lab", "--json"))
        racing = result["variants"][0]["summary"]
        collided.append(racing["collisions"] / max(1, racing["paired"]))
        lost_per_s.append(racing["failed"] / racing["elapsed_s"])
        elapsed_s.append(result["elapsed_s"])
        for variant in result["variants"]:
            clashes = sum(variant["kernel"]["source"]["insert_failed"])
            failed = variant["summary"]["failed"]
            if failed != clashes or (clashes and variant["summary"] is not racing):
                print(f"{variant['name']}: {failed} lost, insert_failed +{clashes}")
        if dial_loop:
            collided_c.append(float(run_python(__file__, C_PAIR, str(dial_loop))))
    print_row("collisions/paired", collided, ".3f")
    if collided_c:
        print_row("collisions/paired, c", collided_c, ".3f")
    print_row("SYNs lost a second", lost_per_s, ".0f")
    print_row("lab, seconds", elapsed_s, ".2f")


def run_python(*arguments: str) -> str:
    """Run Python in a process of its own; return what it prints."""
    finished = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
    )
    return finished.stdout


def c_pair(dial_loop: Path) -> float:
    """Return the collisions per paired slot of two C dialers that spin until the slot."""
    command = [str(dial_loop), *REMOTE, str(PAIR_S), str(INTERVAL_US)]
    with ExitStack() as stack:
        topology = set_up(stack, 2)
        dialers = [
            subprocess.Popen(
                command,
                preexec_fn=partial(move_to, container.enter, cpu),
                stdout=subprocess.PIPE,
                text=True,
            )
            for container, cpu in zip(topology.containers, host.usable_cpus(), strict=False)
        ]
        # Each prints a line for each slot: its number, and 1 if the dial failed.
        one, other = (
            dict(line.split() for line in dialer.communicate()[0].splitlines()) for dialer in dialers
        )
    paired = one.keys() & other.keys()
    return sum(one[slot] != "0" or other[slot] != "0" for slot in paired) / max(1, len(paired))


def print_row(name: str, values: list[float], form: str) -> None:
    """Print the median, the extremes and the number of values."""
    median, lowest, highest = statistics.median(values), min(values), max(values)
    print(
        f"{name:<22} median {median:>8{form}}  min {lowest:{form}}  max {highest:{form}}  n {len(values)}"
    )


if __name__ == "__main__":
    if C_PAIR in sys.argv:
        print(c_pair(Path(sys.argv[-1])))
    else:
        main()
