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
from typing import Self

import psutil

from snat_race.errors import EnvironmentLacks, SnatRaceError

_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29  # prctl(2)
_READY_TIMEOUT_S = 30.0
_HANDLED_BY_THE_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Member:
    """One forked worker. ``status`` is its wait status once it has been reaped."""

    name: str
    pid: int
    status: int | None = None

    def obituary(self) -> str:
        """Say how it ended, in words."""
        code = os.waitstatus_to_exitcode(self.status or 0)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return f"{self.name} (pid {self.pid}) {how}"


class Crew:
    """The workers of one kind. A context manager: on leaving, all of them are dead."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._report_r, self._report_w = os.pipe()

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
    ) -> None:
        """Fork a worker that runs ``prepare``, pins itself to ``cpu``, reports, and does ``work``.

        ``work`` must wait for its first order by itself.
        """
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as failed:
            raise EnvironmentLacks(
                f"cannot start {name}: {failed.strerror}; use fewer --workers or raise ulimit -u"
            ) from failed
        if pid:
            self.members.append(Member(name, pid))
            return
        status = 1
        try:
            self._become_worker(parent, cpu, prepare)
            os.write(self._report_w, b"ready\n")
            work()
            status = 0
        except BaseException as failed:  # noqa: BLE001 - nothing may escape into the parent's code
            line = f"{name}: {type(failed).__name__}: {failed}".replace("\n", " ")
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

        """
        awaited, deadline, heard = len(self.members), time.monotonic() + _READY_TIMEOUT_S, b""
        while awaited > heard.count(b"\n"):
            if not select.select([self._report_r], [], [], 0.2)[0]:
                dead = self.reap()
                if dead or time.monotonic() > deadline:
                    raise SnatRaceError(dead[0].obituary() if dead else "workers did not start")
                continue
            heard += os.read(self._report_r, 65536)
        failures = [line for line in heard.decode().splitlines() if line != "ready"]
        if failures:
            raise SnatRaceError(failures[0])

    def reap(self) -> list[Member]:
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
            time.sleep(0.002)
        for member in self.members:
            if member.status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)
                member.status = os.waitpid(member.pid, 0)[1]
