"""Build the packages, and check what a user would install: same bytes each time, everything in it, no more.

The sdist and its wheel are built in this folder, and again from the unpacked sdist, elsewhere and with
another umask. Nothing is fetched: the build tools are those of this environment.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, SHARED = "snat_race", "share"
LEFT_OUT = (".ci/", ".editorconfig")  # of what git has: only this repository needs it
ADDED = "PKG-INFO"  # to an sdist, by every builder
METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}  # of a wheel
# A fixed time in the archives, whatever the caller's; hatchling's own default would do, but may change.
ENVIRONMENT = os.environ | {"SOURCE_DATE_EPOCH": "1577836800", "TWINE_NON_INTERACTIVE": "1"}


def main() -> int:
    """Build, compare and look; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        first, again, source = (Path(folder) / name for name in ("first", "again", "source"))
        build(ROOT, first)
        (sdist,) = first.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(source, filter="data")
        (unpacked,) = source.iterdir()
        build(unpacked, again, umask=0o077)
        check = [sys.executable, "-m", "twine", "check", "--strict", *first.iterdir()]
        checked = subprocess.run(check, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        problems = [
            *([checked.stdout + checked.stderr] if checked.returncode else []),
            *different(first, again),
            *wheel_problems(wheel_files(first), tree_files(ROOT, (PACKAGE, SHARED))),
            *sdist_problems(sdist_files(sdist), tracked_files()),
        ]
    for problem in problems:
        print(f"packages: {problem}", file=sys.stderr)
    return 1 if problems else 0


def build(source: Path, target: Path, *, umask: int = 0o022) -> None:
    """Build an sdist of ``source``, and the wheel of that sdist, into ``target``."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)]
    done = subprocess.run(
        command, env=ENVIRONMENT, umask=umask, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}packages: the build failed")


def different(first: Path, again: Path) -> Iterator[str]:
    """Yield which packages of two builds are not the same to the byte."""
    for name in sorted({path.name for folder in (first, again) for path in folder.iterdir()}):
        one, other = first / name, again / name
        if not (one.exists() and other.exists() and one.read_bytes() == other.read_bytes()):
            yield f"{name}: two builds are not the same"


def wheel_files(folder: Path) -> set[str]:
    """Return what a wheel installs: modules, and below ``share`` what is for everybody."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name.split("/", 1) for name in archive.namelist()]
    return {
        rest.removeprefix("data/") if top.endswith((".data", ".dist-info")) else f"{top}/{rest}"
        for top, rest in names
    }


def sdist_files(sdist: Path) -> set[str]:
    """Return the files of an sdist."""
    with tarfile.open(sdist) as archive:
        return {name.split("/", 1)[1] for name in archive.getnames()}


def tree_files(root: Path, folders: Collection[str]) -> set[str]:
    """Return the files below some folders, but what Python and tools leave there."""
    found = (path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(root)) for path in found if "__pycache__" not in path.parts}


def tracked_files() -> set[str] | None:
    """Return what git has, or would take; None if this is no checkout, or there is no git."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return None
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\0") if (ROOT / name).is_file()}


def wheel_problems(installed: set[str], wanted: set[str]) -> Iterator[str]:
    """Yield what a wheel lacks, and what it has but should not."""
    wanted = wanted | METADATA
    yield from (f"wheel: {name} is missing" for name in sorted(wanted - installed))
    yield from (f"wheel: {name} does not belong there" for name in sorted(installed - wanted))


def sdist_problems(packed: set[str], tracked: set[str] | None) -> Iterator[str]:
    """Yield what an sdist lacks of what git has, and what git has not."""
    if tracked is None:
        return
    wanted = {name for name in tracked if not name.startswith(LEFT_OUT)} | {ADDED}
    yield from (f"sdist: {name} is missing" for name in sorted(wanted - packed))
    yield from (f"sdist: {name} is nothing that git would take" for name in sorted(packed - wanted))


if __name__ == "__main__":
    sys.exit(main())
