"""docs/reference.md is what the command line says, wherever that is asked."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from scripts.reference import PAGE, reference
from snat_race import errors
from snat_race.cli import lab, parameters
from snat_race.cli.app import app
from snat_race.results.conclusions import Outcome
from snat_race.results.schema import LabResult
from tests.conftest import ROOT, clean_environment
from tests.results import small_lab

ELSEWHERE = {"COLUMNS": "20", "FORCE_COLOR": "1", "LC_ALL": "C", "WORKERS": "7", "TIMEOUT_MS": "oops"}


def test_the_reference_is_current_whatever_the_environment(tmp_path: Path) -> None:
    copy = tmp_path / "reference.md"
    script = ROOT / "scripts/reference.py"
    subprocess.run(
        [sys.executable, script, copy], check=True, timeout=20, env=clean_environment(**ELSEWHERE)
    )
    current = PAGE.read_text(encoding="utf-8")
    assert copy.read_text(encoding="utf-8") == current, "docs/reference.md is stale: run make reference"


def test_what_is_hidden_has_no_entry_but_is_told() -> None:
    introduction, _, entries = reference().partition("###")
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        assert (f"### snat-race {command.name}\n" in f"###{entries}") is not command.hidden
        assert not command.hidden or f"`{command.name}`" in introduction
        for option in command.params:
            assert not option.hidden or {f"`{name}`" in introduction for name in option.opts} == {True}
            assert not option.hidden or f"`{option.envvar}`" in introduction
            assert not option.hidden or option.opts[0] not in entries


def test_every_exit_code_is_explained() -> None:
    introduction, _, _ = reference().partition("###")
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
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `--expect ")
    )
    assert "4 if any cannot tell" in row
