"""A document as text and as Markdown."""

import textwrap
from collections.abc import Iterator

from snat_race.report.document import Document, Section, Table

_WIDTH = 110


def text(document: Document) -> str:
    """Return a document for a terminal."""
    lines = [document.title, "", *_wrapped(f"Verdict: {document.verdict} {document.meaning}")]
    for section in document.sections:
        lines += ["", section.title.upper(), *_text_lines(section)]
    return "\n".join(lines)


def _text_lines(section: Section) -> Iterator[str]:
    if section.table:
        yield from _aligned(section.table)
    yield from section.lines
    for sentence in section.sentences:
        yield from _wrapped(sentence)


def _aligned(table: Table) -> Iterator[str]:
    every = [table.columns, *table.rows]
    widths = [max(len(row[at]) for row in every) for at in range(len(table.columns))]
    for row in every:
        cells = [
            cell.ljust(width) if at < table.words else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, _WIDTH, break_on_hyphens=False)


def markdown(document: Document) -> str:
    """Return a document to paste into an issue or a pull request."""
    parts = [f"## {document.title}", f"**{_escaped(document.verdict)}**"]
    if document.meaning:
        parts.append(_escaped(document.meaning))
    for section in document.sections:
        parts.append(f"### {section.title}")
        if section.table:
            parts.append("\n".join(_markdown_rows(section.table)))
        if section.lines:
            parts.append("\n".join(("```", *section.lines, "```")))
        parts += [f"- {_escaped(each)}" for each in section.sentences]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ").replace("```\n- ", "```\n\n- ")


def _markdown_rows(table: Table) -> Iterator[str]:
    rule = ("---" if at < table.words else "---:" for at in range(len(table.columns)))
    for row in (table.columns, tuple(rule), *table.rows):
        yield f"| {' | '.join(_escaped(cell) for cell in row)} |"


def _escaped(cell: str) -> str:
    """Keep what Markdown would take for marks of its own."""
    for mark in "\\|*_<`":
        cell = cell.replace(mark, f"\\{mark}")
    return cell
