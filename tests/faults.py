"""Seeded trials: a short client against a real server, one fault amid it, and then the books are checked.

``run_trial(seed)`` chooses everything by its seed. ``python -m tests.faults 1000`` runs that many.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pytest

from snat_race.analysis.merge import seconds
from snat_race.cli import app
from snat_race.errors import EnvironmentLacks
from snat_race.load import dialer_pool
from snat_race.load.endpoint import Endpoint
from snat_race.load.servers import TcpServer
from snat_race.results.schema import ClientResult, Summary
from snat_race.runs import client
from tests.conftest import ask_for_priority, clean_environment, free_port, gone
from tests.interruptions import frozen, stepping_clock, stopped

_END_S = 15.0  # what a client may take on a busy machine besides its start and its run
_START_S = 20.0
_ADDED = ("attempted", "connected", "failed", "late", "overruns", "cut_short")


class Fault(StrEnum):
    """What happens amid a run."""

    nothing = "nothing happens"
    worker_stopped = "a worker is stopped for a moment"
    parent_stopped = "the parent is stopped for a moment"
    all_frozen = "all processes are frozen for a moment"
    worker_killed = "a worker is killed"
    parent_killed = "the parent is killed"
    terminated = "the parent gets SIGTERM"
    interrupted = "the parent gets SIGINT"
    slow_reader = "the parent is slow, and the rings are tiny"
    server_stopped = "the server is stopped for a moment"
    server_killed = "the server is killed"
    clock_set = "the clock is set"
    out_of_files = "a worker may open no more files for a moment"


_ENDED_BY_SIGNAL = (Fault.terminated, Fault.interrupted)
_SERVER_FAULTS = (Fault.server_stopped, Fault.server_killed)


@dataclass(kw_only=True)
class Trial:
    """What was done, and what was wrong with what came of it."""

    seed: int
    fault: Fault
    workers: int
    flat_out: bool
    rendezvous: bool
    close: str
    timeout_ms: int
    interval_us: int
    duration_s: float
    after_s: float  # when the fault comes, after the workers are there
    pause_s: float  # how long it lasts
    step_s: float  # by how much the clock is set, if it is
    clock_set_s: float = 0.0  # when the clock is set, if it is: CLOCK_MONOTONIC
    exit_code: int | None = None
    result: ClientResult | None = None  # None: its parent was killed
    violations: list[str] = field(default_factory=list)  # [] is what is wanted

    def __str__(self) -> str:
        return f"seed {self.seed} ({self.fault}): " + ("; ".join(self.violations) or "nothing wrong")

    def require(self, holds: object, otherwise: str) -> None:
        """Note a violation unless something holds."""
        if not holds:
            self.violations.append(otherwise)


def chosen(seed: int) -> Trial:
    """Return the trial of a seed; the faults take turns."""
    draw = random.Random(seed)  # noqa: S311
    fault = list(Fault)[seed % len(Fault)]
    flat_out = fault is Fault.slow_reader or (fault not in _SERVER_FAULTS and draw.random() < 0.4)
    duration_s = draw.choice([0.4, 0.6, 1.4])
    return Trial(
        seed=seed,
        fault=fault,
        workers=draw.randint(1, 3),
        flat_out=flat_out,
        rendezvous=not flat_out and draw.random() < 0.6,
        close=draw.choice(["rst", "rst", "fin"]),
        timeout_ms=draw.choice([20, 100, 500]),
        interval_us=0 if flat_out else draw.choice([1000, 3000, 10_000]),
        duration_s=duration_s,
        after_s=draw.uniform(0, duration_s * 0.7),
        pause_s=draw.uniform(0.05, 0.3),
        step_s=draw.choice([-3600, -0.5, -0.002, 0.002, 0.5, 3600]),
    )


def run_trial(seed: int) -> Trial:
    """Run the trial of a seed, on this machine's loopback; nothing of it is left."""
    trial = chosen(seed)
    with tempfile.TemporaryDirectory() as folder, _server() as server:
        out = Path(folder) / "result.json"
        port = server.endpoint.low
        acceptor = psutil.Process().children()[-1]
        began_s = time.monotonic()
        trial.clock_set_s = began_s + 0.2 + trial.after_s
        pid = os.fork()
        if not pid:
            _become_client(trial, port, out)
        try:
            _inflict(trial, psutil.Process(pid), acceptor, out)
        finally:
            ended = _awaited(pid, began_s + trial.duration_s + trial.pause_s + _START_S + _END_S)
        trial.exit_code = ended
        trial.require(ended is not None, "the client did not end")
        trial.require(_all_gone(pid), "somebody is left")
        accepted = _all_accepted(server, out) if trial.fault not in _SERVER_FAULTS else 0
        _check(trial, out, accepted)
    return trial


@contextmanager
def _server() -> Iterator[TcpServer]:
    with ExitStack() as stack:
        while True:
            port = free_port()
            with suppress(EnvironmentLacks):  # another trial may have been faster
                server = stack.enter_context(TcpServer(Endpoint("127.0.0.1", port, port), [None]))
                break
        yield server


