"""How to start this very program again, from any folder and under sudo; and how to add to it."""

import shlex
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
    if not script.exists():
        words: tuple[str, ...] = (sys.executable, "-m", "snat_race")
        on_path = False
    else:
        by_name = shutil.which(_SCRIPT)  # the name that pipx gave it is shorter
        on_path = by_name is not None and script.samefile(by_name)
        words = (str(Path(by_name).absolute()) if by_name and on_path else str(script),)
    return Program(words=words, sudo=shutil.which("sudo") is not None, on_path=on_path)


def adding(extra: str) -> str:
    """Return the command that adds what an extra of ours needs to this installation.

    The libraries are named one by one, because no index need have this program.
    """
    from importlib.metadata import PackageNotFoundError, requires

    try:
        needed = [line.partition(";") for line in requires(_SCRIPT) or ()]
        libraries = [library for library, _, marker in needed if marker.split()[2:] == [f"'{extra}'"]]
    except PackageNotFoundError:  # run from its folder, without being installed
        libraries = [f"{Path(__file__).parents[2]}[{extra}]"]
    environment = Path(sys.prefix)
    if (environment / "pipx_metadata.json").exists():
        return shlex.join(["pipx", "inject", environment.name, *libraries])
    return shlex.join([sys.executable, "-m", "pip", "install", *libraries])
