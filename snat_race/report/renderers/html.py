"""A document as one HTML file that needs nothing else: no script, no request, light and dark."""

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from importlib.resources import files
from re import sub

from snat_race.report.builders import documents
from snat_race.report.builders.lab import window_sentences
from snat_race.report.document import Document, Section, Table
from snat_race.report.figures.curves import window_table
from snat_race.report.figures.drawing import Figure, Key, css
from snat_race.report.figures.registry import figures
from snat_race.report.figures.timelines import coarse
from snat_race.results.findings import DoctorResult, Level
from snat_race.results.model import Result
from snat_race.results.schema import ClientResult, LabResult, MergedResult, WatchResult

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
"""
_SHORT = 31  # what a cell may hold and never be broken
_TONES = {"reproduced": "bad", "not_seen": "good", "inconclusive": "unsure"}


def page(document: Document, result: Result) -> str:
    """Return the whole page.

    Raises:
        EnvironmentLacks: matplotlib is not installed.

    """
    whole = coarse(result)
    style = files("snat_race.report.renderers").joinpath("page.css").read_text(encoding="utf-8")
    parts = [
        _HEAD.format(title=escape(document.title), style=style),
        *_header(document, result),
        *(_figure(each) for each in figures(whole)),
        *(_section(each) for each in _sections(document, result, whole)),
        "</main>\n</body>\n</html>",
    ]
    return "".join(parts)


def _header(document: Document, result: Result) -> Iterator[str]:
    verdict = document.verdict
    yield f'<header class="{_tone(result)}">\n<p class="title">{escape(document.title)}</p>\n'
    yield f"<h1>{_said(verdict[:1].upper() + verdict[1:])}</h1>\n"
    if document.meaning:
        yield f'<p class="lede">{_said(document.meaning)}</p>\n'
    run = result.run_id if "+" in result.run_id else result.run_id[:8]
    began = result.started_at.replace("T", " ").partition(".")[0].removesuffix("Z")
    facts = {
        "kernel": result.environment.get("kernel", "unknown"),
        "snat_race": result.tool.version,
        "run": run,
    }
    told = "\u00a0· ".join((f"{began} UTC", *(f"{name} {value}" for name, value in facts.items())))
    yield f'<p class="facts">{escape(told)}</p>\n</header>\n'


def _tone(result: Result) -> str:
    if isinstance(result, LabResult):
        return _TONES[result.verdict.outcome]
    if isinstance(result, DoctorResult):
        return "bad" if result.has(Level.exposed) else "unsure" if result.has(Level.unknown) else "good"
    if isinstance(result, ClientResult | MergedResult):
        clean = result.summary.attempted and not result.diagnosis
        return "bad" if result.summary.failed else "good" if clean else "unsure"
    return "bad" if isinstance(result, WatchResult) and result.candidate_causes else "good"


def _sections(document: Document, result: Result, whole: Result) -> Iterator[Section]:
    """Yield the sections, with tables of what the figures show."""
    shown = {} if whole is result else {each.figure: each for each in documents.document(whole).sections}
    for section in document.sections:
        if section.figure == "window" and isinstance(result, LabResult) and result.window:
            sentences, table = window_sentences(result.window), window_table(result.window)
            yield replace(section, sentences=tuple(sentences), table=table, lines=())
        elif section.figure in ("time", "watch"):
            yield shown.get(section.figure, section)
        else:
            yield section


def _figure(figure: Figure) -> str:
    keys = "".join(f"<li>{_swatch(key)}{escape(key.label)}</li>" for key in figure.keys)
    legend = f'<ul class="legend">{keys}</ul>\n' if keys else ""
    pictures = "\n".join(figure.pictures)
    return (
        f"<figure>\n<h2>{escape(figure.title)}</h2>\n{legend}{pictures}\n"
        f"<figcaption>{_said(figure.caption)}</figcaption>\n</figure>\n"
    )


def _swatch(key: Key) -> str:
    colour = css(key.colour)
    if key.bar:
        drawn = f'<rect x="6" width="12" height="12" rx="2" style="fill: {colour}"/>'
    else:
        dashes = (
            f"; stroke-dasharray: {' '.join(f'{2 * each:g}' for each in key.dashes)}" if key.dashes else ""
        )
        drawn = f'<path d="M0 6h24" style="stroke: {colour}; stroke-width: 2{dashes}"/>'
    return f'<svg class="key" viewBox="0 0 24 12" aria-hidden="true">{drawn}</svg>'


def _section(section: Section) -> str:
    title = escape(section.title)
    parts = [f"<section>\n<h2>{title}</h2>\n"]
    if len(section.sentences) > 1:
        items = "".join(f"<li>{_said(each)}</li>\n" for each in section.sentences)
        parts.append(f"<ul>\n{items}</ul>\n")
    elif section.sentences:
        parts.append(f"<p>{_said(section.sentences[0])}</p>\n")
    box = f'<div class="box" role="region" tabindex="0" aria-label="{title}">\n'
    if section.table:
        parts.append(f"{box}{_table(section.table)}</div>\n")
    if section.lines:
        lines = escape("\n".join(section.lines))
        parts.append(f"{box}<pre>{lines}</pre>\n</div>\n")
    return "".join((*parts, "</section>\n"))


def _said(sentence: str) -> str:
    """Return a sentence of which neither an option nor a percentage is torn."""
    whole = escape(sentence).replace(" %", "&nbsp;%")
    return sub(r"(?<![\w-])--[a-z][\w-]*", r"<code>\g<0></code>", whole)


def _table(table: Table) -> str:
    cells = ("".join(_cell(table, at, cell) for at, cell in enumerate(row)) for row in table.rows)
    body = "".join(f"<tr>{row}</tr>\n" for row in cells)
    kinds = (' class="number"' if at >= table.words else "" for at in range(len(table.columns)))
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for name, kind in zip(table.columns, kinds, strict=True)
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"


def _cell(table: Table, at: int, cell: str) -> str:
    kind = "number" if at >= table.words else "long" if len(cell) > _SHORT else ""
    return f"<td{f' class={kind}' if kind else ''}>{escape(cell)}</td>"
