"""``python -m snat_race``, and ``snat-race``.

Until something is measured or changed, a signal ends the process at once. What it does from then on, and
why, says :mod:`snat_race.runs.signals`. Python itself takes some 15 ms to start, and only then can we
handle anything; so nothing that takes time may be imported above :func:`main`.
"""

import contextlib
import os
import select
import signal

_STDERR = 2
_INTERRUPTED = 130  # the exit code of errors.Interrupted


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup(1) has it ignored
            signal.signal(number, _end_at_once)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by the shell (>&-); the next file to be opened must not take its number
            os.open(os.devnull, os.O_RDWR)
    from snat_race.cli import app

    app.main()


def _end_at_once(_number: int, _frame: object) -> None:
    if select.select([], [_STDERR], [], 0)[1]:  # or else it may block
        with contextlib.suppress(OSError):  # nobody is there to read it
            os.write(_STDERR, b"snat_race: interrupted before there was anything to report\n")
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
