"""``make soak``: run everything that runs for long, side by side, and see whether anything grows or drifts.

In private namespaces, behind a plain masquerade: a pair of clients that meet, a client that dials flat out,
one with the live view on a terminal, a watch of the NAT, and the server. Meanwhile ``tests.faults`` tries
seeded faults, elsewhere. Once a second each process tells its memory and its descriptors.

Exits 1 if a process grew by more than ``MOST_GROWTH_MB`` after the first minute, or keeps more descriptors;
if a dial or a slot is not accounted for; if the losses are not what the kernel counted, or the connections
not what the server accepted; or if a trial failed.
"""

import argparse
import json
import os
import pty
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil

from snat_race.kernel import counters
from snat_race.kernel.host import usable_cpus
from snat_race.kernel.netns import Namespace, enter_sandbox
from snat_race.lab.settings import Backend
from snat_race.lab.topology import IPV4, Topology, build
from snat_race.lab.variant_loader import VariantLoader
from snat_race.lab.variants import variant_named

MOST_GROWTH_MB = 2.0
MOST_DRIFT_S = 2.0  # workers begin a little later than their run; the last dial may outlast it
SETTLE_S = 60.0  # memory counts from then on
WINDOW = 15  # samples that count as the begin, and as the end
MB = 1 << 20
TIMEOUT_MS = 900  # less than a SYN waits until it is sent again, and more than a busy machine takes
INTERVAL_US = 1000
MEETING, FLAT_OUT, LIVE = (f"{IPV4.destination_ip}:{port}" for port in (8080, 8081, 8082))
GRACE_S = 300.0  # for a run to start and to end by itself, on a busy machine


class Sample(NamedTuple):
    """What one process held at an instant."""

    at_s: float  # since the start
    rss: int  # bytes
    pss: int  # bytes; what is shared counts in parts
    descriptors: int


