"""The limits of ``client``, ``lab`` and ``report``: from options to an exit code."""

import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from snat_race.cli.parsing import parse_rate, parsed
from snat_race.errors import Inconclusive, ThresholdExceeded, UsageError

if TYPE_CHECKING:
    from snat_race.analysis.thresholds import Held, Thresholds
    from snat_race.results.cause import Cause
    from snat_race.results.schema import Summary

_LATENCY = re.compile(r"^([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|ms|s)$")
_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


def gathered(max_error_rate: str | None, max_p99: str | None, max_race_losses: int | None) -> "Thresholds":
    """Return the limits that were given.

    Raises:
        UsageError: one is no limit.

    """
    from snat_race.analysis.thresholds import Thresholds

    if max_race_losses is not None and max_race_losses < 0:
        raise UsageError(f"--max-race-losses: {max_race_losses} is no count; give 0 or more")
    return Thresholds(
        parsed(parse_rate, max_error_rate, "--max-error-rate"),
        parsed(parse_latency_ns, max_p99, "--max-p99"),
        max_race_losses,
    )


def parse_latency_ns(text: str, option: str) -> int:
    """Parse ``50ms``, ``800us`` or ``1.5s``; the unit must be there."""
    shape = _LATENCY.match(text.strip())
    if not shape or not float(shape[1]):
        raise UsageError(f"{option}: {text!r} is no latency above 0 with its unit; write 50ms, 800us or 1s")
    return round(float(shape[1]) * _NS[shape[2]])


def require(
    limits: "Thresholds", measured: Iterable[tuple[str, "Summary", list["Cause"]]], *, as_json: bool = False
) -> None:
    """Print each limit with what was observed, for each thing that was measured.

    Raises:
        ThresholdExceeded: one does not hold.
        Inconclusive: of one, nobody can tell.

    """
    from snat_race.analysis.thresholds import held

    checked = [(name, each) for name, summary, causes in measured for each in held(limits, summary, causes)]
    for name, each in checked:
        print(_line(name, each), file=sys.stderr if as_json else sys.stdout, flush=True)
    broken = [_line(name, each) for name, each in checked if each.holds is False]
    if broken:
        raise ThresholdExceeded("; ".join(broken))
    unknown = [_line(name, each) for name, each in checked if each.holds is None]
    if unknown:
        raise Inconclusive("; ".join(unknown))


def _line(name: str, each: "Held") -> str:
    from snat_race.report.wording.formats import duration, percent

    forms: dict[str, Callable[[float], str]] = {"--max-error-rate": percent, "--max-p99": duration}
    form = forms.get(each.option, "{:,.0f}".format)
    observed = "" if each.observed is None else f"observed {form(each.observed)}"
    told = ", ".join(part for part in (observed, each.why) if part)
    word = {True: "holds", False: "does not hold", None: "cannot be told"}[each.holds]
    whose = f" under '{name}'" if name else ""
    return f"{each.option} {form(each.limit)} {word}{whose}: {told}"
