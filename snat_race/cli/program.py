"""How to start this very program again, from any folder and under sudo."""

import shutil
import sys
from pathlib import Path

from snat_race.report.wording.program import Program

_SCRIPT = "snat-race"


def this_program() -> Program:
    """Return how this program is started, with its full path.

    sudo looks for programs in its own path (secure_path in sudoers(5)), which has no virtual
    environment's. So does a shell in which that is not active.
    """
    script = Path(sys.executable).with_name(_SCRIPT)
    if script.exists():
        words: tuple[str, ...] = (str(script),)
    else:
        words = (sys.executable, "-m", "snat_race")
    return Program(words=words, sudo=shutil.which("sudo") is not None)
