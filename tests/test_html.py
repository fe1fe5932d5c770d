"""The HTML report: whole in itself, escaped, the same each time; looked at in a real browser."""

import html
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snat_race.cli.result_reader import AnyResult, read
from snat_race.report.registry import document, kind_of
from snat_race.report.renderers.html import page as html_of
from snat_race.results.schema import ClientResult, LabResult
from tests.browser import CHROMIUM, Browser
from tests.conftest import ROOT, fork_cli
from tests.results import verdict_of

Kept = Callable[..., Path]
CHROME = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium: 'sudo apt-get install chromium'")
NASTY = """</script><script>alert(1)</script> & "x" ' <!-- $x$ id="y" #0a0b10 ü 猫"""


@pytest.fixture(scope="module")
def lab_page(every_variant: Path) -> Path:
    return page(every_variant)


def page(*files: Path) -> Path:
    out = files[0].with_suffix(".html")
    done = fork_cli("report", *map(str, files), "--format", "html", "-o", str(out))
    assert done.returncode == 0, done.stderr
    return out


def lab_of(path: Path) -> LabResult:
    result = read(path)
    assert isinstance(result, LabResult)
    return result


def written(result: AnyResult) -> str:
    return html_of(document(result), kind_of(result).figures(result))


def merged(kept: Kept) -> Path:
    return page(kept("a", failed=7), kept("b", failed=5), kept("w", kind="watch", insert_failed=12))


def test_a_page_needs_nothing_else_and_is_small(every_variant: Path, lab_page: Path) -> None:
    text = lab_page.read_text()
    assert len(text.encode()) <= 160_000
    bare = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    assert not re.search(
        r"""\b(src|href|xlink:href)\s*=\s*["'](?!#)|@import|url\((?!#)|https?:|<script""", bare
    )
    assert "prefers-color-scheme: dark" in text
    assert text.count("<figure>") == 4
    assert verdict_of(json.loads(every_variant.read_text()))[1:20].replace("'", "&#39;") in text


def test_the_same_result_is_the_same_page(kept: Kept) -> None:
    assert merged(kept).read_bytes() == merged(kept).read_bytes()


def test_what_comes_from_a_result_is_escaped(kept: Kept) -> None:
    path = kept("a", failed=7, environment={"kernel": NASTY})
    document = json.loads(path.read_text())
    document["spec"]["remote_addr"] = NASTY
    document["diagnosis"][0]["recorded"] = {"evidence": NASTY, "advice": NASTY}
    path.write_text(json.dumps(document))
    text = page(path).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_rule_is_escaped_in_figures_and_sentences_too(every_variant: Path) -> None:
    result = lab_of(every_variant)
    first = result.variants[0].model_copy(update={"name": NASTY})
    mitigations = [each.model_copy(update={"name": NASTY}) for each in result.verdict.mitigations]
    verdict = result.verdict.model_copy(update={"mitigations": mitigations})
    variants = [first, result.variants[1]]
    text = written(result.model_copy(update={"variants": variants, "verdict": verdict}))
    assert "<script" not in text
    assert "<!--" not in text
    figures = text.partition("<section>")[0]
    assert figures.count("&lt;script&gt;") >= 3
    assert "$x$" in text, "nor taken for mathematics"


def test_colours_are_those_of_the_page_light_and_dark(lab_page: Path) -> None:
    style, _, body = lab_page.read_text().partition("</style>")
    light, _, dark = style.partition("prefers-color-scheme: dark")
    assert "color-scheme: light dark" in light
    for name in set(re.findall(r"var\((--[a-z0-9]+)\)", style + body)):
        assert f"{name}: #" in light
        assert f"{name}: #" in dark
    assert not re.search(r"(?:fill|stroke): #", body)


def test_each_figure_has_a_caption_and_a_name_and_no_ids(lab_page: Path) -> None:
    text = lab_page.read_text()
    assert (
        text.count('<svg class="wide"') == text.count('<svg class="narrow"') == text.count("<figcaption>")
    )
    assert text.count('role="img" aria-label="') == 2 * text.count("<figure>")
    assert not re.search(r"\bid=", text)


