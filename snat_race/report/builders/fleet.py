"""What ``doctor`` found on many hosts, as a document: a row for each host and each program there."""

from collections.abc import Iterator
from dataclasses import dataclass

from snat_race.analysis.fleet import namesakes
from snat_race.report.builders import shared_sections
from snat_race.report.document import Column, Document, Importance, Section, Table, Tone
from snat_race.report.wording import findings, fleet, snat_rules
from snat_race.report.wording.owners import setting
from snat_race.report.wording.program import Program
from snat_race.results.findings import OWN_NAMESPACE, Finding, Level
from snat_race.results.fleet import FleetHost, FleetResult

_LEVELS = {Level.exposed: "EXPOSED", Level.unknown: "UNKNOWN", Level.ok: "ok"}
_TONES = {Level.exposed: Tone.bad, Level.unknown: Tone.unsure, Level.ok: Tone.good}


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """What is said of one host and one program that wrote rules there."""

    level: Level  # exposed; unknown: not everything could be read; ok: neither
    host: str  # with the namespace, if that is not the host's own
    kernel: str  # release; "": not known
    exposed: int  # rules of this program that can lose SYNs
    owner: str  # the program that wrote them; "": there are none, or it is not said
    # The program's own setting, behind why ``mitigate`` leaves its rules; of what could not be read, why,
    # and what to do.
    helps: str


def rows(result: FleetResult) -> Iterator[FleetRow]:
    """Yield what is said of each host, the worst host first."""
    for host in result.hosts:
        yield from _rows_of(host)


def _rows_of(host: FleetHost) -> Iterator[FleetRow]:
    is_ok = True
    for (owner, helps), exposed in _by_owner(host).items():
        is_ok = False
        yield _row(host, Level.exposed, exposed=exposed, owner=owner, helps=helps)
    for finding in host.of_level(Level.unknown):
        is_ok = False
        words = findings.worded(host, finding, Program())
        yield _row(host, Level.unknown, helps="; ".join(filter(None, (words.evidence, words.advice))))
    if is_ok:
        yield _row(host, Level.ok)


def _by_owner(host: FleetHost) -> dict[tuple[str, str], int]:
    """Return how many exposed rules each program has written, by its name and by what helps; most first."""
    counts: dict[tuple[str, str], int] = {}
    for finding in host.of_level(Level.exposed):
        key = _owner_and_help(finding)
        counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _owner_and_help(finding: Finding) -> tuple[str, str]:
    if rule := finding.rule:
        why = f"{snat_rules.why_unchangeable(rule.unchangeable)}: " if rule.unchangeable else ""
        return str(rule.owner), f"{why}{setting(rule.owner)}"
    return "", finding.recorded.advice if finding.recorded else ""


def _row(host: FleetHost, level: Level, *, exposed: int = 0, owner: str = "", helps: str = "") -> FleetRow:
    own = host.netns == OWN_NAMESPACE
    name = host.host if own else f"{host.host} ({host.netns})"
    return FleetRow(level=level, host=name, kernel=host.kernel, exposed=exposed, owner=owner, helps=helps)


def document(result: FleetResult) -> Document:
    """Return the hosts with rules that race, the worst first; then those that could not be read; then the
    others.
    """
    every = list(rows(result))
    bad = [row for row in every if row.level != Level.ok]
    good = [row for row in every if row.level == Level.ok]
    began = result.started_at.replace("T", " ").partition(".")[0].removesuffix("Z")
    return Document(
        title=f"snat_race doctor, {fleet.hosts(len(result.hosts))}",
        verdict=fleet.verdict(result),
        tone=_tone(result),
        meaning=fleet.meaning(result),
        origin=(f"from {began} UTC", f"snat_race {result.tool.version}", f"run {result.run_id[:8]}"),
        warnings=fleet.warnings(result.older_readings, namesakes(result.hosts)),
        sections=shared_sections.present(_bad_hosts(bad, len(good)), _good_hosts(good)),
    )


def _tone(result: FleetResult) -> Tone:
    if any(host.of_level(Level.exposed) for host in result.hosts):
        return Tone.bad
    return Tone.unsure if any(host.of_level(Level.unknown) for host in result.hosts) else Tone.good


def _bad_hosts(bad: list[FleetRow], good: int) -> Section | None:
    if not bad:
        return None
    columns = (
        Column(heading="level", importance=Importance.key, toned=True),
        Column(heading="host", importance=Importance.key),
        Column(heading="kernel"),
        Column(heading="exposed rules", number=True, importance=Importance.main),
        Column(heading="owner", importance=Importance.main),
        Column(heading="what helps", importance=Importance.beneath),
    )
    return Section(
        title="Hosts",
        table=Table(
            columns=columns, rows=tuple(map(_cells, bad)), tones=tuple(_TONES[row.level] for row in bad)
        ),
        sentences=fleet.others(good),
    )


def _cells(row: FleetRow) -> tuple[str, ...]:
    exposed = f"{row.exposed:,}" if row.level == Level.exposed else "?"
    return _LEVELS[row.level], row.host, row.kernel or "?", exposed, row.owner or "?", row.helps


def _good_hosts(good: list[FleetRow]) -> Section | None:
    if not good:
        return None
    columns = (Column(heading="host", importance=Importance.key), Column(heading="kernel"))
    return Section(
        title="Hosts without a rule that races",
        table=Table(columns=columns, rows=tuple((row.host, row.kernel or "?") for row in good)),
        detail=True,
    )
