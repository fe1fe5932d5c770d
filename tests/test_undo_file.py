"""The file that an undo is kept in: whole or not there at all, whatever the file system can do."""

import os
import stat
from pathlib import Path

import pytest

from snat_race.cli.undo_file import UndoFile
from snat_race.errors import EnvironmentLacks, UsageError
from snat_race.results.findings import Undo
from tests.fuzz_targets import UNDO

FIRST = Undo.model_validate_json(UNDO)
SECOND = FIRST.model_copy(update={"netns": 2})


@pytest.fixture(params=["files without a name", "no such files"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where to keep it; on file systems as NFS, every file has a name from the start."""
    if request.param == "no such files":
        monkeypatch.setattr(
            os, "O_TMPFILE", os.O_DIRECTORY
        )  # for which open(2) has EISDIR, as older kernels
    return tmp_path


def kept_in(folder: Path) -> dict[str, Undo]:
    """What each file there holds, as whoever reads it finds it."""
    return {path.name: Undo.model_validate_json(path.read_bytes()) for path in folder.iterdir()}


def test_the_last_one_is_kept_and_nothing_else(folder: Path) -> None:
    path = folder / "undo.json"
    file = UndoFile(path)
    assert (kept_in(folder), file.kept) == ({}, False)
    file.save(FIRST)
    assert (kept_in(folder), file.kept) == ({"undo.json": FIRST}, True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.save(SECOND)
    assert kept_in(folder) == {"undo.json": SECOND}
    file.save(None)
    assert (kept_in(folder), file.kept) == ({}, False)


def test_what_an_interrupted_save_left_is_no_hindrance(folder: Path) -> None:
    file = UndoFile(folder / "undo.json")
    file.save(FIRST)
    (folder / ".undo.json.new").write_text("half")
    file.save(SECOND)
    assert kept_in(folder) == {"undo.json": SECOND}


def test_a_file_that_somebody_made_meanwhile_is_not_replaced(folder: Path) -> None:
    file = UndoFile(folder / "undo.json")
    (folder / "undo.json").write_text("theirs")
    with pytest.raises(UsageError, match="exists by now; name another file"):
        file.save(FIRST)
    assert [path.read_text() for path in folder.iterdir()] == ["theirs"]
    assert not file.kept


def test_a_disk_that_is_full_leaves_the_one_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = UndoFile(folder / "undo.json")
    file.save(FIRST)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentLacks, match="No space left on device"):
        file.save(SECOND)
    assert kept_in(folder) == {"undo.json": FIRST}
    assert file.kept


@pytest.mark.parametrize("there", ["a folder", "a link", "a file that holds something"])
def test_what_may_be_needed_is_never_taken_away(folder: Path, there: str) -> None:
    path = folder / "undo.json"
    if there == "a folder":
        path.mkdir()
    elif there == "a link":
        path.symlink_to("elsewhere")
    else:
        path.write_text("{}")
    with pytest.raises(UsageError, match=r"name (a file in it|another file)"):
        UndoFile(path)
    assert [path.name for path in folder.iterdir()] == ["undo.json"]


def test_an_empty_file_of_ours_is_taken_away_because_it_undoes_nothing(folder: Path) -> None:
    (folder / "undo.json").touch()
    UndoFile(folder / "undo.json").save(FIRST)
    assert kept_in(folder) == {"undo.json": FIRST}
