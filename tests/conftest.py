"""Real processes and real namespaces; nothing here is faked."""

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import pickle
import pkgutil
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import psutil
import pytest
import typer
from hypothesis import settings
from pyroute2 import IPRoute

import snat_race  # before numpy: it keeps numpy from starting threads
from snat_race import __main__ as program
from snat_race.cli import app
from snat_race.errors import EnvironmentLacks
from snat_race.kernel.netns import enter_sandbox
from snat_race.kernel.tools import where
from tests.results import small_client, small_watch

# Commands import late, to answer at once. Here they are forks, which would all import the same.
for module in pkgutil.walk_packages(snat_race.__path__, "snat_race."):
    importlib.import_module(module.name)

_libc = ctypes.CDLL(None, use_errno=True)

# The machine may be busy, or a virtual one that is paused; pytest-timeout bounds every test.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

PRIVATE = pytest.mark.usefixtures("namespaces")
TWO_CPUS = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="the race needs two CPUs; this process may use one"
)

IPTABLES = pytest.mark.skipif(not where("iptables"), reason="there is no iptables")
NFT = pytest.mark.skipif(not where("nft"), reason="there is no nft")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000  # linux/sched.h
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000  # linux/mount.h

# Ten times the CPU that others get. With more, packets wait for the kernel's own threads.
PRIORITY = 10

# Bounds of what hangs, however busy the machine is:
MOST_S = 240  # a command
SOON_S = 60.0  # what takes no time to speak of on an idle one

# What all processes of a machine share: the names of namespaces, and memory.
SHARED = (Path("/run/netns"), Path("/dev/shm"))

