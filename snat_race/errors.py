"""The exception tree, and the exit codes of the program.

``cli/app.py`` catches every error, once: it prints the message as one line and exits with the class's code.

==== ==================================================================================================
code meaning
==== ==================================================================================================
0    done; also: ended by a signal with something to report, and: the reader of stdout had enough
1    a fault of ours, or a worker that died (:class:`SnatRaceError`)
2    bad input: the message names the option and says what to write (:class:`UsageError`)
3    the run worked; a limit that the user set does not hold, or doctor found rules that race
     (:class:`ThresholdExceeded`)
4    this machine lacks something, and the message says how to get it (:class:`EnvironmentLacks`,
     :class:`Unavailable`), or stdout or a file could not be written; or what was measured cannot tell
     what was asked (:class:`Inconclusive`)
130  a signal came before there was anything to report (:class:`Interrupted`)
==== ==================================================================================================
"""


class SnatRaceError(Exception):
    """A fault of ours, or a worker that died. The message is one line."""

    exit_code = 1


class UsageError(SnatRaceError):
    """The user asked for something that cannot be; the message says what to do."""

    exit_code = 2


class ThresholdExceeded(SnatRaceError):
    """A limit that the user set does not hold."""

    exit_code = 3


class EnvironmentLacks(SnatRaceError):
    """A privilege, a kernel feature, a program or a free address is missing."""

    exit_code = 4


class ExtraMissing(EnvironmentLacks):
    """Libraries are missing that only an installation with an extra has."""

    extra: str  # as pyproject.toml calls it


class ReportExtraMissing(ExtraMissing):
    """What draws pages is missing."""

    extra = "report"


class PrometheusExtraMissing(ExtraMissing):
    """What serves Prometheus is missing."""

    extra = "prometheus"


class Unavailable(EnvironmentLacks):
    """A variant that this kernel or backend cannot load; the lab goes on without it."""


class Inconclusive(SnatRaceError):
    """What was measured is too little, or too blurred, to tell what was asked."""

    exit_code = 4


class Interrupted(SnatRaceError):
    """A signal came before there was anything to report."""

    exit_code = 130