def test_every_table_of_the_document_is_in_the_page(kept: Kept) -> None:
    result = read(kept("a", failed=7))
    text = html.unescape(written(result))
    for section in document(result).sections:
        assert f"<h2>{section.title}</h2>" in text
        for row in section.table.rows if section.table else ():
            assert all(f">{cell}</td>" in text for cell in row)


def test_a_long_run_is_added_up_for_its_figure_and_its_table(kept: Kept) -> None:
    result = read(kept("a", failed=7))
    assert isinstance(result, ClientResult)
    text = written(result.model_copy(update={"periods": result.periods * 150}))
    heading = "<h2>Losses and insert_failed in time</h2>\n<div"
    section = text.partition(heading)[2].partition("</section>")[0]
    rows = [re.findall(r">([\d,]+)</td>", row) for row in section.split("<tr>")[2:]]
    failed = [int(row[1].replace(",", "")) for row in rows]
    assert 30 <= section.count("<tr>") - 1 <= 60
    assert sum(failed) == 150 * 7
    assert "earlier periods" not in text


def test_rates_far_apart_are_drawn_on_a_scale_that_shows_both(every_variant: Path) -> None:
    result = lab_of(every_variant)
    base, cured = result.variants[0], result.variants[2]
    base = base.model_copy(
        update={
            "summary": base.summary.model_copy(update={"paired": 100, "collisions": 66}),
            "collision_rate_ci95": (0.56, 0.74),
        }
    )
    rare = cured.summary.model_copy(update={"paired": 60_000, "collisions": 1})
    cured = cured.model_copy(update={"summary": rare, "collision_rate_ci95": (0.000003, 0.0000944)})
    text = written(result.model_copy(update={"variants": [base, cured]}))
    ticks = re.findall(r">([\d.]+%)</text>", text.partition("</figure>")[0])
    assert {"0.001%", "0.1%", "10%"} <= set(ticks)


def test_a_run_without_a_dial_has_no_figures(kept: Kept) -> None:
    result = read(kept("a"))
    assert isinstance(result, ClientResult)
    nothing = dict.fromkeys(("attempted", "connected", "failed"), 0)
    nothing |= dict.fromkeys(("latency_ns", "histogram", "histogram_all", "histogram_from_slot"))
    summary = result.summary.model_copy(update=nothing)
    text = written(result.model_copy(update={"summary": summary, "periods": []}))
    assert "Nothing was dialled" in text
    assert "<figure>" not in text


@pytest.mark.parametrize("kind", ["client", "watch"])
def test_every_kind_has_a_page(kept: Kept, kind: str) -> None:
    text = page(kept("x", kind=kind)).read_text()
    assert "<h1>" in text
    assert "How it was measured" in text


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_without_what_draws_it_says_what_to_install(kept: Kept, tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text("raise ImportError\n")
    command = [sys.executable, "-m", "snat_race", "report", str(kept("a")), "--format", "html"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert f"{sys.executable} -m pip install 'jinja2>=3.1' 'matplotlib>=3.9'\n" in done.stderr


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def pixels(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and the raw, filtered rows: enough to tell a picture from a blank one."""
    width, height = struct.unpack(">II", png[16:24])
    data, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    return width, height, zlib.decompress(data)


@CHROME
@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_it_fits_a_phone_and_a_desk_and_asks_for_nothing(
    browser: Browser, lab_page: Path, kept: Kept, width: int, scheme: str
) -> None:
    for shown in (lab_page, merged(kept)):
        browser.requests.clear()
        browser.show(shown, width, scheme)
        assert browser.requests == [shown.as_uri()]
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(253, 253, 252)" if scheme == "light" else "rgb(21, 22, 24)"
        )
        heights = "[...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().height)"
        drawn = browser.evaluate(f"{heights}.filter(height => height > 80).length")
        assert drawn == browser.evaluate("document.querySelectorAll('figure').length")
        wide, high, rows = pixels(browser.screenshot())
        assert (wide, high > 1500) == (width, True)
        assert len(set(rows[: len(rows) // 2])) > 50, "the upper half is not blank"
