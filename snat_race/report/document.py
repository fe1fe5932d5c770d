"""A report before it has a form: what is said, in which order, how important it is.

Builders make documents of results. Renderers show them, and decide about form only: all numbers are
finished, all sentences are made. Figures stand beside the document, in ``figures/data.py``, because
only a page draws them.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Tone(StrEnum):
    """How a conclusion is meant, for its colour."""

    good = "good"
    bad = "bad"
    unsure = "unsure"


class Importance(IntEnum):
    """Which columns stay side by side where not all of them fit: the higher, the longer it stays."""

    # Goes below its row wherever lines of text are wrapped: advice, say.
    beneath = 0
    # The first to go below its row.
    extra = 1
    usual = 2
    main = 3
    # Names the row, so it always stays.
    key = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table."""

    heading: str
    # Numbers are aligned to the right and never wrapped; text may be wrapped within its cell.
    number: bool = False
    importance: Importance = Importance.usual
    # Whether its cells are shown in the tone of their row.
    toned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells, one cell a column."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    # A tone for each row; empty: no row has one.
    tones: tuple[Tone | None, ...] = ()
    # A bar for each row, as a share of 1 of the longest possible; empty: there are none. A bar says
    # again what a column says, so a renderer may leave all of them out.
    bars: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, then sentences, a table, and sentences that draw on the table."""

    title: str
    introduction: tuple[str, ...] = ()
    table: Table | None = None
    sentences: tuple[str, ...] = ()
    # What makes one doubt what the table says.
    warnings: tuple[str, ...] = ()
    # Whether only a full report shows it. Text is brief unless asked; pages and Markdown are full.
    detail: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole report. The verdict comes first, because it is what a reader looks for."""

    title: str
    # One sentence or more, without "Verdict:"; empty: there is nothing to conclude.
    verdict: str = ""
    # None: it is neither good nor bad.
    tone: Tone | None = None
    # What the verdict means to people who run a network; empty: it speaks for itself.
    meaning: str = ""
    # Lines on how it was measured, for people who know what they look for.
    facts: tuple[str, ...] = ()
    # When, where and by what the result was made; a terminal's text leaves it out.
    origin: tuple[str, ...] = ()
    # What makes one doubt the figures, and what to do about it, the gravest first.
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Whether one rule behaved as expected."""

    name: str
    # None: it cannot be told, because of ``why_skipped``.
    passed: bool | None
    evidence: tuple[str, ...] = ()
    why_skipped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckList:
    """All rules of a run, and what was expected of them: what kernel developers' tools read."""

    title: str
    checks: tuple[Check, ...]
