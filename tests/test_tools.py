"""What is started as root: tools of whole paths, in an environment that nobody else has filled."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from snat_race.errors import SnatRaceError, UsageError
from snat_race.kernel import netns_lookup, tools
from snat_race.lab.variants import variant_of_file
from tests.conftest import ROOT, fork_cli


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "path", ["", ".", ":/usr/bin", "/usr/bin:", "bin:/usr/bin", "./bin", "~/bin", "/usr/bin::"]
)
def test_a_tool_is_never_one_of_the_present_folder(path: str, tmp_path: Path) -> None:
    """As ``PATH=:$PATH sudo -E snat-race doctor`` in somebody's folder."""
    for folder in (tmp_path, tmp_path / "bin", tmp_path / "~" / "bin"):
        script(folder / "snat-race-tool", "echo mine")
        script(folder / "nft", "echo mine")
    code = (
        "from snat_race.kernel import netns_lookup, tools\n"
        "print(tools.where('snat-race-tool'), tools.where('nft'))\n"
        "tools.run(netns_lookup.here(), ['snat-race-tool'])\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": path}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    missing, nft = done.stdout.split()
    assert missing == "None"
    assert nft == "None" or Path(nft).parent in map(Path, ("/usr/sbin", "/sbin", "/usr/bin", "/bin"))
    assert "EnvironmentLacks: there is no snat-race-tool here" in done.stderr


def test_a_tool_gets_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "show", "env")
    monkeypatch.setattr(tools, "_PATH", f"{tmp_path}:{tools._PATH}")
    for name in (
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "LANG",
        "LC_MESSAGES",
        "IPTABLES_LIB_DIR",
        "IFS",
    ):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("XTABLES_LIBDIR", "/lib/x")
    monkeypatch.setenv("XTABLES_LOCKFILE", "/run/one")
    for lock, file in ((None, "/run/one"), ("/run/two", "/run/two")):
        printed = tools.run(netns_lookup.here(), ["show"], lock=lock).stdout
        variables = dict(line.split("=", 1) for line in printed.splitlines())
        assert variables == {
            "LC_ALL": "C",
            "PATH": tools._PATH,
            "XTABLES_LIBDIR": "/lib/x",
            "XTABLES_LOCKFILE": file,
        } | {name: variables[name] for name in ("PWD", "SHLVL", "_", "OLDPWD") if name in variables}


def test_nothing_but_tools_starts_programs() -> None:
    """All of them go through one place."""
    starts = ("subprocess.run", "Popen", "os.system", "os.exec", "os.spawn", "os.popen", "check_output")
    starting = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "snat_race").rglob("*.py")
        if any(word in file.read_text() for word in starts)
    }
    assert starting == {"snat_race/kernel/tools.py"}


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def bound(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    return path


def filled(path: Path) -> Path:
    path.write_text("x")
    return path


ODD_PATHS: dict[str, Callable[[Path], Path | str]] = {
    "fifo": fifo,
    "socket": bound,
    "file": filled,
    "folder": lambda path: path.parent,
    "device": lambda _: "/dev/null",
    "tape": lambda _: "/dev/zero",
    "other namespace": lambda _: "/proc/self/ns/uts",
    "missing": lambda path: path,
    "below a file": lambda path: filled(path) / "x",
    "dots": lambda _: "..",
    "dots and slashes": lambda _: "../../etc/passwd",
    "dead": lambda _: "4194305",
    "no PID": lambda _: "9" * 30,
    "digits of another script": lambda _: "٣",
    "long": lambda _: "x" * 5000,
    "long path": lambda _: "/x" * 2000,
    "NUL": lambda _: "a\0b",
    "bytes": lambda _: "\udcff",
    "line break": lambda _: "a\nb",
    "empty": lambda _: "",
    "blank": lambda _: " ",
    "docker": lambda _: "docker:",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ODD_PATHS)
def test_what_is_no_namespace_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    text = str(ODD_PATHS[kind](tmp_path / "odd"))
    with pytest.raises(UsageError) as refused:
        netns_lookup.find(text)
    assert len(str(refused.value)) < 8300


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_fifo_or_device_as_a_namespace_is_one_line(kind: str, tmp_path: Path) -> None:
    path = str(ODD_PATHS[kind](tmp_path / "odd"))
    done = fork_cli("doctor", "--netns", path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"snat_race: --netns: {path} is no namespace; give a PID, a name, a path or docker:CONTAINER"
    ]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "kind", ["fifo", "socket", "folder", "device", "tape", "missing", "below a file", "NUL"]
)
def test_what_is_no_ruleset_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        variant_of_file(Path(ODD_PATHS[kind](tmp_path / "odd")))


ANSWERS = [b"", b"{", b"[]", b"null", b'{"State": 1}', b'{"State": {}}', b'{"State": {"Pid": "1"}}']
ANSWERS += [b'{"State": {"Pid": -1}}', b'{"State": {"Pid": null}}', b"[" * 100_000, b"9" * 5000, b"\xff"]


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: ascii(answer[:25]))
def test_odd_answers_of_docker_are_one_line(
    answer: bytes, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.0 %d x\r\n\r\n" % status + answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(SnatRaceError, match="Docker"):
            netns_lookup.find("docker:one")
        thread.join()
