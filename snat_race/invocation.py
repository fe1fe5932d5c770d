"""How to run this program again, in words that can be pasted into a shell."""

import os
import shlex
import shutil
import sys
from pathlib import Path

SCRIPT = "snat-race"


def command(*arguments: str, sudo: bool = False) -> str:
    """Return a command line of ours; with ``sudo`` only for those who are not root and have it."""
    sudo = sudo and os.geteuid() != 0 and bool(shutil.which("sudo"))  # which containers lack
    known = Path(shutil.which("python") or "").parent == Path(sys.executable).parent  # a venv, active
    if known and not sudo and Path(sys.argv[0]).name == SCRIPT:
        return shlex.join([SCRIPT, *arguments])
    python = ["sudo", sys.executable] if sudo else ["python" if known else sys.executable]
    return shlex.join([*python, "-m", "snat_race", *arguments])