ROOT = Path(snat_race.__file__).parents[1]
COMMAND = [sys.executable, "-m", "snat_race"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """All the tests are run by two processes; those that were asked for by name in this one."""
    return 2 if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


@contextlib.contextmanager
def taking_turns() -> Iterator[None]:
    """Let nobody else of this machine in here meanwhile; not even the tests of another checkout."""
    descriptor = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@pytest.fixture(autouse=True)
def _turn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests that need two CPUs at the same instant take turns."""
    with taking_turns() if TWO_CPUS.mark in request.node.iter_markers() else contextlib.nullcontext():
        yield


@pytest.fixture(scope="session", autouse=True)
def own_host() -> None:
    """Nobody else's ports, rules and namespaces, as far as we may: another suite may run beside us."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            call_libc("unshare", _CLONE_NEWNET)
            with IPRoute() as netlink:
                netlink.link("set", index=1, state="up")  # the loopback device
            have_own_mounts()


def have_own_mounts() -> None:
    """Let this process alone see, from here on, what it makes in what all share; it is empty now.

    Raises:
        OSError: the kernel refuses.

    """
    call_libc("unshare", _CLONE_NEWNS)
    call_libc("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    for folder in filter(Path.is_dir, SHARED):
        call_libc("mount", b"tmpfs", bytes(folder), b"tmpfs", 0, b"mode=1777")


def call_libc(function: str, *arguments: object) -> None:
    if getattr(_libc, function)(*arguments):
        raise OSError(ctypes.get_errno(), function)


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment without what our options read; where a module is compiled once, not at each start."""
    ours = ("REMOTE_ADDR", "LOCAL_ADDR", "LOCAL_IP", "WORKERS", "GO_ROUTINES", "TIMEOUT_MS")
    ours += ("DIAL_INTERVAL_US", "SUMMARY_INTERVAL_S", "PYTHONDONTWRITEBYTECODE")
    kept = {k: v for k, v in os.environ.items() if k not in ours}
    return kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"} | extra


def assert_all_clashed(failed: int, *clashes: int, cut_short: int = 0) -> None:
    """What failed was dropped, clash by clash; but a machine that pauses lets a dial of each of two
    workers time out that nothing dropped. What a stop cut short may have been dropped too.
    """
    assert len(set(clashes)) == 1, clashes
    assert -cut_short <= failed - clashes[0] <= 2, (failed, clashes, cut_short)


def parsed_cli(args: list[str]) -> dict[str, Any]:
    """What our command line makes of arguments; an exception if it refuses them."""
    group = typer.main.get_command(app.app)
    name, *rest = app.understood(group, args)
    with group.make_context("snat-race", [name, *rest]) as context:
        command = group.get_command(context, name)
        with command.make_context(name, rest, parent=context) as inner:
            return dict(inner.params)


def run_cli(*args: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run our command line as users do: by an interpreter that starts for it."""
    return subprocess.run(
        [*COMMAND, *args],
        capture_output=True,
        text=True,
        encoding=extra.get("PYTHONIOENCODING"),
        timeout=MOST_S,
        check=False,
        env=clean_environment(**extra),
    )


def fork_cli(*args: str, stdout: int = subprocess.PIPE, **extra: str) -> subprocess.CompletedProcess[str]:
    """As run_cli, but in a fork of this process: without an interpreter's start, of which hundreds take
    minutes.
    """
    return subprocess.run(
        ["snat_race", *args],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        encoding=extra.get("PYTHONIOENCODING"),
        timeout=MOST_S,
        check=False,
        restore_signals=False,
        preexec_fn=partial(_be_cli, args, extra),
    )


def start_cli(
    *args: str, stdin: int | None = None, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE,
    **extra: str,
) -> subprocess.Popen[str]:  # fmt: skip
    """Start our command line in a fork of this process."""
    return subprocess.Popen(
        ["snat_race", *args],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        text=True,
        restore_signals=False,
        preexec_fn=partial(_be_cli, args, extra),  # noqa: PLW1509 - there are no threads
    )


def _be_cli(args: Sequence[str], extra: dict[str, str]) -> NoReturn:
    """Be our command line, in a fork that was about to become another program; its streams are in place."""
    code: Any = 1
    try:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # one of them tells subprocess that all went well
        gc.freeze()  # what the tests have made is not looked through, nor ever closed
        gc.enable()  # subprocess has it off
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest-timeout's
        environment = clean_environment(**extra)
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None
        encoding = environment.get("PYTHONIOENCODING")
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", 1, encoding, "backslashreplace", closefd=False)  # noqa: SIM115
        sys.argv = ["snat_race", *args]
        program.main()
    except SystemExit as ended:
        code = ended.code or 0
    except Exception:  # noqa: BLE001
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):  # nobody reads it any more
            sys.stdout.flush()
        os._exit(code)


def eventually(holds: Callable[[], Any], within_s: float = SOON_S) -> Any:
    """Return the first true value of ``holds()``; fail if there is none in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if value := holds():
            return value
        time.sleep(0.01)
    raise AssertionError(f"not so within {within_s} s")


def until_enough(
    measure: Callable[[float], Any], share: Callable[[Any], float], first_s: float, within_s: float = 60.0
) -> Any:
    """What ``measure(duration_s)`` returns, for a duration that gives enough data to judge by.

    On a busy machine two dialers seldom have a CPU each at the same instant, so the same time gives less
    data there. ``share``: how much there is of the data that is wanted; 1 is enough. It must not ask
    what the data say. Nothing new is begun after ``within_s``: then the last measurement stands.
    """
    deadline_s, duration_s = time.monotonic() + within_s, first_s
    while True:
        began_s = time.monotonic()
        measured = measure(duration_s)
        got, now_s = share(measured), time.monotonic()
        if got >= 1 or now_s > deadline_s:
            return measured
        longest = MOST_S / 4 / (now_s - began_s)
        duration_s *= max(1.2, min(1.3 / max(got, 0.01), 6, longest))


def ask_for_priority() -> None:
    """Go before the others of a busy machine, if we may: two dialers need a CPU each at the same instant.

    This process, a fork, begins a session, because Linux may share CPUs out among sessions: sched(7), on
    autogroups. It ends with its parent, as a terminal's Ctrl-C does not reach it now.
    """
    with contextlib.suppress(PermissionError):
        os.nice(-PRIORITY)
        os.setsid()
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/self/autogroup").write_text(f"-{PRIORITY}")


class LabRun(NamedTuple):
    """What a lab printed, and its result."""

    done: subprocess.CompletedProcess[str]
    result: dict[str, Any]


def fewest_met(result: dict[str, Any]) -> int:
    """The pairs, or where dials do not meet the dials, of the rule of a lab that has the fewest."""
    summaries = [variant["summary"] for variant in result["variants"]]
    return min(each["attempted"] if each["paired"] is None else each["paired"] for each in summaries)


def lab(
    *args: str,
    first_s: float,
    fewest: int = 0,
    code: int | None = 0,
    run: Callable[..., subprocess.CompletedProcess[str]] = fork_cli,
    **extra: str,
) -> LabRun:
    """Run a lab for so long that it has at least ``fewest`` pairs of each rule, or dials where they do not
    meet; check its exit code, and that it leaves the host as it was.

    If the machine is too busy for that, the lab runs longer.
    """

    def measure(duration_s: float) -> LabRun:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "lab.json"
            options = ["--duration", f"{duration_s * 1000:.0f}ms", "--output", str(out)]

            done = without_a_trace(lambda: run("lab", *args, *options, **extra))
            assert out.exists(), done.stderr
            return LabRun(done, json.loads(out.read_text()))

    measured: LabRun = until_enough(
        measure, lambda measured: fewest_met(measured.result) / fewest if fewest else 1, first_s
    )
    assert code in (None, measured.done.returncode), measured.done.stderr
    return measured


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended; an orphan may wait for a slow init to reap it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def in_fork(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a forked process, which may then change its namespaces or its user."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(MOST_S)
        try:
            outcome = (True, work())
        except BaseException as failed:  # noqa: BLE001
            outcome = (False, failed)
        with os.fdopen(write_end, "wb") as pipe:
            try:
                pickle.dump(outcome, pipe)
            except Exception as failed:  # noqa: BLE001
                pickle.dump((False, RuntimeError(repr(failed))), pipe)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    succeeded, value = pickle.loads(answer)  # noqa: S301
    if not succeeded:
        raise value
    return value


def in_sandbox(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a fork with a network namespace of its own, before others; skip if refused."""

    def sandboxed() -> Any:
        ask_for_priority()
        enter_sandbox()
        return work()

    try:
        return in_fork(sandboxed)
    except EnvironmentLacks as refused:
        pytest.skip(str(refused))


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip where the kernel does not let us make network namespaces."""
    in_sandbox(lambda: None)


@pytest.fixture(scope="session")
def every_variant(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """The result of a short lab run of every variant, with a window. It left the host as it was.

    All processes that run the tests have the same.
    """
    folder = tmp_path_factory.getbasetemp()
    out = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "every_variant.json"
    with taking_turns():
        if not out.exists():
            out.write_text(json.dumps(lab("--variant", "all", first_s=0.3, fewest=100).result))
    return out


def free_port() -> int:
    """A port of loopback that is free, and not one of those that the kernel gives to clients meanwhile."""
    for port in random.SystemRandom().sample(range(10_000, 32_000), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(port: int) -> Iterator["RunningServer"]:
    running = RunningServer(f"127.0.0.1:{port}")
    yield running
    running.stop()


class RunningServer:
    """``snat_race server``, started and listening."""

    def __init__(self, address: str, *options: str) -> None:
        self.address = address
        self.process = start_cli("server", "-r", address, *options)
        assert self.process.stdout
        self.first_line = self.process.stdout.readline()
        assert "Ready to accept connections" in self.first_line, self.process.communicate()

    def stop(self, number: int = signal.SIGINT) -> int | None:
        """Stop it; return how many connections it says it accepted."""
        if self.process.poll() is not None:
            return None
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=SOON_S)
        assert self.process.returncode == 0, err
        return int(out.split("Accepted ")[1].split()[0].replace(",", ""))


@pytest.fixture
def reaped() -> Iterator[list[subprocess.Popen[str]]]:
    """A list; the processes put in it are killed at the end."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def host_state() -> dict[str, Any]:
    """Everything of the host that a lab could leave something in."""
    state: dict[str, Any] = {
        "devices": Path("/proc/net/dev").read_text().count(":"),
        "addresses": sorted(psutil.net_if_addrs()),
        "routes": Path("/proc/net/route").read_text(),
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "shared": [sorted(folder.glob("*")) for folder in SHARED],
    }
    for tool in (["nft", "list", "ruleset"], ["iptables-save"], ["ip", "-o", "link"]):
        if shutil.which(tool[0]) and os.geteuid() == 0:
            done = subprocess.run(tool, capture_output=True, text=True, check=False)
            uncounted = re.sub(r"\[\d+:\d+\]|packets \d+ bytes \d+", "", done.stdout)
            state[tool[0]] = [line for line in uncounted.splitlines() if not line.startswith("#")]
    return state


def without_a_trace(work: Callable[[], Any]) -> Any:
    """Run ``work``, which must leave its host as it was: one of its own, for others may change ours."""

    def checked() -> Any:
        with contextlib.suppress(OSError):
            have_own_mounts()
        before = host_state()
        found = work()
        assert host_state() == before
        return found

    return in_sandbox(checked)


def network_namespaces(processes: Iterable[psutil.Process]) -> set[int]:
    """The network namespaces that processes are in, by inode."""
    found = set()
    for process in processes:
        try:
            found.add(Path(f"/proc/{process.pid}/ns/net").stat().st_ino)
        except OSError:
            continue
    return found


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a small client's, or watch's, result that is right in itself to a file."""

    def write(name: str, kind: str = "client", **changes: Any) -> Path:
        path = tmp_path / f"{name}.json"
        path.write_text(
            (small_watch if kind == "watch" else small_client)(name, **changes).model_dump_json()
        )
        return path

    return write
