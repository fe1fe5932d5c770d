"""The exception tree. ``cli/app.py`` catches it, once, and exits with the class's code.

::

    SnatRaceError             1  a fault of ours, or a worker that died
    ├── UsageError            2  bad input; the message names the option and says what to do
    ├── ThresholdExceeded     3  the run worked; a limit the user set did not hold
    ├── EnvironmentLacks      4  this machine lacks something; the message says how to get it
    │   └── Unavailable       4  one variant cannot be had here; the others can
    ├── Inconclusive          4  the run worked, but cannot answer what it was to show
    └── Interrupted         130  a signal came before there was anything to report
"""


class SnatRaceError(Exception):
    """A fault of ours. The message is one line."""

    exit_code = 1


class UsageError(SnatRaceError):
    """The user asked for something that cannot be; the message says what to do."""

    exit_code = 2


class ThresholdExceeded(SnatRaceError):
    """A limit that the user set, such as the highest error rate, did not hold."""

    exit_code = 3


class EnvironmentLacks(SnatRaceError):
    """A privilege, a kernel feature or a free address is missing."""

    exit_code = 4


class Unavailable(EnvironmentLacks):
    """A variant that this kernel or backend cannot load; the lab goes on without it."""


class Inconclusive(SnatRaceError):
    """What was measured is too little, or too blurred, to say whether it shows what was expected."""

    exit_code = 4


class Interrupted(SnatRaceError):
    """A signal came before there was anything to report."""

    exit_code = 130
