"""SIGINT, SIGTERM and SIGHUP end a run as an order, not as an accident."""

import os
import select
import signal
import time
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_ORDER_S = 1.0  # timeout(1), make and terminals may deliver one order twice
_NOHUP = {signal.SIGHUP: signal.SIG_IGN}


class StopSignals:
    """A context manager; ``requested`` turns true on the first signal. A later one interrupts."""

    def __init__(self) -> None:
        self.requested, self._first_s = False, 0.0
        # A lock, as threading has them, may be held when a signal comes.
        self._heard, self._told = os.pipe()
        os.set_blocking(self._told, False)

    def __enter__(self) -> Self:
        # nohup has SIGHUP ignored, and means it.
        numbers = [number for number in _SIGNALS if signal.getsignal(number) != _NOHUP.get(number)]
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
        # A handler in Python runs only once select() has returned; this one of C writes at once.
        self._previous_told = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_told)
        os.close(self._heard)
        os.close(self._told)

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.requested

    def wait(self, longest_s: float) -> bool:
        """Wait for a signal; whether one has come."""
        deadline_s = time.monotonic() + longest_s
        while not self.requested and (left_s := deadline_s - time.monotonic()) > 0:
            if select.select([self._heard], [], [], left_s)[0]:
                os.read(self._heard, 64)  # a signal that is not ours may have written
        return self.requested

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if not self.requested:
            self._first_s = now_s
            self.requested = True
        elif now_s - self._first_s > _SAME_ORDER_S:
            raise KeyboardInterrupt
