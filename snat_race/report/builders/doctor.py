"""What ``doctor`` found, as text."""

import textwrap

from snat_race.results.findings import DoctorResult, Finding

_WIDTH = 108
_ORDER = ("exposed", "unknown", "warning", "ok")
_WORDS = {"exposed": "EXPOSED", "unknown": "UNKNOWN", "warning": "warning", "ok": "ok"}


def doctor_report(result: DoctorResult) -> str:
    """Return every finding, the worst first, and the verdict in one sentence."""
    return "\n".join((*doctor_lines(result), "", verdict_of(result)))


def doctor_lines(result: DoctorResult) -> tuple[str, ...]:
    """Return every finding, the worst first."""
    ordered = sorted(result.findings, key=lambda each: _ORDER.index(each.level))
    return tuple(line for each in ordered for line in _lines(each))


def _lines(finding: Finding) -> list[str]:
    head = f"{_WORDS[finding.level]:<9}{finding.check}: "
    lines = textwrap.wrap(
        finding.evidence, _WIDTH, initial_indent=head, subsequent_indent=" " * 9, break_on_hyphens=False
    )
    if finding.advice:
        lines += textwrap.wrap(
            finding.advice, _WIDTH, initial_indent=" " * 9 + "-> ", subsequent_indent=" " * 12,
            break_on_hyphens=False,
        )  # fmt: skip
    return lines


def verdict_of(result: DoctorResult) -> str:
    """Return the verdict in one sentence."""
    rules = sum(each.level == "exposed" for each in result.findings)
    if rules:
        return f"Exposed: {rules} {'rule' if rules == 1 else 'rules'} here can lose SYNs to the race."
    if result.has("unknown"):
        return "Cannot tell: not everything could be read."
    return "Not exposed: no rule here can lose SYNs to the race."
