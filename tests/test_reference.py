"""The reference, the man page and the completions are what the command line says, wherever it is asked."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from scripts import man_page
from scripts.command_line import entries
from scripts.reference import reference
from snat_race import errors
from snat_race.cli import lab, parameters
from snat_race.cli.app import app
from snat_race.results.conclusions import Outcome
from snat_race.results.schema import LabResult
from tests.conftest import ROOT, SOON_S, clean_environment
from tests.results import small_lab

MAN_PAGE = ROOT / "share/man/man1/snat-race.1"
ELSEWHERE = {"COLUMNS": "20", "FORCE_COLOR": "1", "LC_ALL": "C", "WORKERS": "7", "TIMEOUT_MS": "oops"}


def test_the_pages_are_current_whatever_the_environment(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "scripts.reference", tmp_path],
        check=True,
        timeout=SOON_S,
        cwd=ROOT,
        env=clean_environment(**ELSEWHERE),
    )
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    kept = {str(path.relative_to(ROOT)) for path in (ROOT / "share").rglob("*") if path.is_file()}
    assert made == {"docs/reference.md", "docs/owners.md", *kept}
    stale = [name for name in made if (tmp_path / name).read_bytes() != (ROOT / name).read_bytes()]
    assert not stale, "run make reference"


@pytest.mark.parametrize(
    "formatter",
    [
        ["groff", "-man", "-ww", "-z"],
        ["mandoc", "-T", "lint", "-W", "error"],  # less than an error is that it has no date
    ],
    ids=lambda command: command[0],
)
def test_no_formatter_complains_of_the_man_page(formatter: list[str]) -> None:
    if not shutil.which(formatter[0]):
        pytest.skip(f"there is no {formatter[0]}")
    done = subprocess.run(
        [*formatter, MAN_PAGE], capture_output=True, text=True, timeout=SOON_S, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_man_page_shows_can_be_typed() -> None:
    """A formatter makes other characters of bare dashes and quotes."""
    page = MAN_PAGE.read_text(encoding="utf-8")
    assert page.isascii()
    for entry in entries():
        for option in entry.options:
            for name in re.findall(r"(?<!\S)-[-\w]+", option.spelt):
                assert name.replace("-", r"\-") in page
        for line in entry.examples.splitlines():
            if line and not line.startswith("#"):
                assert man_page.typed(line) in page.splitlines()
    assert man_page.typed("'a-b'") == r"\(aqa\-b\(aq"


def test_what_is_hidden_has_no_entry_but_is_told() -> None:
    introduction, _, listed = reference(entries()).partition("###")
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        assert (f"### snat-race {command.name}\n" in f"###{listed}") is not command.hidden
        assert not command.hidden or f"`{command.name}`" in introduction
        for option in command.params:
            assert not option.hidden or {f"`{name}`" in introduction for name in option.opts} == {True}
            assert not option.hidden or f"`{option.envvar}`" in introduction
            assert not option.hidden or option.opts[0] not in listed


def test_every_exit_code_is_explained() -> None:
    introduction, _, _ = reference(entries()).partition("###")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    for code in {kind.exit_code for kind in kinds if issubclass(kind, errors.SnatRaceError)}:
        assert f"\n| {code} | " in introduction


def test_expect_says_what_it_does_where_one_rule_of_several_cannot_tell() -> None:
    """It said "4 if none can tell"; it has always been any."""
    measured = small_lab()
    racing = [variant for variant in measured.variants if variant.outcome is Outcome.reproduced]
    assert racing
    assert measured.unavailable, "a rule that cannot tell"
    one_cannot_tell = LabResult.model_validate(measured.model_dump() | {"variants": racing})
    with pytest.raises(errors.Inconclusive, match="cannot tell about 'iptables"):
        lab._require(one_cannot_tell, parameters.Expect.race)
    (row,) = (
        line
        for line in (ROOT / "docs/reference.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `--expect ")
    )
    assert "4 if any cannot tell" in row
