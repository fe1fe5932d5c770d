"""SIGINT, SIGTERM and SIGHUP end a run as an order, not as an accident."""

import signal
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NOHUP = {signal.SIGHUP: signal.SIG_IGN}


class Interrupt:
    """A context manager; ``requested`` turns true on the first signal. A second one interrupts."""

    def __init__(self) -> None:
        self.requested = False

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

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
