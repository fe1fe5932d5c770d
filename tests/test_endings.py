"""However a run ends, it ends soon, with what was measured in its file, one clear code, and nothing left.

Real processes, pipes and terminals. Each trial has a seed that picks its moments; more of them:
``python -m tests.test_endings 100``.
"""

import contextlib
import fcntl
import itertools
import json
import os
import pty
import random
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Never

import psutil
import pytest

from snat_race import __main__ as program
from snat_race.cli.events import ClientPrinter, WatchPrinter
from snat_race.errors import Interrupted
from snat_race.report.live.lab_view import LabView
from tests.conftest import (
    COMMAND,
    PRIVATE,
    RunningServer,
    clean_environment,
    eventually,
    fork_cli,
    free_port,
    gone,
    in_sandbox,
    network_namespaces,
    without_a_trace,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SOON_S = 30.0  # the machine may be busy; what hangs does so for good
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


STARTED: list["Run"] = []


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    STARTED.clear()
    yield
    for run in STARTED:
        for process in run.processes():
            process.kill()
        run.close()


class Run:
    """A command in a session of its own, so that all its processes can be found, with an output file.

    It is a fork of this process, unless it is to be ``fresh``, because Python and its modules take long
    to start. ``out``, ``err``: descriptors; by default pipes that are read by ``end``. A terminal is
    all three streams.
    """

    def __init__(
        self,
        folder: Path,
        *command: str,
        output: Path | None = None,
        out: int | None = None,
        err: int | None = None,
        closed: Sequence[int] = (),
        terminal: bool = False,
        fresh: bool = False,
    ) -> None:
        STARTED.append(self)
        self.folder = folder
        self.output = output or folder / "result.json"
        self.spare = folder / "tmp"
        self.spare.mkdir(exist_ok=True)
        if command[0] != "server":
            command = (*command, "--output", str(self.output))
        nowhere = os.open(os.devnull, os.O_RDONLY)
        self.out, given_out = (-1, out) if out is not None else os.pipe()
        self.err, given_err = (-1, err) if err is not None else os.pipe()
        streams = [nowhere, given_out, given_err]
        if terminal:
            self.out, slave = pty.openpty()
            streams = [slave] * 3
        self.pid = os.fork()
        if not self.pid:
            self._become(command, streams, closed, terminal=terminal, fresh=fresh)
        for descriptor in {*streams, given_out, given_err} - {out, err}:
            os.close(descriptor)
        self.code: int | None = None

    def _become(
        self,
        command: Sequence[str],
        streams: list[int],
        closed: Sequence[int],
        *,
        terminal: bool,
        fresh: bool,
    ) -> Never:
        code: Any = 1
        try:
            os.setsid()
            if terminal:
                fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
            for number in closed:
                os.close(number)
            os.closerange(3, 1024)
            environment = clean_environment(TMPDIR=str(self.spare), TERM="xterm")
            if fresh:
                os.execve(sys.executable, [*COMMAND, *command], environment)  # noqa: S606
            os.environ.clear()
            os.environ.update(environment)
            tempfile.tempdir = None
            sys.stdout, sys.stderr = (
                None if number in closed else open(number, "w", closefd=False)  # noqa: SIM115
                for number in (1, 2)
            )
            sys.argv = ["snat_race", *command]
            program.main()
        except SystemExit as ended:
            code = ended.code
        finally:
            os._exit(code)

    def close(self) -> None:
        for descriptor in {self.out, self.err} - {-1}:
            os.close(descriptor)
        self.out = self.err = -1

    def until_it_handles_signals(self) -> None:
        """Wait for that; before, there is only the Python interpreter, starting."""
        caught = 1 << (signal.SIGTERM - 1)

        def handled() -> bool:
            status = Path(f"/proc/{self.pid}/status").read_text()
            return bool(int(status.split("SigCgt:")[1].split()[0], 16) & caught)

        eventually(handled, within_s=SOON_S)

    def until_it_says(self, *words: bytes) -> None:
        """Read stdout, or the terminal, until it has all these words."""
        said = b""
        while not all(word in said for word in words):
            assert select.select([self.out], [], [], SOON_S)[0], said
            piece = os.read(self.out, 65536)
            assert piece, said
            said += piece

    def until_it_is_blocked(self) -> None:
        """Wait until it cannot write to a pipe or a terminal."""
        writing = {"pipe_write", "anon_pipe_write", "wait_woken"}  # functions of the kernel
        eventually(lambda: Path(f"/proc/{self.pid}/wchan").read_text() in writing, within_s=SOON_S)

    def send(self, *numbers: int, whole_group: bool = False) -> None:
        """Send signals to the process, or to all of its session."""
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if whole_group else os.kill)(self.pid, number)

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def end(self) -> tuple[int, str]:
        """Read its streams, wait for its end; return the exit code and what stderr has. Nothing is left."""
        said = {self.out: b"", self.err: b""}
        deadline_s = time.monotonic() + SOON_S
        while not self.ended():
            assert time.monotonic() < deadline_s, said
            for descriptor in select.select([*said.keys() - {-1}], [], [], 0.01)[0]:
                with contextlib.suppress(OSError):  # EIO: a terminal whose other end is closed
                    said[descriptor] += os.read(descriptor, 65536)
        err = said[self.err]
        if self.err >= 0:
            while piece := os.read(self.err, 65536):
                err += piece
        self.close()
        eventually(lambda: not self.processes(), within_s=SOON_S)
        assert not list(self.folder.glob(".snat_race*"))
        assert b"Traceback" not in err, err
        assert self.code is not None
        return self.code, err.decode()

    def processes(self) -> list[psutil.Process]:
        """Return those of its session that live."""
        of_session = []
        for name in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 - by far the fastest
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if os.getsid(int(name)) == self.pid and not gone(process := psutil.Process(int(name))):
                    of_session.append(process)
        return of_session

    def result(self, path: Path | None = None) -> dict[str, Any]:
        """Return the result that was written; it must be whole."""
        read: dict[str, Any] = json.loads((path or self.output).read_text())
        assert read["kind"] in {"client", "watch", "trace", "lab"}
        return read

    def saved_elsewhere(self, said: str) -> Path:
        """Return where a message says that the result is."""
        path = Path(said.split("the result is in ")[1].strip())
        assert path.parent == self.spare
        return path


