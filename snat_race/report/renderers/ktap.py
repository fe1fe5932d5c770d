"""Checks in KTAP, the format of the kernel's own tests (Documentation/dev-tools/ktap.rst)."""

from snat_race.report.document import Check, CheckList
from snat_race.report.terminal import printable


def ktap(plan: CheckList) -> str:
    """Return a test point for each check: ok, not ok, or SKIP where it cannot be told."""
    lines = ["KTAP version 1", f"# {printable(plan.title)}", f"1..{len(plan.checks)}"]
    for number, check in enumerate(plan.checks, 1):
        lines += [f"# {printable(line)}" for line in check.evidence]
        lines.append(_point(number, check))
    return "\n".join(lines)


def _point(number: int, check: Check) -> str:
    word = "not ok" if check.passed is False else "ok"
    directive = f" # SKIP {printable(check.why_skipped)}" if check.passed is None else ""
    # A # in a name would begin a directive.
    return f"{word} {number} {printable(check.name).replace('#', '')}{directive}"
