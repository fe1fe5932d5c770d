"""``make bench``: what the dialer costs beside C, and how steadily the lab provokes the race.

Everything runs in private namespaces on this machine, side by side and interleaved; the figures
to quote are the medians and the ratio. C's part runs in a process of its own, ``--c``.
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
from snat_race.lab import variants
from snat_race.lab.settings import Backend
from snat_race.lab.topology import IPV4, Topology, build
from snat_race.lab.variant_loader import VariantLoader
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


def main() -> None:
    """Print the yield rows, then the dial-rate rows."""
    with tempfile.TemporaryDirectory() as folder:
        loop = compiled(Path(folder))
        yields(loop)
        if loop:
            dial_rate(loop)


def compiled(folder: Path) -> Path | None:
    """Compile the yardstick; None, and a word about it, without a compiler."""
    compiler = shutil.which("cc")
    if not compiler:
        print("C: skipped, there is no compiler: sudo apt-get install gcc")
        return None
    loop, source = folder / "dial_loop", Path(__file__).with_name("dial_loop.c")
    subprocess.run([compiler, "-O2", "-Wall", "-o", str(loop), str(source)], check=True)
    return loop


def stage(stack: ExitStack, containers: int) -> Topology:
    """Set up containers behind a plain masquerade, and a server beyond it."""
    enter_sandbox()
    hosts = build(containers)
    VariantLoader(hosts.source, IPV4, "tcp", Backend.netlink).load(variants.VARIANTS["masquerade"])
    with hosts.destination.entered():
        server = TcpServer(Endpoint(IPV4.destination_ip, PORT, PORT), [None], batch_ms=20)
        stack.enter_context(server)
    return hosts


def dial_rate(loop: Path) -> None:
    """Compare one worker, flat out, with a C loop of the same system calls."""
    python: list[float] = []
    c: list[float] = []
    with ExitStack() as stack:
        hosts, cpu = stage(stack, 1), host.usable_cpus()[0]
        container = hosts.containers[0]
        config = DialerConfig(
            family=socket.AF_INET,
            remote=(IPV4.destination_ip, PORT),
            timeout_ms=500,
            exchange=Exchange.tcp_rst,
        )
        placement = Placement(config=config, cpus=(cpu,), prepare=container.enter)
        pool = stack.enter_context(DialerPool([placement], lambda: False))
        for number in range(ROUNDS):
            for turn in (python, c) if number % 2 else (c, python):
                counters.flush_conntrack(hosts.source)
                if turn is python:
                    before = pool.counts()
                    for _ in pool.round(ROUND_S, every_s=0.25):
                        pass
                    python.append(pool.counts().since(before).attempted / ROUND_S)
                else:
                    c.append(c_dials(loop, container.enter, cpu) / ROUND_S)
    ratios = [ours / theirs for ours, theirs in zip(python, c, strict=True)]
    row("dial rate, python, /s", python, ",.0f")
    row("dial rate, c, /s", c, ",.0f")
    row("dial rate, python/c", ratios, ".3f")


def c_dials(loop: Path, enter: Callable[[], None], cpu: int) -> int:
    """Return how many dials the C loop made in a round."""
    command = [str(loop), *REMOTE, str(ROUND_S)]
    settled = partial(settle, enter, cpu)
    done = subprocess.run(command, preexec_fn=settled, capture_output=True, check=True, text=True)
    dials, failed, _ = map(int, done.stdout.split())
    if failed:
        sys.exit(f"{failed} of the C loop's dials failed; the comparison is void")
    return dials


def settle(enter: Callable[[], None], cpu: int) -> None:
    """Move this process to a container and a CPU."""
    enter()
    os.sched_setaffinity(0, {cpu})


def yields(loop: Path | None) -> None:
    """Run the lab as a user would, several times, and a C pair of the same slots after each."""
    shares, c_shares, lost, wall = [], [], [], []
    for _ in range(LAB_RUNS):
        result = json.loads(run("-m", "snat_race", "lab", "--json"))
        racing = result["variants"][0]["summary"]
        shares.append(racing["collisions"] / max(1, racing["paired"]))
        lost.append(racing["failed"] / racing["elapsed_s"])
        wall.append(result["elapsed_s"])
        for variant in result["variants"]:
            rose = sum(variant["kernel"]["source"]["insert_failed"])
            if variant["summary"]["failed"] != rose or (rose and variant["summary"] is not racing):
                print(f"{variant['name']}: {variant['summary']['failed']} lost, insert_failed +{rose}")
        if loop:
            c_shares.append(float(run(__file__, "--c", str(loop))))
    row("collisions/paired", shares, ".3f")
    if c_shares:
        row("collisions/paired, c", c_shares, ".3f")
    row("SYNs lost a second", lost, ".0f")
    row("lab, seconds", wall, ".2f")


def run(*arguments: str) -> str:
    """Run Python in a process of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
    )
    return done.stdout


def c_pair(loop: Path) -> float:
    """Return the collisions per paired slot of two C dialers that spin until the slot."""
    command = [str(loop), *REMOTE, str(PAIR_S), str(INTERVAL_US)]
    with ExitStack() as stack:
        hosts = stage(stack, 2)
        dialers = [
            subprocess.Popen(
                command, preexec_fn=partial(settle, container.enter, cpu), stdout=subprocess.PIPE, text=True
            )
            for container, cpu in zip(hosts.containers, host.usable_cpus(), strict=False)
        ]
        one, other = (
            dict(line.split() for line in dialer.communicate()[0].splitlines()) for dialer in dialers
        )
    paired = one.keys() & other.keys()
    return sum(one[slot] != "0" or other[slot] != "0" for slot in paired) / max(1, len(paired))


def row(name: str, values: list[float], form: str) -> None:
    """Print the median, the extremes and the number of values."""
    median, lowest, highest = statistics.median(values), min(values), max(values)
    print(
        f"{name:<22} median {median:>8{form}}  min {lowest:{form}}  max {highest:{form}}  n {len(values)}"
    )


if __name__ == "__main__":
    if "--c" in sys.argv:
        print(c_pair(Path(sys.argv[-1])))
    else:
        main()
