"""What is checked of the packages that ``make lint`` builds: no file too few, none too many, same bytes."""

from pathlib import Path

import pytest

from scripts import check_packages
from scripts.check_packages import METADATA, different, sdist_problems, wheel_problems
from tests.conftest import ROOT

WANTED = {"snat_race/__init__.py", "snat_race/py.typed", "share/man/man1/snat-race.1"}


def test_a_wheel_has_the_package_and_what_is_for_everybody() -> None:
    assert [*wheel_problems(WANTED | METADATA, WANTED)] == []
    assert check_packages.tree_files(ROOT, ("snat_race", "share")) > WANTED


@pytest.mark.parametrize("name", sorted([*WANTED, *METADATA]))
def test_a_wheel_without_a_file_is_refused(name: str) -> None:
    assert [*wheel_problems((WANTED | METADATA) - {name}, WANTED)] == [f"wheel: {name} is missing"]


@pytest.mark.parametrize("name", ["tests/conftest.py", "snat_race/__pycache__/a.pyc", ".venv/bin/python"])
def test_a_wheel_with_anything_else_is_refused(name: str) -> None:
    problems = [*wheel_problems(WANTED | METADATA | {name}, WANTED)]
    assert problems == [f"wheel: {name} does not belong there"]


def test_an_sdist_is_what_git_has() -> None:
    tracked = {"snat_race/__init__.py", "tests/conftest.py", ".ci/run"}
    packed = {"snat_race/__init__.py", "tests/conftest.py", "PKG-INFO"}
    assert [*sdist_problems(packed, tracked)] == []
    assert [*sdist_problems(packed - {"tests/conftest.py"}, tracked)] == [
        "sdist: tests/conftest.py is missing"
    ]
    (said,) = sdist_problems(packed | {"core"}, tracked)
    assert said.startswith("sdist: core ")


def test_two_builds_are_compared_byte_by_byte(tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    for folder in (first, again):
        folder.mkdir()
        (folder / "a.whl").write_bytes(b"same")
    assert [*different(first, again)] == []
    (again / "a.whl").write_bytes(b"Same")
    (first / "a.tar.gz").write_bytes(b"")
    assert [said.partition(":")[0] for said in different(first, again)] == ["a.tar.gz", "a.whl"]
