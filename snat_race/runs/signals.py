"""SIGINT, SIGTERM and SIGHUP end a run in good order: its result is still printed and saved."""

import os
import select
import signal
import time
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REPEATED_WITHIN_S = 1.0  # timeout(1), make(1) and terminals may send the same signal twice


class StopSignals:
    """A context manager that turns the first signal into ``requested``; a later one interrupts.

    An instance can be called, and then says whether a stop is requested: it fits where a function
    ``cancelled()`` is wanted.
    """

    def __init__(self) -> None:
        self.requested = False
        self._first_signal_s = 0.0
        # wait() sleeps on this pipe. A threading.Event would not do: its lock may be held by the very
        # code that the handler interrupts, and then nobody is woken.
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def __enter__(self) -> Self:
        numbers = [number for number in _SIGNALS if not _is_ignored_by_nohup(number)]
        self._previous_handlers = {number: signal.signal(number, self._handle) for number in numbers}
        # Python runs _handle() only after select() has returned. The C handler behind set_wakeup_fd()
        # writes to the pipe at once, so select() returns.
        self._previous_wakeup_fd = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup_fd)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.requested

    def wait(self, longest_s: float) -> bool:
        """Wait for a signal, ``longest_s`` seconds at the most; return whether one has come."""
        deadline_s = time.monotonic() + longest_s
        while not self.requested and (left_s := deadline_s - time.monotonic()) > 0:
            if select.select([self._wake_read], [], [], left_s)[0]:
                os.read(self._wake_read, 64)  # a signal that is not one of ours also writes
        return self.requested

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if not self.requested:
            self._first_signal_s = now_s
            self.requested = True
        elif now_s - self._first_signal_s > _REPEATED_WITHIN_S:
            raise KeyboardInterrupt


def _is_ignored_by_nohup(number: signal.Signals) -> bool:
    """Whether nohup(1) has SIGHUP ignored for us; then it must stay ignored."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
