"""The README's reference of options: it is what the command line says, wherever that is asked."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from scripts.reference import BEGIN, END, reference, renewed
from snat_race.cli.app import app
from tests.conftest import ROOT, clean_environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
ELSEWHERE = {"COLUMNS": "20", "FORCE_COLOR": "1", "LC_ALL": "C", "WORKERS": "7", "TIMEOUT_MS": "oops"}


def test_the_reference_is_current_whatever_the_environment(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(renewed(README, "as yet unwritten"), encoding="utf-8")
    script = ROOT / "scripts/reference.py"
    subprocess.run(
        [sys.executable, script, copy], check=True, timeout=20, env=clean_environment(**ELSEWHERE)
    )
    assert copy.read_text(encoding="utf-8") == README, "README.md's reference is stale: run make reference"


def test_only_what_stands_between_the_markers_is_rewritten() -> None:
    assert renewed(f"a\n{BEGIN} old {END}\nb\n", "new") == f"a\n{BEGIN}\n\nnew\n\n{END}\nb\n"


@pytest.mark.parametrize("text", ["", BEGIN, END, END + BEGIN])
def test_a_readme_without_its_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no place"):
        renewed(text, "new")


def test_what_is_hidden_has_no_entry_but_is_told() -> None:
    text = reference()
    introduction, _, entries = text.partition("###")
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        assert (f"### snat-race {command.name}\n" in text) is not command.hidden
        assert not command.hidden or f"`{command.name}`" in introduction
        for option in command.params:
            assert not option.hidden or {f"`{name}`" in introduction for name in option.opts} == {True}
            assert not option.hidden or f"`{option.envvar}`" in introduction
            assert not option.hidden or option.opts[0] not in entries
