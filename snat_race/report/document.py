"""A report before it has a form: sections of words and tables, for text, Markdown and HTML alike."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; the first ``words`` columns are text, the others numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, sentences, a table and lines as they are. ``figure``: the picture that says the same."""

    title: str
    sentences: tuple[str, ...] = ()
    table: Table | None = None
    lines: tuple[str, ...] = ()
    figure: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report: the verdict comes first, then what it means, if there is more to say."""

    title: str
    verdict: str
    sections: tuple[Section, ...] = field(default=())
    meaning: str = ""
