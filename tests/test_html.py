"""The HTML report: whole in itself, escaped, the same each time; looked at in a real browser."""

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

from tests.browser import CHROMIUM, Browser
from tests.conftest import PRIVATE, ROOT, fork_cli, run_cli

Kept = Callable[..., Path]
CHROME = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium: 'sudo apt-get install chromium'")
NASTY = '<script>alert(1)</script> & "x"'


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short lab run, with a window."""
    out = tmp_path_factory.mktemp("lab") / "lab.json"
    done = run_cli("lab", "--duration", "300ms", "--window", "--variant", "masquerade",
                   "--variant", "masquerade fully-random", "--output", str(out))  # fmt: skip
    if done.returncode == 4:
        pytest.skip(done.stderr)
    return out


@pytest.fixture(scope="module")
def lab_page(lab: Path) -> Path:
    return page(lab)


def page(*files: Path) -> Path:
    out = files[0].with_suffix(".html")
    done = fork_cli("report", *map(str, files), "--format", "html", "-o", str(out))
    assert done.returncode == 0, done.stderr
    return out


def merged(kept: Kept) -> Path:
    return page(kept("a", failed=7), kept("b", failed=5), kept("w", kind="watch", insert_failed=12))


@PRIVATE
def test_a_page_needs_nothing_else_and_is_small(lab: Path, lab_page: Path) -> None:
    text = lab_page.read_text()
    assert len(text.encode()) <= 1_000_000
    bare = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    assert not re.search(
        r"""\b(src|href|xlink:href)\s*=\s*["'](?!#)|@import|url\((?!#)|https?:|<script""", bare
    )
    assert "prefers-color-scheme: dark" in text
    assert text.count("<figure>") == 4
    assert json.loads(lab.read_text())["verdict"]["text"][1:20].replace("'", "&#x27;") in text


def test_the_same_result_is_the_same_page(kept: Kept) -> None:
    assert merged(kept).read_bytes() == merged(kept).read_bytes()


def test_what_comes_from_a_result_is_escaped(kept: Kept) -> None:
    path = kept("a", failed=7, environment={"kernel": NASTY})
    document = json.loads(path.read_text())
    document["spec"]["remote_addr"] = NASTY
    document["diagnosis"][0]["evidence"] = NASTY
    path.write_text(json.dumps(document))
    text = page(path).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize("kind", ["client", "watch"])
def test_every_kind_has_a_page(kept: Kept, kind: str) -> None:
    text = page(kept("x", kind=kind)).read_text()
    assert "<h1>" in text
    assert "How it was measured" in text


def test_without_matplotlib_it_says_what_to_install(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError\n")
    command = [sys.executable, "-m", "snat_race", "report", str(kept("a")), "--format", "html"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert "pip install 'snat-race[report]'" in done.stderr


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
@PRIVATE
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
