"""A progress line on a terminal; nothing at all when the output is piped."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class ProgressLine:
    """A context manager; call it with the share done and what is being measured."""

    def __init__(self) -> None:
        # Not whether rich would colour it: FORCE_COLOR must not put a live line into a file.
        on_terminal = sys.stderr.isatty()
        # No auto-refresh: it would start a thread in a process that forks.
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            disable=not on_terminal,
        )
        self._task = self._progress.add_task("setting up", total=1.0)

    def __enter__(self) -> Self:
        self._progress.start()
        self._progress.refresh()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, share: float, doing: str) -> None:
        """Show the share done, 0 to 1, and what is being measured."""
        self._progress.update(self._task, completed=share, description=doing)
        self._progress.refresh()
