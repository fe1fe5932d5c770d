"""The sections that documents of several kinds have."""

from collections.abc import Iterable, Sequence
from typing import Any

from snat_race.report.document import Column, Importance, Section, Table
from snat_race.report.wording.causes import advice, evidence
from snat_race.report.wording.causes import name as cause_name
from snat_race.results.conclusions import CandidateCause, Cause
from snat_race.results.model import Result

_MOST_CPUS_NAMED = 12
# Where it ran and who wrote it, beyond what people compare.
_NOT_SHOWN = ("boot_id", "usable_cpus")
# Integers that are names, not quantities: as an option takes them.
_NAMES = ("seed",)


def causes(named: Iterable[tuple[str, Cause | CandidateCause]]) -> Section | None:
    """Return what explains the losses, and each advice once; None if nothing does.

    ``named``: each cause with the name of the rule that it is about, "" if there is only one.
    """
    pairs = list(named)
    if not pairs:
        return None
    whose = any(name for name, _ in pairs)
    at_most = any(isinstance(cause, CandidateCause) for _, cause in pairs)
    columns = [
        Column(heading="rule", importance=Importance.key),
        Column(heading="cause", importance=Importance.main if whose else Importance.key),
        Column(heading="at most" if at_most else "losses", number=True, importance=Importance.main),
        Column(heading="evidence"),
    ]
    rows = [[name, cause_name(cause), f"{_losses(cause):,}", evidence(cause)] for name, cause in pairs]
    if not whose:
        del columns[0]
        rows = [row[1:] for row in rows]
    table = Table(columns=tuple(columns), rows=tuple(map(tuple, rows)))
    return Section(title="Causes", table=table, sentences=_advice(pairs))


def _losses(cause: Cause | CandidateCause) -> int:
    return cause.losses if isinstance(cause, Cause) else cause.at_most


def _advice(pairs: Sequence[tuple[str, Cause | CandidateCause]]) -> tuple[str, ...]:
    """Say what to do about each cause, and under which rules it was seen."""
    rules: dict[tuple[str, str], list[str]] = {}
    for name, cause in pairs:
        seen_under = rules.setdefault((cause_name(cause), advice(cause)), [])
        if name:
            seen_under.append(f"'{name}'")
    return tuple(
        f"To do about {cause}{' under ' if names else ''}{', '.join(names)}: {what}."
        for (cause, what), names in rules.items()
    )


def on_cpus(per_cpu: Sequence[int]) -> str:
    """Return which CPUs counted how many, a dozen at most; "-" if none did."""
    counted = [f"{cpu}: {count:,}" for cpu, count in enumerate(per_cpu) if count]
    more = " ..." if len(counted) > _MOST_CPUS_NAMED else ""
    return ", ".join(counted[:_MOST_CPUS_NAMED]) + more or "-"


def conditions(result: Result) -> Section:
    """Return how it was measured: settings that were given or worked out, and the machine."""
    settings: dict[str, Any] = {"began": result.started_at, "snat_race": result.tool.version}
    settings |= {key: value for key, value in result.environment.items() if key not in _NOT_SHOWN}
    settings |= {key: value for key, value in result.spec.items() if value not in (None, "", [], ())}
    return Section(
        title="How it was measured",
        table=Table(
            columns=(Column(heading="setting", importance=Importance.key), Column(heading="value")),
            rows=tuple((key, _setting(key, value)) for key, value in settings.items()),
        ),
        detail=True,
    )


def _setting(key: str, value: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool) and key not in _NAMES:
        return f"{value:,}"
    if isinstance(value, float):
        # Not as a subclass shows itself: a file holds plain numbers, and its report is to be the same.
        return str(float(value))
    return str(value)


def title_of(result: Result) -> str:
    """Return the title of a lab's run: what was staged, and on which kernel."""
    scenario = result.spec.get("scenario", "unknown scenario")
    return f"snat_race lab, {scenario}, kernel {result.environment.get('kernel', 'unknown')}"


def origin(result: Result) -> tuple[str, ...]:
    """Return when, where and by what a result was made."""
    began = result.started_at.replace("T", " ").partition(".")[0].removesuffix("Z")
    merged = "+" in result.run_id
    return (
        f"{began} UTC",
        f"kernel {result.environment.get('kernel', 'unknown')}",
        f"snat_race {result.tool.version}",
        f"run {result.run_id if merged else result.run_id[:8]}",
    )


def present(*sections: Section | None) -> tuple[Section, ...]:
    """Return the sections that there are."""
    return tuple(section for section in sections if section)
