"""How to start this very program again, from any folder and under sudo; and how to add to it."""

import gc
import shlex
import shutil
import sys
from pathlib import Path

from snat_race.report.wording.program import Program

_SCRIPT = "snat-race"
_IN_CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"))  # Docker, Podman


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
    sudo = shutil.which("sudo") is not None
    return Program(words=words, sudo=sudo, on_path=on_path, in_container=in_container())


def keep_all_objects() -> None:
    """Have Python no longer look for objects that only name one another: of a command that ends soon.

    There are hardly any. Of 10,000 rules the search takes as long as all else that Python does, of a stream
    a sixth of it.
    """
    gc.disable()


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


def in_container() -> bool:
    """Whether this runs in a container, whose own files end with it."""
    return any(map(Path.exists, _IN_CONTAINER)) or _is_overlay(Path("/"))


def ends_with_container(path: Path) -> bool:
    """Whether a file would be among the files of a container's own: on no mount."""
    folder = path.absolute().parent.resolve()
    mounts = _mounts()
    return _is_overlay(
        next((parent for parent in (folder, *folder.parents) if parent in mounts), Path("/"))
    )


def _is_overlay(mount: Path) -> bool:
    return "overlay" in _mounts().get(mount, "")


def _mounts() -> dict[Path, str]:
    """Return the file system of each mount."""
    from psutil import disk_partitions

    return {Path(mount.mountpoint): mount.fstype for mount in disk_partitions(all=True)}