def _become_client(trial: Trial, port: int, out: Path) -> None:
    """Become ``snat-race client``, as it starts after its imports; the session is its own."""
    code: Any = 70
    try:
        os.setsid()
        environment = clean_environment()
        os.environ.clear()
        os.environ.update(environment)
        said = out.with_suffix(".txt").open("w")
        sys.stdout = sys.stderr = said
        sys.argv = ["snat_race", *_arguments(trial, port, out)]
        _patch(trial)
        try:
            app.main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        said.flush()
    finally:
        os._exit(code)


def _arguments(trial: Trial, port: int, out: Path) -> list[str]:
    return [
        *("client", "-r", f"127.0.0.1:{port}", "-s", "1", "--output", str(out)),
        *("-c", str(trial.workers), "-t", str(trial.timeout_ms), "-d", str(trial.interval_us)),
        *("--mode", "rendezvous" if trial.rendezvous else "independent"),
        *("--close", trial.close, "--duration", f"{trial.duration_s}s"),
        # An address of its own, because trials side by side would take the same ports in the same slots.
        *("--local-ip", f"127.{1 + trial.seed % 250}.{trial.seed // 250 % 250}.1"),
    ]


def _patch(trial: Trial) -> None:
    """Change what cannot be changed from outside: the clock, and how fast the parent reads."""
    if trial.fault is Fault.clock_set:
        realtime_ns = stepping_clock(int(trial.clock_set_s * 1e9), int(trial.step_s * 1e9))
        client.run = partial(client.run, realtime_ns=realtime_ns)
    if trial.fault is Fault.slow_reader:
        dialer_pool._ring_capacity = lambda *_: 64
        take = client._Run._take

        def take_slowly(run: client._Run, drained: Any) -> None:
            time.sleep(trial.pause_s)
            take(run, drained)

        client._Run._take = take_slowly  # type: ignore[assignment, method-assign]


def _inflict(trial: Trial, parent: psutil.Process, acceptor: psutil.Process, out: Path) -> None:
    """Let the fault happen, once the workers dial; nothing happens to a client that ended before."""
    workers = _workers(parent, trial.workers, out)
    if not workers:
        return
    time.sleep(trial.after_s)
    worker = workers[trial.seed % len(workers)]
    paused = {
        Fault.worker_stopped: [worker],
        Fault.parent_stopped: [parent],
        Fault.all_frozen: [parent, *workers],
        Fault.server_stopped: [acceptor],
    }
    signalled = {
        Fault.worker_killed: (worker, signal.SIGKILL),
        Fault.parent_killed: (parent, signal.SIGKILL),
        Fault.server_killed: (acceptor, signal.SIGKILL),
        Fault.terminated: (parent, signal.SIGTERM),
        Fault.interrupted: (parent, signal.SIGINT),
    }
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        if trial.fault in paused:
            pause = frozen if trial.fault is Fault.all_frozen and _can_freeze() else stopped
            _pause(trial, pause, *paused[trial.fault])
        elif trial.fault in signalled:
            process, number = signalled[trial.fault]
            process.send_signal(number)
        elif trial.fault is Fault.out_of_files:
            _deny_files(trial, worker)


def _workers(parent: psutil.Process, number: int, out: Path) -> list[psutil.Process]:
    """Return the workers, once all are about to dial; [] if the client has ended."""
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s and not gone(parent):
        with suppress(psutil.NoSuchProcess, FileNotFoundError):
            workers = parent.children()
            if len(workers) == number and "Starting to dial" in out.with_suffix(".txt").read_text():
                return workers
        time.sleep(0.005)
    return []


def _pause(trial: Trial, pause: Callable[..., Any], *processes: psutil.Process) -> None:
    with ExitStack() as stack:
        for process in processes:
            stack.enter_context(pause(process.pid))
        time.sleep(trial.pause_s)


@cache
def _can_freeze() -> bool:
    with subprocess.Popen(["sleep", "60"]) as idle:
        try:
            with frozen(idle.pid):
                return True
        except pytest.skip.Exception:
            return False
        finally:
            idle.kill()


def _deny_files(trial: Trial, worker: psutil.Process) -> None:
    before = worker.rlimit(resource.RLIMIT_NOFILE)
    worker.rlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    time.sleep(trial.pause_s)
    worker.rlimit(resource.RLIMIT_NOFILE, before)


def _awaited(pid: int, deadline_s: float) -> int | None:
    """Return a child's exit code; kill it, and return None, if it does not end in time."""
    while time.monotonic() < deadline_s:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _all_gone(session: int) -> bool:
    """Whether nobody of a session is left, soon after its leader has ended."""
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        left = []
        for pid in psutil.pids():
            with suppress(OSError, psutil.NoSuchProcess):
                if os.getsid(pid) == session and not gone(psutil.Process(pid)):
                    left.append(pid)
        if not left:
            return True
        time.sleep(0.05)
    return False


