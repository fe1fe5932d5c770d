"""A document as Markdown, to paste into an issue or a pull request."""

import re
from collections.abc import Iterable, Iterator

from snat_race.report.document import Document, Section, Table
from snat_race.report.terminal import printable

_MARKS = re.compile(r"[\\`*_\[<|~&]")
# At the beginning of a line: a heading, a list, a quotation, a line that makes a heading of the one above.
_OPENING_MARKS = re.compile(r"^([0-9]{1,9}(?=[.)])|(?=[#+=>-]))")


def markdown(document: Document) -> str:
    """Return a document, with its detail sections; bars are left out."""
    parts = [f"## {_escaped(document.title)}"]
    parts += [_line(fact) for fact in document.facts]
    if document.origin:
        parts.append(_line(" · ".join(document.origin)))
    if document.verdict:
        parts.append(f"**{_escaped(document.verdict)}**")
    if document.meaning:
        parts.append(_line(document.meaning))
    if document.warnings:
        parts.append(_warnings(document.warnings))
    for section in document.sections:
        parts += _section(section)
    return "\n\n".join(parts)


def _section(section: Section) -> Iterator[str]:
    yield f"### {_escaped(section.title)}"
    if section.introduction:
        yield "\n".join(f"- {_line(sentence)}" for sentence in section.introduction)
    if section.warnings:
        yield _warnings(section.warnings)
    if section.table:
        yield "\n".join(_rows(section.table))
    if section.sentences:
        yield "\n".join(f"- {_line(sentence)}" for sentence in section.sentences)


def _warnings(warnings: Iterable[str]) -> str:
    return "\n".join(f"- **Warning:** {_escaped(warning)}" for warning in warnings)


def _rows(table: Table) -> Iterator[str]:
    headings = tuple(column.heading for column in table.columns)
    alignments = tuple("---:" if column.number else "---" for column in table.columns)
    for row in (headings, None, *table.rows):
        cells = alignments if row is None else map(_escaped, row)
        yield f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Keep what Markdown would take for marks of its own, and one line one line."""
    return _MARKS.sub(r"\\\g<0>", printable(text).strip())


def _line(text: str) -> str:
    """Escape a text that begins a line."""
    return _OPENING_MARKS.sub(r"\1\\", _escaped(text))
