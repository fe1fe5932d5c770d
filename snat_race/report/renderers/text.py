"""A document as text, as wide as its terminal: nothing is cut off, whatever the width."""

import textwrap
from collections.abc import Iterable, Iterator

from snat_race.report.document import Document, Section, Tone
from snat_race.report.renderers.table_layout import table_lines
from snat_race.report.terminal import FILE, Terminal, coloured, printable


def text(document: Document, terminal: Terminal = FILE, *, full: bool = False) -> str:
    """Return a document for people at a terminal; ``full``: with its detail sections too."""
    lines = [
        *_wrapped(document.title, terminal),
        *(line for fact in document.facts for line in _wrapped(fact, terminal)),
    ]
    if document.verdict:
        lines += ["", *_wrapped(f"Verdict: {document.verdict}", terminal, document.tone)]
    lines += _wrapped(document.meaning, terminal)
    lines += _warnings(document.warnings, terminal)
    for section in document.sections:
        if full or not section.detail:
            lines += ["", *_section(section, terminal)]
    return "\n".join(lines)


def verdict_line(document: Document, terminal: Terminal = FILE) -> str:
    """Return nothing but the verdict, on a line of its own: for scripts, and people in a hurry."""
    return coloured(printable(document.verdict), document.tone, terminal)


def _section(section: Section, terminal: Terminal) -> Iterator[str]:
    yield from _wrapped(section.title.upper(), terminal)
    for sentence in section.introduction:
        yield from _wrapped(sentence, terminal)
    yield from _warnings(section.warnings, terminal)
    if section.table and (section.introduction or section.warnings):
        yield ""
    if section.table:
        yield from table_lines(section.table, terminal)
    for sentence in section.sentences:
        yield from _wrapped(sentence, terminal)


def _warnings(warnings: Iterable[str], terminal: Terminal) -> Iterator[str]:
    for warning in warnings:
        yield from _wrapped(f"warning: {warning}", terminal, Tone.unsure)


def _wrapped(sentence: str, terminal: Terminal, tone: Tone | None = None) -> list[str]:
    lines = textwrap.wrap(printable(sentence), terminal.width, break_on_hyphens=False)
    return [coloured(line, tone, terminal) for line in lines]
