"""How a process of ours ends when somebody wants it to: by SIGINT, SIGTERM or SIGHUP.

======== ===========================================================================================
phase    what a signal does
======== ===========================================================================================
starting It ends the process at once, with the code of :class:`Interrupted`: ``__main__`` sees to that.
held     It sets ``requested``. The run ends as if its time were over, is saved, then printed, and no
         further signal changes that.
leaving  Nothing: the exit code is decided.
======== ===========================================================================================

The second phase begins with ``with StopSignals()``. The program does not go back to the first: what was
measured has to be saved. What is held must not block for ever, so whatever may do so is written by
:func:`write`. SIGQUIT is left to the kernel: it ends everything at once, saved or not.
"""

import errno
import os
import select
import signal
import stat
import time
from types import FrameType
from typing import ClassVar

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STUCK_AFTER_S = 2.0  # once a stop is requested, a reader who takes nothing for so long is given up
_TICK_S = 0.25


class StopSignals:
    """A context manager that turns signals into ``requested``.

    A process has one at a time: ``with`` gives that one, also within another. It can be called, and then
    says whether a stop is requested: it fits where a function ``cancelled()`` is wanted.
    """

    present: ClassVar["StopSignals | None"] = None

    def __init__(self) -> None:
        self.requested = False
        self.outlives_reader = False  # whether a run goes on whose stdout nobody reads any more
        self.blocked_since_s: float | None = None  # when the write() began that may be broken off
        self._requested_s = 0.0
        self._held = False

    @classmethod
    def of_process(cls) -> "StopSignals":
        """Return the one of this process. If there is none, make one that stays: the program's."""
        cls.present = cls.present or cls()
        return cls.present

    def __enter__(self) -> "StopSignals":  # noqa: PYI034 - it may be another
        StopSignals.present = StopSignals.present or self
        StopSignals.present.hold()
        return StopSignals.present

    def __exit__(self, *_: object) -> None:
        if StopSignals.present is not self:
            return
        StopSignals.present = None
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup_fd)
        if self.requested:
            signal.setitimer(signal.ITIMER_REAL, *self._previous_timer)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def __call__(self) -> bool:
        """Whether a stop is requested."""
        return self.requested

    def hold(self) -> None:
        """Have signals request a stop from now on."""
        if self._held:
            return
        self._held = True
        # wait() sleeps on this pipe. A threading.Event would not do: its lock may be held by the very
        # code that the handler interrupts, and then nobody is woken.
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        handlers = {number: self._handle for number in _SIGNALS if not _is_ignored_by_nohup(number)}
        handlers[signal.SIGALRM] = self._tick
        self._previous_handlers = {number: signal.signal(number, handlers[number]) for number in handlers}
        # Python runs _handle() only after select() has returned. The C handler behind set_wakeup_fd()
        # writes to the pipe at once, so select() returns.
        self._previous_wakeup_fd = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def request(self) -> None:
        """Request a stop, as a signal does."""
        if self._held and not self.requested:
            self.requested = True
            self._requested_s = time.monotonic()
            self._previous_timer = signal.setitimer(signal.ITIMER_REAL, _TICK_S, _TICK_S)

    def reader_lost(self) -> None:
        """Request a stop because stdout cannot be written any more, unless the run goes on without."""
        if not self.outlives_reader:
            self.request()

    def wait(self, longest_s: float) -> bool:
        """Wait for a signal, ``longest_s`` seconds at the most; return whether a stop is requested."""
        deadline_s = time.monotonic() + longest_s
        while not self.requested and (left_s := deadline_s - time.monotonic()) > 0:
            if select.select([self._wake_read], [], [], left_s)[0]:
                os.read(self._wake_read, 64)  # a signal that is not one of ours also writes
        return self.requested

    def leave(self) -> None:
        """Ignore all signals from now on: nothing is left to do but to exit."""
        for number in (*_SIGNALS, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.request()

    def _tick(self, _number: int, _frame: FrameType | None) -> None:
        """Break off a write() that nobody reads; called again and again once a stop is requested."""
        since_s = self.blocked_since_s
        if since_s is None or time.monotonic() - max(since_s, self._requested_s) < _STUCK_AFTER_S:
            return
        self.blocked_since_s = None  # before all else: no second tick may raise outside of write()
        raise TimeoutError(errno.ETIMEDOUT, "nobody reads it")


def write(descriptor: int, data: bytes | memoryview) -> int:
    """Write as os.write() does, but not for ever once a stop is requested.

    A file of a disk has no reader who may be gone: it is slow, and its write ends.

    Raises:
        TimeoutError: a stop is requested, and nobody took any of it for 2 s.
        OSError: as for os.write().

    """
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.write(descriptor, data)
    stop = StopSignals.present or StopSignals()
    stop.blocked_since_s = time.monotonic()
    try:
        while True:
            try:
                return os.write(descriptor, data)
            except BlockingIOError:  # another process, which shares it, has made it so
                writable = select.poll()
                writable.register(descriptor, select.POLLOUT)
                writable.poll(_TICK_S * 1000)
    finally:
        stop.blocked_since_s = None


def _is_ignored_by_nohup(number: signal.Signals) -> bool:
    """Whether nohup(1) has SIGHUP ignored for us; then it must stay ignored."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