@dataclass(slots=True)
class Run:
    """One command of ours, and what its processes held each second."""

    name: str
    process: subprocess.Popen[bytes]
    result: Path | None  # that it writes
    errors: Path  # what it prints on stderr
    samples: dict[int, list[Sample]] = field(default_factory=dict)  # by process, the command's first

    def sample(self, at_s: float) -> None:
        """Ask each of its processes; one that is gone just now has nothing more to say."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            for process in (first, *first.children(recursive=True)):
                with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    memory = process.memory_full_info()
                    taken = Sample(at_s, memory.rss, memory.pss, process.num_fds())
                    self.samples.setdefault(process.pid, []).append(taken)

    def summary(self) -> dict[str, Any]:
        """Return the summary of a client's result."""
        summary: dict[str, Any] = json.loads(self.result.read_text())["summary"] if self.result else {}
        return summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What became of one process from the end of the first minute to the end."""

    name: str
    rss_mb: tuple[float, ...]  # at the begin, after each quarter, at the end
    grown_pss_mb: float  # PSS, which also grows when others end that had the same pages
    descriptors: tuple[int, int]  # at the begin and at the end, when fewest were open
    most_descriptors: int  # at any time: a dial, or a reading of counters, has some for a moment

    @property
    def grown_mb(self) -> float:
        """How much RSS grew."""
        return self.rss_mb[-1] - self.rss_mb[0]

    @property
    def wrong(self) -> str:
        """What is wrong with it; "" if nothing."""
        if self.grown_mb > MOST_GROWTH_MB:
            return f"grew by {self.grown_mb:.1f} MB"
        began, ended = self.descriptors
        return "" if ended <= began else f"had {began} descriptors, and has {ended}"


def growth(name: str, samples: Sequence[Sample], settle_s: float) -> Growth | None:
    """Compare a process's first samples after ``settle_s`` with its last; None if it was too short."""
    settled = [sample for sample in samples if sample.at_s >= settle_s]
    if len(settled) < 2 * WINDOW:
        return None
    rss, pss = ([getattr(sample, kind) / MB for sample in settled] for kind in ("rss", "pss"))
    quarters = [(len(settled) - WINDOW) * quarter // 4 for quarter in range(5)]
    descriptors = [sample.descriptors for sample in settled]
    return Growth(
        name=name,
        rss_mb=tuple(statistics.median(rss[at : at + WINDOW]) for at in quarters),
        grown_pss_mb=statistics.median(pss[-WINDOW:]) - statistics.median(pss[:WINDOW]),
        descriptors=(min(descriptors[:WINDOW]), min(descriptors[-WINDOW:])),
        most_descriptors=max(descriptors),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to start, and where."""

    name: str
    arguments: Sequence[str]
    namespace: Namespace | None = None  # None: that of the soak itself
    cpus: Sequence[int] = ()  # empty: any
    result: bool = True  # whether it writes one
    terminal: bool = False  # whether it prints on one


class Soak:
    """The hosts, and what runs in them. A context manager: what was started ends with it."""

    def __init__(self, duration_s: float, folder: Path) -> None:
        self._duration_s = duration_s
        self._folder = folder
        self.runs: list[Run] = []

    def __enter__(self) -> Self:
        enter_sandbox()
        self.topology: Topology = build(4)
        VariantLoader(self.topology.source, IPV4, "tcp", Backend.netlink).load(variant_named("masquerade"))
        self._before = self._kernel()
        return self

    def __exit__(self, *_: object) -> None:
        for run in self.runs:
            if run.process.poll() is None:
                run.process.kill()
            run.process.wait()

    def start(self) -> None:
        """Start everything, the server first."""
        hosts = self.topology
        listening = ["server", "-r", f"{IPV4.destination_ip}:8080-8082"]
        server = Command(name="server", arguments=listening, namespace=hosts.destination, result=False)
        self._start(server)
        self._await_server()
        for command in self._commands():
            self._start(command)

    def _commands(self) -> Iterator[Command]:
        """Yield what runs beside the server; each ends by itself."""
        first, second, third, fourth = self.topology.containers
        cpus = usable_cpus()
        source = f"/proc/{os.getpid()}/fd/{self.topology.source.fd}"
        watched = ["--watch-netns", source]
        until = ["--duration", f"{self._duration_s:.0f}s"]
        client = ["client", "-c", "1", "-t", str(TIMEOUT_MS), *until]
        alone = [*client, "--mode", "independent"]
        meeting = [*client, "-r", MEETING, "--lanes", "1", "-d", str(INTERVAL_US), *watched]
        yield Command(name="watch", arguments=["watch", "--netns", source, *until])
        yield Command(name="meeting, first", arguments=meeting, namespace=first, cpus=cpus[:1])
        yield Command(name="meeting, second", arguments=meeting, namespace=second, cpus=cpus[-1:])
        yield Command(name="flat out", arguments=[*alone, "-r", FLAT_OUT, "-d", "0"], namespace=third)
        live = [*alone, "-r", LIVE, "-d", "2000", "--live", *watched]
        yield Command(name="live", arguments=live, namespace=fourth, terminal=True)

    def watch_over(self, settle_s: float) -> Iterator[Growth]:
        """Sample once a second until all but the server have ended; yield what became of each process."""
        began_s = time.monotonic()
        limited = self.runs[1:]
        while any(run.process.poll() is None for run in limited):
            at_s = time.monotonic() - began_s
            if at_s > self._duration_s + GRACE_S:
                break
            if at_s < self._duration_s:  # then they end, each when it is ready
                for run in self.runs:
                    run.sample(at_s)
            time.sleep(max(0.0, began_s + int(at_s) + 1 - time.monotonic()))
        for run in self.runs:
            for number, samples in enumerate(run.samples.values()):
                name = f"{run.name}, worker {number}" if number else run.name
                if grown := growth(name, samples, settle_s):
                    yield grown

    def accepted(self) -> int:
        """End the server as a person would; return how many connections it says it accepted."""
        server = self.runs[0].process
        server.send_signal(signal.SIGINT)
        server.wait(GRACE_S)
        said = self._server_said()
        return int(said.partition("Accepted ")[2].partition(" ")[0].replace(",", ""))

    def complaints(self) -> Iterator[str]:
        """Yield which commands did not end as they should."""
        for run in self.runs:
            code = run.process.poll()
            if code != 0:
                yield f"{run.name}: exit code {code}: {run.errors.read_text()[-500:].strip()}"

    def kernel_counted(self) -> dict[str, int]:
        """Return what the NAT and the destination counted since the begin."""
        return {name: count - self._before[name] for name, count in self._kernel().items()}

    def _kernel(self) -> dict[str, int]:
        source = counters.read_conntrack(self.topology.source)
        tcp = counters.read_tcp(self.topology.destination)
        counted = {name: sum(source.get(name, [])) for name in ("insert_failed", "drop")}
        return counted | {name: sum(tcp[name]) for name in ("ListenDrops", "PassiveOpens")}

    def _await_server(self) -> None:
        while "Ready to accept" not in self._server_said():
            if self.runs[0].process.poll() is not None:
                sys.exit(self.runs[0].errors.read_text())
            time.sleep(0.05)

    def _server_said(self) -> str:
        return (self._folder / "server.out").read_text()

    def _start(self, command: Command) -> None:
        stem = self._folder / command.name.replace(", ", "-").replace(" ", "-")
        result = stem.with_suffix(".json") if command.result else None
        saved = ["-o", str(result)] if result else []
        with stem.with_suffix(".out").open("wb") as printed, stem.with_suffix(".err").open("wb") as errors:
            output = _terminal() if command.terminal else os.dup(printed.fileno())
            process = subprocess.Popen(
                [sys.executable, "-m", "snat_race", *command.arguments, *saved],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output if command.terminal else errors,
                preexec_fn=partial(_move, command.namespace, command.cpus),
                env=os.environ | {"TERM": "xterm-256color", "LINES": "40", "COLUMNS": "120"},
            )
            os.close(output)
        self.runs.append(Run(command.name, process, result, stem.with_suffix(".err")))


def _terminal() -> int:
    """Return the end of a terminal that a program prints on; somebody reads the other."""
    master, slave = pty.openpty()
    threading.Thread(target=_read_all, args=(master,), daemon=True).start()
    return slave


def _read_all(master: int) -> None:
    with suppress(OSError):  # EIO: the last process has closed the other end
        while os.read(master, 1 << 16):
            pass
    os.close(master)


def _move(namespace: Namespace | None, cpus: Sequence[int]) -> None:
    if namespace:
        namespace.enter()
    if cpus:
        os.sched_setaffinity(0, cpus)


def unaccounted(name: str, summary: dict[str, Any]) -> Iterator[str]:
    """Yield what of a client's dials does not add up."""
    recorded = summary["connected"] + summary["failed"]
    kept = recorded + summary["overruns"] + summary["cut_short"]
    if summary["attempted"] != kept:
        yield f"{name}: {summary['attempted']:,} dials, but {kept:,} are accounted for"
    if sum(summary["errors"].values()) != summary["failed"]:
        yield f"{name}: {summary['failed']:,} failed, but {sum(summary['errors'].values()):,} have a name"


def drift_s(summary: dict[str, Any]) -> float:
    """Return by how much the slots of a worker, dialled or late, take longer than its run, in seconds."""
    return float((summary["attempted"] + summary["late"]) * INTERVAL_US / 1e6 - summary["elapsed_s"])


def main() -> int:
    """Run for some minutes, then say what grew, what drifted, what is not accounted for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--trials", type=int, help="of faults, meanwhile; by default 34 a minute")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first trial")
    options = parser.parse_args()
    minutes: float = options.minutes
    if minutes < 1:
        parser.error("--minutes: at least 1")
    number = int(34 * minutes) if options.trials is None else options.trials
    with tempfile.TemporaryDirectory() as folder:
        trials = start_trials(number, options.seed)  # before this process leaves the host's loopback
        wrong = soaked(60 * minutes, Path(folder))
        printed, _ = trials.communicate()
    print(printed.strip())
    if trials.returncode:
        wrong.append("the trials of faults found something")
    print("\n".join(f"WRONG: {what}" for what in wrong) or f"nothing is wrong after {minutes:g} minutes")
    return 1 if wrong else 0


def start_trials(number: int, first_seed: int) -> subprocess.Popen[str]:
    """Start seeded trials, which print those that went wrong, and how many there were."""
    command = [sys.executable, "-m", "tests.faults", str(number), str(first_seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def soaked(duration_s: float, folder: Path) -> list[str]:
    """Run everything side by side, print what came of it; return what is wrong."""
    with Soak(duration_s, folder) as soak:
        soak.start()
        grown = list(soak.watch_over(min(SETTLE_S, duration_s / 3)))
        accepted = soak.accepted()
        wrong = [*soak.complaints(), *(f"{one.name}: {one.wrong}" for one in grown if one.wrong)]
        if not any(run.process.returncode for run in soak.runs):
            clients = {run.name: run.summary() for run in soak.runs if run.name not in ("server", "watch")}
            print_clients(clients)
            wrong += dial_problems(clients, soak.kernel_counted(), accepted)
    print_growth(grown)
    return wrong


def dial_problems(
    clients: dict[str, dict[str, Any]], kernel: dict[str, int], accepted: int
) -> Iterator[str]:
    """Yield what does not add up among the clients, the kernel's counters and the server."""
    for name, summary in clients.items():
        yield from unaccounted(name, summary)
        if name.startswith("meeting") and abs(drift_s(summary)) > MOST_DRIFT_S:
            yield f"{name}: its slots are {drift_s(summary):+.3f} s off its time"
    lost = sum(summary["failed"] + sum(summary["syn_retransmits"].values()) for summary in clients.values())
    counted = kernel["insert_failed"] + kernel["ListenDrops"]
    print(f"lost {lost:,}; the kernel counted {kernel}; the server accepted {accepted:,}")
    if lost != counted:
        yield f"{lost:,} SYNs were lost, and {counted:,} were counted"
    connected = sum(summary["connected"] + summary["overruns"] for summary in clients.values())
    if not connected <= accepted <= connected + sum(each["cut_short"] for each in clients.values()):
        yield f"{connected:,} dials connected, and {accepted:,} were accepted"


def print_clients(clients: dict[str, dict[str, Any]]) -> None:
    """Print what became of each client's dials."""
    keys = ("attempted", "connected", "failed", "overruns", "cut_short", "late")
    print(f"{'client':<18}" + "".join(f"{key:>13}" for key in (*keys, "drift, s")))
    for name, summary in clients.items():
        counts = "".join(f"{summary[key]:>13,}" for key in keys)
        drifted = f"{drift_s(summary):>+13.3f}" if name.startswith("meeting") else ""
        print(f"{name:<18}{counts}{drifted}")


def print_growth(grown: Sequence[Growth]) -> None:
    """Print what each process held: RSS over time, and descriptors at the begin and at the end."""
    heads = ("RSS, MB", "1/4", "1/2", "3/4", "at end", "growth", "of PSS", "files", "at end", "most")
    print(f"{'process':<26}" + "".join(f"{head:>9}" for head in heads))
    for one in grown:
        memory = "".join(f"{rss:>9.1f}" for rss in one.rss_mb)
        growths = f"{one.grown_mb:>+9.2f}{one.grown_pss_mb:>+9.2f}"
        descriptors = "".join(f"{count:>9}" for count in (*one.descriptors, one.most_descriptors))
        print(f"{one.name:<26}{memory}{growths}{descriptors}")


if __name__ == "__main__":
    sys.exit(main())
