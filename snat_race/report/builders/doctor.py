"""What ``doctor`` found, as text."""

import textwrap

from snat_race.report.wording.findings import verdict, worded
from snat_race.report.wording.program import Program
from snat_race.results.findings import DoctorResult, Finding, Level

_WIDTH = 108
_LEVELS = {Level.exposed: "EXPOSED", Level.unknown: "UNKNOWN", Level.warning: "warning", Level.ok: "ok"}


def doctor_report(result: DoctorResult, program: Program) -> str:
    """Return every finding, the worst first, and the verdict in one sentence."""
    return "\n".join((*doctor_lines(result, program), "", verdict(result)))


def doctor_lines(result: DoctorResult, program: Program) -> tuple[str, ...]:
    """Return every finding, the worst first."""
    ordered = sorted(result.findings, key=lambda finding: list(Level).index(finding.level))
    return tuple(line for finding in ordered for line in _lines(result, finding, program))


def _lines(result: DoctorResult, finding: Finding, program: Program) -> list[str]:
    words = worded(result, finding, program)
    head = f"{_LEVELS[finding.level]:<9}{words.title}: "
    lines = textwrap.wrap(
        words.evidence,
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * 9,
        break_on_hyphens=False,
    )
    if words.advice:
        lines += textwrap.wrap(
            words.advice,
            _WIDTH,
            initial_indent=" " * 9 + "-> ",
            subsequent_indent=" " * 12,
            break_on_hyphens=False,
        )
    return lines
