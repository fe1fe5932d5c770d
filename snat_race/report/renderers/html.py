"""A document as one HTML file that needs nothing else: no script, no request, light and dark."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from re import sub
from typing import TYPE_CHECKING, Any

from snat_race.errors import ReportExtraMissing
from snat_race.report.document import Column, Document, Tone
from snat_race.report.figures.data import Figure
from snat_race.report.figures.drawing import NEEDED, css
from snat_race.report.figures.pictures import drawn
from snat_race.report.terminal import printable

if TYPE_CHECKING:
    from markupsafe import Markup

_LONGEST_WHOLE_CELL = 31  # characters that are never broken


def page(document: Document, figures: Sequence[Figure]) -> str:
    """Return the whole page, with the document's detail sections.

    Raises:
        ReportExtraMissing: jinja2 or matplotlib is not installed.

    """
    template = _template()
    text: str = template.render(document=document, pictures=[drawn(figure) for figure in figures])
    return text


@cache
def _template() -> Any:  # noqa: ANN401 - jinja2's, which may not be installed
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as missing:
        raise ReportExtraMissing(NEEDED) from missing
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=False, finalize=_harmless
    )
    environment.filters |= {"prose": _prose, "sentence_case": _sentence_case, "css": css}
    environment.globals |= {"style": Markup(_read("page.css")), "cell_class": _cell_class}  # noqa: S704 - our own file
    return environment.from_string(_read("page.html.jinja"))


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _harmless(value: Any) -> Any:  # noqa: ANN401 - whatever a template shows
    """Return text without what turns the direction of others or is no character; markup is ours."""
    return printable(value) if type(value) is str else value


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def _prose(sentence: str) -> "Markup":
    """Return a sentence, escaped, of which neither an option nor a percentage is torn."""
    from markupsafe import Markup, escape

    whole = str(escape(printable(sentence))).replace(" %", "&nbsp;%")
    marked = sub(r"(?<![\w-])--[a-z][\w-]*", r"<code>\g<0></code>", whole)
    return Markup(marked)  # noqa: S704 - escaped above


def _cell_class(column: Column, cell: str, tone: Tone | None) -> "Markup":
    """Return the class attribute of a cell, or nothing."""
    from markupsafe import Markup

    names = ["number"] if column.number else ["long"] if len(cell) > _LONGEST_WHOLE_CELL else []
    if column.toned and tone:
        names.append(tone.value)
    return Markup(' class="{}"').format(" ".join(names)) if names else Markup("")