COMMANDS = {
    "client": ("client", "-d", "2000", "--mode", "independent", "-s", "1", "--json"),
    "watch": ("watch", "--json", "--interval", "20ms"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    running = RunningServer(f"127.0.0.1:{free_port()}")
    yield running
    running.stop()


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest, server: RunningServer) -> tuple[str, ...]:
    return with_remote(request.param, server.address)


def with_remote(name: str, address: str) -> tuple[str, ...]:
    return (*COMMANDS[name], *(("-r", address) if name == "client" else ()))


def test_the_code_of_an_early_end_is_that_of_an_interruption() -> None:
    assert Interrupted.exit_code == program._INTERRUPTED


# Signals


def signals_within_a_second(folder: Path, command: tuple[str, ...], seed: int) -> str:
    """Send one to three signals within a second, at any time from the start to the very end, to the
    process or to its group; return what it came to.
    """
    choice = random.Random(seed)  # noqa: S311
    run = Run(folder, *command, fresh=True)
    run.until_it_handles_signals()
    if choice.random() < 0.7:
        run.until_it_says(b'"start"')
    time.sleep(choice.uniform(0, 0.5))  # any moment
    for _ in range(choice.randint(1, 3)):
        run.send(choice.choice(SIGNALS), whole_group=choice.random() < 0.5)
        time.sleep(choice.uniform(0, 0.3) * choice.randint(0, 1))
    code, err = run.end()
    measured = run.output.exists()
    assert code == (0 if measured else Interrupted.exit_code), err
    if measured:
        run.result()
    else:
        assert err.splitlines()[-1].startswith("snat_race: interrupted"), err
    assert not list(run.spare.iterdir())
    return "saved" if measured else "nothing measured yet"


@pytest.mark.parametrize("seed", range(3))
def test_signals_within_a_second_lose_nothing(tmp_path: Path, command: tuple[str, ...], seed: int) -> None:
    signals_within_a_second(tmp_path, command, seed)


def signals_while_it_is_saved(folder: Path, command: tuple[str, ...]) -> None:
    """Signals while half of the result is in a pipe, and until the process is gone."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    capacity = fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    run = Run(folder, *command, output=pipe)
    run.until_it_says(b'"start"')
    run.send(signal.SIGTERM)
    assert select.select([reader], [], [], SOON_S)[0]
    run.send(*SIGNALS, whole_group=True)
    text = os.read(reader, capacity)
    os.set_blocking(reader, True)
    while piece := os.read(reader, 65536):
        text += piece
        run.send(*SIGNALS)
    os.close(reader)
    run.until_it_says(b'"result"')
    while not run.ended():
        run.send(*SIGNALS)
    assert run.end()[0] == 0
    assert json.loads(text)["kind"] == command[0]


def test_signals_while_the_result_is_saved_lose_nothing(tmp_path: Path, command: tuple[str, ...]) -> None:
    signals_while_it_is_saved(tmp_path, command)


def test_a_signal_that_comes_while_all_is_stopped(tmp_path: Path, command: tuple[str, ...]) -> None:
    run = Run(tmp_path, *command)
    run.until_it_says(b'"start"')
    run.send(signal.SIGSTOP, whole_group=True)
    eventually(lambda: psutil.Process(run.pid).status() == psutil.STATUS_STOPPED)
    run.send(signal.SIGTERM, signal.SIGINT, whole_group=True)
    run.send(signal.SIGCONT)  # the parent only; its workers stay stopped
    assert run.end()[0] == 0
    run.result()


@ROOT_ONLY
def test_the_first_process_of_a_container_obeys_from_the_start(tmp_path: Path) -> None:
    inner = [*COMMAND, "watch", "--json"]
    outer = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", *inner], stdout=subprocess.PIPE, cwd=tmp_path,
        env=clean_environment(),
    )  # fmt: skip
    assert outer.stdout
    assert b"start" in outer.stdout.readline()
    (first,) = psutil.Process(outer.pid).children()
    first.terminate()
    said = outer.communicate(timeout=SOON_S)[0]
    assert outer.returncode == 0
    assert json.loads(said.splitlines()[-1])["event"] == "result"


# Streams


def test_a_reader_who_leaves_ends_the_run_with_its_result(tmp_path: Path, command: tuple[str, ...]) -> None:
    run = Run(tmp_path, *command)
    run.until_it_says(b'"start"')
    os.close(run.out)
    run.out = -1
    assert run.end()[0] == 0
    run.result()


def test_a_full_disk_behind_stdout_ends_the_run_with_its_result(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    with Path("/dev/full").open("w") as full:
        run = Run(tmp_path, *command, out=full.fileno())
    code, err = run.end()
    assert code == 4
    assert err.splitlines()[-1].startswith("snat_race: stdout cannot be written: No space left"), err
    run.result()


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_a_reader_who_reads_nothing_cannot_keep_the_run(tmp_path: Path, terminal: bool) -> None:
    run = Run(tmp_path, "watch", "--json", "--interval", "10ms", terminal=terminal)
    run.until_it_is_blocked()
    run.send(signal.SIGTERM)
    unread, run.out = run.out, -1
    assert run.end()[0] == 0
    os.close(unread)
    run.result()


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams_do_not_matter(tmp_path: Path, closed: tuple[int, ...]) -> None:
    run = Run(tmp_path, "watch", "--duration", "100ms", closed=closed)
    assert run.end()[0] == 0
    run.result()


def test_a_full_disk_behind_stderr_does_not_matter(tmp_path: Path, server: RunningServer) -> None:
    with Path("/dev/full").open("w") as full:
        run = Run(tmp_path, *with_remote("client", server.address), "--count", "50", err=full.fileno())
    run.until_it_says(b'"result"')
    assert run.end()[0] == 0
    run.result()


@pytest.mark.parametrize("live", [(), ("--live",)], ids=["text", "live"])
def test_a_terminal_that_goes_away_loses_nothing(
    tmp_path: Path, server: RunningServer, live: tuple[str, ...]
) -> None:
    run = Run(tmp_path, "client", "-r", server.address, *live, terminal=True)
    run.until_it_says(b"Starting to dial")
    os.close(run.out)  # SIGHUP, and EIO for whatever is written
    run.out = -1
    assert run.end()[0] == 0
    run.result()


# A place for the result


def test_a_folder_that_was_removed_meanwhile(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    run = Run(tmp_path, *command, output=folder / "result.json")
    run.until_it_says(b'"start"')
    folder.rmdir()
    run.send(signal.SIGTERM)
    code, err = run.end()
    assert code == 4
    run.result(run.saved_elsewhere(err.splitlines()[-1]))


def test_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    run = Run(tmp_path, "watch", "--duration", "100ms", output=tmp_path / "pipe")
    code, err = run.end()
    assert (code, "nobody read it within 5 s" in err) == (4, True), err
    run.result(run.saved_elsewhere(err))


@ROOT_ONLY
def test_a_full_disk_where_the_result_should_be(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=4k none "$1" && cd "$1" && echo old > r && shift && "$@"'
    script += "; code=$?; ls -A; cat r; exit $code"
    command = ["unshare", "--mount", "sh", "-c", script, "-", str(disk)]
    command += [*COMMAND, "watch", "--duration", "300ms", "--interval", "10ms", "--output", "r", "--quiet"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=SOON_S,
        env=clean_environment(TMPDIR=str(tmp_path)),
    )  # fmt: skip
    if "mount:" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stdout.splitlines()[-2:]) == (4, ["r", "old"]), done.stderr
    (saved,) = tmp_path.glob("snat_race-result-*.json")
    assert f"No space left on device; the result is in {saved}" in done.stderr
    assert json.loads(saved.read_text())["kind"] == "watch"


# kill -9


def measuring_lab(folder: Path) -> Run:
    """Start a lab; return it when a round is over."""
    run = Run(folder, "lab", "--duration", "30s", "--quiet", terminal=True)
    run.until_it_says(b"last round")
    return run


@PRIVATE
@pytest.mark.parametrize("victim", ["itself", "its server", "a dialer"])
def test_a_lab_that_loses_a_process_leaves_nothing(tmp_path: Path, victim: str) -> None:
    def killed() -> None:
        run = measuring_lab(tmp_path)
        parent = psutil.Process(run.pid)
        children = parent.children()
        made = network_namespaces(children) - network_namespaces([psutil.Process()])
        assert made
        {"itself": parent, "its server": children[0], "a dialer": children[-1]}[victim].kill()
        code, _ = run.end()
        assert not made & network_namespaces(psutil.process_iter())
        assert not list(run.spare.iterdir())
        if victim == "itself":
            assert code == -signal.SIGKILL
            assert not run.output.exists()
        else:
            assert code == 1
            assert run.result()["interrupted"]

    without_a_trace(killed)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_client_that_loses_a_process_leaves_nothing(
    tmp_path: Path, server: RunningServer, victim: int
) -> None:
    run = Run(tmp_path, *with_remote("client", server.address), "--workers", "2")
    run.until_it_says(b'"start"')
    parent = psutil.Process(run.pid)
    [parent, *parent.children()][victim].kill()
    code, err = run.end()
    assert code == (1 if victim else -signal.SIGKILL)
    assert victim == 0 or "killed by SIGKILL" in err
    assert run.output.exists() == bool(victim)


def test_an_acceptor_that_is_killed_ends_the_server_with_its_count(tmp_path: Path, port: int) -> None:
    run = Run(tmp_path, "server", "-r", f"127.0.0.1:{port}", "-c", "2")
    run.until_it_says(b"Ready to accept")
    psutil.Process(run.pid).children()[0].kill()
    run.until_it_says(b"Accepted 0 connections")
    code, err = run.end()
    assert (code, "killed by SIGKILL" in err) == (1, True)


# A fault of the program itself


def tenth(told: Callable[..., Any]) -> Callable[..., Any]:
    """As ``told``, but the tenth call has a fault, and so have all later ones."""
    calls = itertools.count(1)

    def with_fault(*args: Any) -> Any:
        return told(*args) if next(calls) < 10 else 1 // 0

    return with_fault


@pytest.mark.parametrize("observer", ["failure", "drained"])
def test_a_fault_in_mid_run_keeps_what_a_client_has_measured(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, observer: str
) -> None:
    monkeypatch.setattr(ClientPrinter, observer, tenth(getattr(ClientPrinter, observer)))
    out = tmp_path / "r.json"
    refused = ["-r", f"127.0.0.1:{port}", "-c", "2", "-d", "10000", "-s", "1", "--mode", "independent"]
    done = fork_cli("client", *refused, "--duration", "1m", "-o", str(out))
    assert (done.returncode, "internal fault: ZeroDivisionError" in done.stderr) == (1, True), done.stderr
    result = json.loads(out.read_text())
    summary = result["summary"]
    assert summary["attempted"] == summary["failed"] == summary["errors"]["ECONNREFUSED"] > 0
    assert sum(period["failed"] for period in result["periods"]) == summary["failed"]
    assert f"{summary['attempted']:,}" in done.stdout


@PRIVATE
def test_a_fault_in_mid_run_keeps_what_a_watch_has_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WatchPrinter, "__call__", tenth(WatchPrinter.__call__))
    out = tmp_path / "r.json"
    done = in_sandbox(lambda: fork_cli("watch", "-i", "10ms", "--json", "--duration", "1m", "-o", str(out)))
    assert (done.returncode, "internal fault: ZeroDivisionError" in done.stderr) == (1, True), done.stderr
    assert len(json.loads(out.read_text())["periods"]) == 10


@PRIVATE
def test_a_fault_in_mid_run_keeps_the_rounds_of_a_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LabView, "round_ended", tenth(LabView.round_ended))
    out = tmp_path / "r.json"
    chosen = ["--variant", "masquerade", "--variant", "no nat", "--duration", "2s"]
    done = without_a_trace(lambda: fork_cli("lab", *chosen, "-o", str(out)))
    assert (done.returncode, "internal fault: ZeroDivisionError" in done.stderr) == (1, True), done.stderr
    result = json.loads(out.read_text())
    assert result["interrupted"]
    assert sum(len(variant["periods"]) for variant in result["variants"]) == 10


# By hand


def main(count: int) -> None:
    """Try signals within a second that many times, and say what became of them."""
    server = RunningServer("127.0.0.1:18123")
    came_to: Counter[str] = Counter()
    for seed in range(count):
        for name in COMMANDS:
            with tempfile.TemporaryDirectory() as folder:
                outcome = signals_within_a_second(Path(folder), with_remote(name, server.address), seed)
                came_to[f"{name}: {outcome}"] += 1
    server.stop()
    sys.stdout.write(f"{dict(came_to)}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