def _all_accepted(server: TcpServer, out: Path) -> int:
    """Return how many the server accepted in the end; a busy machine may be behind with what is queued."""
    connected = 0
    if out.exists():
        connected = ClientResult.model_validate_json(out.read_text()).summary.connected
    deadline_s = time.monotonic() + 10
    while server.accepted < connected and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return server.stop()


def _check(trial: Trial, out: Path, accepted: int) -> None:
    fault, code = trial.fault, trial.exit_code
    expected = {0}
    if fault is Fault.worker_killed:
        expected = {0, 1}  # 0: the run was over already
    if fault is Fault.parent_killed:
        expected = {0, -signal.SIGKILL}
    trial.require(code in expected, f"exit code {code}: {_said(out)}")
    if not out.exists():
        trial.require(fault is Fault.parent_killed and code, f"no result: {_said(out)}")
        return
    result = trial.result = ClientResult.model_validate_json(out.read_text())
    summary = result.summary
    _check_sums(trial, summary, result.periods)
    trial.require(
        summary.attempted == summary.connected + summary.failed + summary.overruns, "attempted is no sum"
    )
    trial.require(sum(summary.errors.values()) == summary.failed, "errors do not add up to failed")
    trial.require(0 <= summary.cut_short <= trial.workers, f"{summary.cut_short} cut short")
    in_time_s = trial.duration_s + trial.pause_s + trial.timeout_ms / 1000 + 4
    trial.require(summary.elapsed_s < in_time_s, f"took {summary.elapsed_s} s")
    if fault not in (*_ENDED_BY_SIGNAL, Fault.worker_killed):
        trial.require(summary.elapsed_s >= trial.duration_s, f"ended after {summary.elapsed_s} s")
        trial.require(not summary.cut_short, f"{summary.cut_short} cut short though nothing ended the run")
        _check_slots(trial, summary)
    if fault not in _SERVER_FAULTS:
        unknown = summary.overruns + summary.cut_short + summary.errors.get("ECONNRESET", 0)
        trial.require(
            summary.connected <= accepted <= summary.connected + unknown,
            f"accepted {accepted}, connected {summary.connected}, of unknown end {unknown}",
        )
    # The run's own beginning is told by a clock that is not set.
    set_after_s = trial.clock_set_s - (seconds(summary.began_at or "") - time.time() + time.monotonic())
    if (
        abs(trial.step_s) > 0.1
        and 0.05 < set_after_s < trial.duration_s - 0.05
        and fault is Fault.clock_set
    ):
        told = any(warning.kind == "clock_stepped" for warning in result.warnings)
        trial.require(told, f"the clock was set after {set_after_s} s, and nothing is said")


def _check_sums(trial: Trial, summary: Summary, periods: Sequence[Summary]) -> None:
    """Periods add up to the run: every counter, every error, and the time."""
    for name in _ADDED:
        total, added = getattr(summary, name), sum(getattr(period, name) for period in periods)
        trial.require(total == added, f"{name}: {total} in all, {added} in the periods")
    for name in ("errors", "syn_retransmits"):
        added_names: dict[str, int] = {}
        for period in periods:
            for key, count in getattr(period, name).items():
                added_names[key] = added_names.get(key, 0) + count
        trial.require(added_names == getattr(summary, name), f"{name}: {added_names}")
    elapsed_s = sum(period.elapsed_s for period in periods)
    trial.require(abs(elapsed_s - summary.elapsed_s) < 0.001, f"periods last {elapsed_s} s in all")
    trial.require(
        all(getattr(period, name) >= 0 for period in periods for name in _ADDED),
        "a period with less than 0",
    )


def _check_slots(trial: Trial, summary: Summary) -> None:
    """Each slot, or tick, of the run is dialled or late."""
    if not trial.interval_us:
        trial.require(not summary.late, "flat out, nothing can be late")
        return
    slots = trial.workers * trial.duration_s * 1e6 / trial.interval_us
    passed = summary.attempted + summary.late
    trial.require(abs(passed - slots) <= 2 * trial.workers, f"{passed} of {slots} slots")


def _said(out: Path) -> str:
    with suppress(OSError):
        return " / ".join(out.with_suffix(".txt").read_text().splitlines()[-3:])
    return "nothing"


def run_trials(seeds: Iterable[int], at_once: int) -> Iterator[Trial]:
    """Run trials side by side; yield them as they end, in order."""
    with ProcessPoolExecutor(at_once, get_context("fork"), ask_for_priority) as pool:
        yield from pool.map(run_trial, seeds)


def main(first: int, number: int, at_once: int) -> int:
    """Run trials; print those that found something; return how many did."""
    violated = 0
    for trial in run_trials(range(first, first + number), at_once):
        if trial.violations:
            violated += 1
            print(trial, flush=True)  # noqa: T201
    print(f"{number} trials from seed {first}, {violated} with a violation", flush=True)  # noqa: T201
    return violated


if __name__ == "__main__":
    number, first, at_once = [*map(int, sys.argv[1:]), *(0, 4)[len(sys.argv) - 2 :]]
    sys.exit(main(first, number, at_once) > 0)
