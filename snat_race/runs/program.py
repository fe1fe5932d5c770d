"""How to run this program again, in words that can be pasted into a shell."""

import shlex
import shutil
import sys
from pathlib import Path

SCRIPT = "snat-race"


def as_root(*arguments: str) -> str:
    """Return what an ordinary user can do to have our command see more."""
    if shutil.which("sudo"):  # which containers lack
        return f"try '{command(*arguments, sudo=True)}'"
    return "run it as root, in a container with --cap-add NET_ADMIN"


def command(*arguments: str, sudo: bool = False) -> str:
    """Return a command line of ours."""
    known = Path(shutil.which("python") or "").parent == Path(sys.executable).parent  # a venv, active
    if known and not sudo and Path(sys.argv[0]).name == SCRIPT:
        return shlex.join([SCRIPT, *arguments])
    python = ["sudo", sys.executable] if sudo else ["python" if known else sys.executable]
    return shlex.join([*python, "-m", "snat_race", *arguments])
