"""SIGINT, SIGTERM and SIGHUP end a run as an order, not as an accident."""

import signal
import threading
import time
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_ORDER_S = 1.0  # timeout(1), make and terminals may deliver one order twice
_NOHUP = {signal.SIGHUP: signal.SIG_IGN}


class Interrupt:
    """A context manager; ``requested`` turns true on the first signal. A later one interrupts."""

    def __init__(self) -> None:
        self._event, self._first_s = threading.Event(), 0.0

    def __enter__(self) -> Self:
        # nohup has SIGHUP ignored, and means it.
        numbers = [number for number in _SIGNALS if signal.getsignal(number) != _NOHUP.get(number)]
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.requested

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._event.is_set()

    def wait(self, longest_s: float) -> bool:
        """Wait for a signal; whether one has come."""
        return self._event.wait(max(0.0, longest_s))

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if not self.requested:
            self._first_s = now_s
            self._event.set()
        elif now_s - self._first_s > _SAME_ORDER_S:
            raise KeyboardInterrupt
