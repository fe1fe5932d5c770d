"""Forked workers: pinned, ready before anything starts, gone when their parent is gone."""

import contextlib
import ctypes
import gc
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, Self

import psutil

from snat_race.errors import EnvironmentLacks, Interrupted, SnatRaceError

_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29  # prctl(2)
_READY = "ready"
_READY_TIMEOUT_S = 30.0  # from one worker's report to the next's: many on a busy machine take long
_REAP_POLL_S = 0.005
_HANDLED_BY_THE_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class WorkerProcess:
    """One forked worker."""

    name: str  # what messages call it
    pid: int
    status: int | None = None  # its wait status, once it has been reaped

    def pin(self, cpu: int) -> None:
        """Move it to ``cpu``, if both are still there."""
        # psutil takes 40 us for that, and all workers may be moved several times a second.
        with contextlib.suppress(OSError):  # a cpuset may have taken the CPU away
            os.sched_setaffinity(self.pid, [cpu])


class WorkerProcesses:
    """The workers of one kind. A context manager: on leaving, all of them are dead.

    Once ``cancelled()``, no more are started or waited for.
    """

    def __init__(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        self._cancelled = cancelled
        self.members: list[WorkerProcess] = []
        self._report_r, self._report_w = os.pipe()
        self._heard: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(grace_s=0)
        for end in (self._report_r, self._report_w):
            os.close(end)

    def fork(
        self,
        name: str,
        work: Callable[[], None],
        *,
        cpu: int | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> WorkerProcess:
        """Fork a worker that runs ``prepare``, pins itself to ``cpu``, reports, and does ``work``.

        ``work`` must wait for its first order by itself.

        Raises:
            EnvironmentLacks: there may be no more processes.
            Interrupted: cancelled meanwhile.

        """
        self._require_wanted()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as failed:
            raise EnvironmentLacks(
                f"cannot start {name}: {failed.strerror}; use fewer workers or raise ulimit -u"
            ) from failed
        if not pid:
            self._be_worker(name, partial(self._become_worker, parent, cpu, prepare), work)
        process = WorkerProcess(name, pid)
        self.members.append(process)
        return process

    def _be_worker(self, name: str, become_one: Callable[[], None], work: Callable[[], None]) -> NoReturn:
        status = 1
        try:
            become_one()
            os.write(self._report_w, f"{_READY}\n".encode())
            work()
            status = 0
        except BaseException as failed:  # noqa: BLE001 - nothing may escape into the parent's code
            line = f"{name}: {type(failed).__name__}: {failed}".replace("\n", " ")[:500]
            os.write(self._report_w, line.encode() + b"\n")
        finally:
            os._exit(status)

    @staticmethod
    def _become_worker(parent: int, cpu: int | None, prepare: Callable[[], None] | None) -> None:
        for number in _HANDLED_BY_THE_PARENT:
            signal.signal(number, signal.SIG_IGN)
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        if os.getppid() != parent:
            raise SnatRaceError("the parent died while its worker was starting")
        if prepare:
            prepare()
        if cpu is not None:
            psutil.Process().cpu_affinity([cpu])
        gc.disable()
        gc.freeze()

    def wait_ready(self) -> None:
        """Return when every worker has reported.

        Raises:
            SnatRaceError: a worker failed to start; its message says why.
            Interrupted: cancelled meanwhile.

        """
        heard, heard_s = 0, time.monotonic()
        while self._heard.count(_READY) < len(self.members):
            self._hear(wait_s=0.1)
            self.require_alive()
            self._require_wanted()
            if len(self._heard) > heard:
                heard, heard_s = len(self._heard), time.monotonic()
            elif time.monotonic() - heard_s > _READY_TIMEOUT_S:
                raise SnatRaceError(f"no worker became ready within {_READY_TIMEOUT_S:.0f} s; use fewer")

    def _require_wanted(self) -> None:
        if self._cancelled():
            raise Interrupted("interrupted while the workers were starting")

    def require_alive(self) -> None:
        """Check that no worker has ended.

        Raises:
            SnatRaceError: with the worker's own last words, or how it was killed.

        """
        dead = self.reap()
        if dead:
            self._hear(wait_s=0)
            raise SnatRaceError(self._cause_of_death(dead[0]))

    def _hear(self, wait_s: float) -> None:
        """Read the reports that have come in; each is a line, written whole."""
        reports = select.poll()  # unlike select(), it takes descriptors above 1023
        reports.register(self._report_r, select.POLLIN)
        while reports.poll(wait_s * 1000):
            self._heard += os.read(self._report_r, 65536).decode().splitlines()
            wait_s = 0

    def _cause_of_death(self, member: WorkerProcess) -> str:
        for line in self._heard:
            if line.startswith(f"{member.name}: "):
                return line
        code = os.waitstatus_to_exitcode(member.status or 0)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return f"{member.name} (pid {member.pid}) {how}"

    def reap(self) -> list[WorkerProcess]:
        """Collect the workers that have ended; return all that have, so far."""
        for member in self.members:
            if member.status is None:
                pid, status = os.waitpid(member.pid, os.WNOHANG)
                if pid:
                    member.status = status
        return [member for member in self.members if member.status is not None]

    def stop(self, grace_s: float) -> None:
        """Give workers ``grace_s`` to end by themselves, then kill and reap the rest."""
        deadline = time.monotonic() + grace_s
        while len(self.reap()) < len(self.members) and time.monotonic() < deadline:
            time.sleep(_REAP_POLL_S)
        for member in self.members:
            if member.status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)
                member.status = os.waitpid(member.pid, 0)[1]
