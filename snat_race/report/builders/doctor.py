"""What ``doctor`` found, as a document."""

from snat_race.report.builders import shared_sections
from snat_race.report.document import Column, Document, Importance, Section, Table, Tone
from snat_race.report.wording import findings
from snat_race.report.wording.program import Program
from snat_race.results.findings import DoctorResult, Level

_LEVELS = {Level.exposed: "EXPOSED", Level.unknown: "UNKNOWN", Level.warning: "warning", Level.ok: "ok"}
_TONES = {
    Level.exposed: Tone.bad,
    Level.unknown: Tone.unsure,
    Level.warning: Tone.unsure,
    Level.ok: Tone.good,
}
# Of a result that was kept: nobody knows how the program is called where its advice is followed.
_ANY_PROGRAM = Program()


def document(result: DoctorResult, program: Program = _ANY_PROGRAM) -> Document:
    """Return every finding, the worst first, below the verdict; advice is for ``program``."""
    columns = (
        Column(heading="level", importance=Importance.key, toned=True),
        Column(heading="check", importance=Importance.main),
        Column(heading="finding"),
        Column(heading="to do", importance=Importance.beneath),
    )
    rows = []
    tones = []
    for finding in sorted(result.findings, key=lambda finding: list(Level).index(finding.level)):
        words = findings.worded(result, finding, program)
        rows.append((_LEVELS[finding.level], words.title, words.evidence, words.advice))
        tones.append(_TONES[finding.level])
    return Document(
        title="snat_race doctor",
        verdict=findings.verdict(result),
        tone=_tone(result),
        origin=shared_sections.origin(result),
        sections=(
            Section(
                title="Findings",
                table=Table(columns=columns, rows=tuple(rows), tones=tuple(tones)),
            ),
        ),
    )


def _tone(result: DoctorResult) -> Tone:
    if result.has(Level.exposed):
        return Tone.bad
    return Tone.unsure if result.has(Level.unknown) else Tone.good
