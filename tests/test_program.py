"""How this program is started again, and added to: advice that is a command can be pasted."""

import io
import shlex
import sys
from importlib import metadata
from pathlib import Path

import pytest

from snat_race.cli import program
from snat_race.cli.program import adding, this_program
from snat_race.cli.terminal import print_document
from snat_race.report import registry
from snat_race.report.document import Column, Document, Section, Table
from snat_race.report.wording import causes, warnings
from snat_race.report.wording.program import Program
from snat_race.results.conclusions import Advice
from tests.conftest import fork_cli, run_cli
from tests.results import small_lab

HERE = Program(words=("/opt/a/snat-race",))
OURS = "'snat-race "


def test_every_sentence_that_names_a_command_of_ours_can_be_pasted() -> None:
    advice = [causes._ADVICE[kind] for kind in Advice]
    said = [*advice, causes.WHICH_RULES, causes.THIS_IS_THE_LABS_NAT, warnings._WATCH_WITH]
    naming = [sentence for sentence in said if "snat-race" in sentence]
    assert len(naming) >= 6
    for sentence in naming:
        assert sentence.count("snat-race") == sentence.count(OURS), sentence
        assert HERE.addressed(sentence) == sentence.replace(OURS, "'/opt/a/snat-race ")


def test_a_document_is_addressed_in_every_part() -> None:
    said = "see 'snat-race doctor'"
    table = Table(columns=(Column(heading="rule"),), rows=((said,),), bars=(1.0,))
    section = Section(title=said, introduction=(said,), table=table, sentences=(said,), warnings=(said,))
    whole = Document(
        title=said, verdict=said, meaning=said, facts=(said,), warnings=(said,), sections=(section,)
    )
    addressed = HERE.addressed(whole)
    assert repr(whole).count(OURS) == repr(addressed).count("'/opt/a/snat-race doctor'") == 10
    assert OURS not in repr(addressed)
    assert addressed.sections[0].table == Table(
        columns=table.columns, rows=((HERE.addressed(said),),), bars=(1.0,)
    )


@pytest.mark.parametrize(
    "text", ["snat-race doctor", "x'snat-race", "'snat-race'", "'snat-race --help'", ""]
)
def test_what_is_no_command_of_ours_in_quotes_stays(text: str) -> None:
    assert HERE.addressed(text) == text


def test_a_printed_report_has_the_path_of_the_program_that_prints_it() -> None:
    printed = io.StringIO()
    print_document(registry.document(small_lab()), printed)
    said = " ".join(printed.getvalue().split())
    assert f"'{this_program().command()} mitigate'" in said
    assert OURS not in said


def test_a_complaint_has_it_too() -> None:
    assert f"see '{this_program().command()} report --help'" in fork_cli("report").stderr


def test_the_name_on_the_path_is_taken_if_it_leads_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Path(sys.executable).with_name("snat-race")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(program, "in_container", lambda: False)
    assert this_program() == Program(words=(str(script),), sudo=False, on_path=False)
    (tmp_path / "snat-race").symlink_to(script)  # as pipx does in ~/.local/bin
    assert this_program() == Program(words=(f"{tmp_path}/snat-race",), sudo=False)
    (tmp_path / "snat-race").unlink()
    (tmp_path / "snat-race").write_text("#!/bin/sh\n")  # of another installation
    (tmp_path / "snat-race").chmod(0o755)
    assert this_program() == Program(words=(str(script),), sudo=False, on_path=False)


@pytest.mark.parametrize(
    ("extra", "libraries"),
    [("report", ["jinja2>=3.1", "matplotlib>=3.9"]), ("prometheus", ["prometheus-client>=0.20"])],
)
def test_an_extra_is_added_without_asking_an_index_for_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str, libraries: list[str]
) -> None:
    assert shlex.split(adding(extra)) == [sys.executable, "-m", "pip", "install", *libraries]
    home = tmp_path / "snat-race"
    home.mkdir()
    (home / "pipx_metadata.json").touch()
    monkeypatch.setattr(sys, "prefix", str(home))
    assert shlex.split(adding(extra)) == ["pipx", "inject", "snat-race", *libraries]


def test_without_what_serves_prometheus_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError\n")
    done = run_cli("watch", "--prometheus", ":9127", PYTHONPATH=str(tmp_path))
    complaint = f"snat_race: --prometheus: needs prometheus-client: {adding('prometheus')}"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (4, complaint)


def test_a_folder_that_was_never_installed_is_named_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", unknown)
    folder = Path(program.__file__).parents[2]
    assert shlex.split(adding("report")) == [sys.executable, "-m", "pip", "install", f"{folder}[report]"]
