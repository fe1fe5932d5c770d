"""The limits of ``client``, ``lab`` and ``report``: from what was measured to an exit code."""

import sys
from typing import TYPE_CHECKING

from snat_race.cli.terminal import say
from snat_race.errors import Inconclusive, ThresholdExceeded, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from snat_race.analysis.thresholds import LimitCheck, Thresholds
    from snat_race.report.registry import Measured, Reportable


def measured_in(result: "Reportable") -> "Sequence[Measured]":
    """Return what limits are held against: the dials of each rule, or of the whole run.

    Raises:
        UsageError: the result has none.

    """
    from snat_race.report.registry import kind_of

    measured = kind_of(result).measured(result)
    if not measured:
        raise UsageError(
            f"a {result.kind} result has no dials to hold to a limit; give that of a client or a lab"
        )
    return measured


def require(limits: "Thresholds", measured: "Sequence[Measured]", *, as_json: bool) -> None:
    """Print each limit with what was observed, for each thing that was measured.

    Raises:
        ThresholdExceeded: one does not hold.
        Inconclusive: of one, nobody can tell.

    """
    from snat_race.analysis.thresholds import checked

    checks = [
        (dials.name, check)
        for dials in measured
        for check in checked(limits, dials.summary, dials.diagnosis)
    ]
    for name, check in checks:
        say(_line(name, check), sys.stderr if as_json else sys.stdout)
    broken = [_line(name, check) for name, check in checks if check.holds is False]
    if broken:
        raise ThresholdExceeded("; ".join(broken))
    unknown = [_line(name, check) for name, check in checks if check.holds is None]
    if unknown:
        raise Inconclusive("; ".join(unknown))


def _line(name: str, check: "LimitCheck") -> str:
    """Say whether a limit holds, of what, and why that cannot be told if it cannot."""
    from snat_race.analysis.thresholds import Limit, Unknown
    from snat_race.report.wording.client_lines import LATE
    from snat_race.report.wording.formats import duration, percent, plural

    options = {
        Limit.error_rate: "--max-error-rate",
        Limit.p99_ns: "--max-p99",
        Limit.race_losses: "--max-race-losses",
    }
    reasons = {
        Unknown.nothing_dialled: "nothing was dialled, so nothing is known",
        Unknown.no_percentiles: "a run that was cut off has no percentiles; run it again",
        Unknown.causes_unproven: (
            f"and {plural(check.unproven, 'more loss')} of which nobody can tell the cause; add "
            "--watch-netns, or merge a watch of the NAT's host"
        ),
    }
    forms: dict[Limit, Callable[[float], str]] = {Limit.error_rate: percent, Limit.p99_ns: duration}
    form = forms.get(check.limit, "{:,.0f}".format)
    observed = "" if check.observed is None else f"observed {form(check.observed)}"
    if check.late_by_retransmit:
        observed += f", {plural(check.late_by_retransmit, 'dial')} of it {LATE}"
    reason = reasons[check.unknown] if check.unknown else ""
    details = ", ".join(part for part in (observed, reason) if part)
    word = {True: "holds", False: "does not hold", None: "cannot be told"}[check.holds]
    whose = f" under '{name}'" if name else ""
    return f"{options[check.limit]} {form(check.allowed)} {word}{whose}: {details}"
