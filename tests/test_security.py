"""SECURITY.md has a row for every command in each table; its sentences are checked as all pages are."""

import re

import pytest
import typer

from snat_race.cli.app import app
from tests.conftest import ROOT

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
COMMANDS = {
    name: command
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    if not command.hidden
}


def rows(heading: str) -> list[list[str]]:
    """The rows of the table below a heading, as the code in their first cells."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return [re.findall(r"`([^`]+)`", cell) for cell in cells[2:]]


@pytest.mark.parametrize("heading", ["What each command needs", "What each command reads and writes"])
def test_every_command_has_a_row(heading: str) -> None:
    named = [code for row in rows(heading) for code in row]
    assert {code.split()[0] for code in named if not code.startswith("-")} == set(COMMANDS)


def test_what_is_needed_is_a_capability_and_options_are_the_command_s() -> None:
    for row in rows("What each command needs"):
        command, *_ = row[0].split()
        options = {name for option in COMMANDS[command].params for name in option.opts}
        assert {word for code in row for word in code.split() if word.startswith("-")} <= options
    needed = set(re.findall(r"`([A-Z][A-Z_]+)`", TEXT)) - {"UNKNOWN", "PATH"}
    assert needed == {"SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "DAC_OVERRIDE"}
