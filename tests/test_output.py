"""A result file is checked before the run, and replaced whole or not at all; a stream loses nothing."""

import fcntl
import json
import os
import select
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from snat_race.cli.result_writer import require_writable, write_atomically
from snat_race.errors import EnvironmentLacks, UsageError
from snat_race.runs import signals
from snat_race.runs.signals import StopSignals
from tests.conftest import COMMAND, clean_environment, eventually, fork_cli, in_fork


def test_a_file_is_replaced_and_keeps_its_permissions(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text("old")
    file.chmod(0o640)
    require_writable(file)
    assert file.read_text() == "old"
    write_atomically(file, "new")
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [file]


def test_a_slow_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who reads a pipe or a terminal may be gone."""
    write = os.write

    def slowly(descriptor: int, data: bytes) -> int:
        time.sleep(0.5)
        return write(descriptor, data)

    monkeypatch.setattr(signals, "_STUCK_AFTER_S", 0.1)
    monkeypatch.setattr(signals, "_TICK_S", 0.05)
    monkeypatch.setattr(os, "write", slowly)
    with StopSignals() as stop:
        stop.request()
        write_atomically(tmp_path / "r.json", "new")
    assert (tmp_path / "r.json").read_text() == "new"


def test_a_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    require_writable(link)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


STRANGER = 4711


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    """A folder that everybody can write in, as /tmp; and beside it one with a file of ours, 'secret'."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o1777)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "secret").write_text("secret")
    return folder


ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file another user's")


@ROOT_ONLY
@pytest.mark.parametrize(
    ("link", "points_to", "named"),
    [("r.json", "../ours/secret", "r.json"), ("d", "../ours", "d/secret"), ("new", "../ours/new", "new")],
    ids=["a file", "a folder", "nothing yet"],
)
def test_a_strangers_link_is_not_followed(open_to_all: Path, link: str, points_to: str, named: str) -> None:
    (open_to_all / link).symlink_to(points_to)
    os.lchown(open_to_all / link, STRANGER, STRANGER)
    (open_to_all / "mine").symlink_to(named)  # a link of our own that leads to it
    for name in (named, "mine"):
        with pytest.raises(UsageError, match=f"link of another user, {STRANGER}"):
            require_writable(open_to_all / name)
        with pytest.raises(EnvironmentLacks, match=f"link of another user, {STRANGER}"):
            write_atomically(open_to_all / name, "new")
    assert [path.name for path in (open_to_all.parent / "ours").iterdir()] == ["secret"]
    assert (open_to_all.parent / "ours" / "secret").read_text() == "secret"
    assert (open_to_all / link).is_symlink()


def test_a_link_of_ones_own_is_followed_there(open_to_all: Path) -> None:
    (open_to_all / "r.json").symlink_to("../ours/secret")
    require_writable(open_to_all / "r.json")
    write_atomically(open_to_all / "r.json", "new")
    assert (open_to_all.parent / "ours" / "secret").read_text() == "new"


@ROOT_ONLY
def test_a_strangers_file_does_not_choose_who_may_write_ours(open_to_all: Path) -> None:
    file = open_to_all / "r.json"
    file.write_text("bait")
    file.chmod(0o666)
    os.chown(file, STRANGER, STRANGER)
    write_atomically(file, "new")
    assert (file.stat().st_uid, file.stat().st_mode & 0o022) == (0, 0)


@ROOT_ONLY
def test_a_strangers_file_that_only_the_stranger_may_replace_is_refused_before_the_run(
    open_to_all: Path,
) -> None:
    file = open_to_all / "r.json"
    file.write_text("bait")
    file.chmod(0o666)
    os.chown(file, STRANGER, STRANGER)

    def refusal_of(user: int) -> str:
        os.chdir(open_to_all)  # the folders above are root's
        os.setresuid(user, user, user)
        try:
            require_writable(Path("r.json"))
        except UsageError as refused:
            return str(refused)
        write_atomically(Path("r.json"), "new")
        return ""

    assert "another user's" in in_fork(lambda: refusal_of(STRANGER + 1))
    assert file.read_text() == "bait"
    assert in_fork(lambda: refusal_of(STRANGER)) == ""
    assert file.read_text() == "new"


def test_a_pipe_that_becomes_another_file_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As who may write in its folder can make it, by a link to a file of ours, just before it is opened."""
    pipe, secret = tmp_path / "pipe", tmp_path / "secret"
    os.mkfifo(pipe)
    secret.write_text("secret")
    really_open = os.open

    def exchange_and_open(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if path == pipe.name and flags & os.O_WRONLY:
            pipe.unlink()
            pipe.hardlink_to(secret)
        return really_open(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", exchange_and_open)
    with pytest.raises(EnvironmentLacks, match="exchanged meanwhile"):
        write_atomically(pipe, "new")
    assert secret.read_text() == "secret"


def test_a_pipe_is_written_to_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    require_writable(pipe)
    write_atomically(pipe, "new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_an_open_descriptor_is_written_to(tmp_path: Path, folder: str) -> None:
    reader, writer = os.pipe()
    with (tmp_path / "file").open("w+") as file:
        for descriptor in (writer, file.fileno()):
            require_writable(Path(folder) / str(descriptor))
            write_atomically(Path(folder) / str(descriptor), "new")
        assert (os.read(reader, 10), file.seek(0), file.read()) == (b"new", 0, "new")
    os.close(reader)
    os.close(writer)


def test_where_files_without_a_name_are_unknown_it_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # for which open(2) has EISDIR, as older kernels
    write_atomically(tmp_path / "r.json", "new")
    write_atomically(tmp_path / "r.json", "newer")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["newer"]


def test_a_disk_is_no_place_for_a_result() -> None:
    disk = next(filter(Path.is_block_device, Path("/dev").iterdir()), None)
    if not disk:
        pytest.skip("there is no disk in /dev")
    with pytest.raises(UsageError, match="a disk"):
        require_writable(disk)


@pytest.mark.parametrize("name", ["", "no/such/folder", "x" * 300, "loop"])
def test_what_cannot_be_written_is_refused_before_the_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="--output"):
        require_writable(tmp_path / name)


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "r.json"
    file.write_text("old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentLacks, match="No space left"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_written_arrives_whole_though_a_signal_cuts_a_write_short() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    args, environment = [*COMMAND, "report", "--schema"], clean_environment(PYTHONUNBUFFERED="1")
    with os.fdopen(reader) as read, subprocess.Popen(args, stdout=writer, env=environment) as writing:
        os.close(writer)
        process = psutil.Process(writing.pid)
        written = select.poll()
        written.register(reader, select.POLLIN)
        eventually(lambda: written.poll(0) and process.status() == psutil.STATUS_SLEEPING)
        process.suspend()
        eventually(lambda: process.status() == psutil.STATUS_STOPPED)
        process.resume()
        assert json.loads(read.read())["title"]


@pytest.mark.parametrize("args", [["--help"], ["lab", "--list"], ["report", "--schema"]], ids=" ".join)
def test_a_full_disk_behind_stdout_is_one_line(args: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = fork_cli(*args, stdout=full.fileno())
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_result_is_not_overwritten_by_what_is_made_of_it(kept: Callable[..., Path], command: str) -> None:
    one, other = kept("one"), kept("other")
    before = one.read_text()
    done = fork_cli(command, str(one), str(other), "-o", str(one))
    assert (done.returncode, done.stderr.count("\n"), one.read_text() == before) == (2, 1, True)


def test_a_result_that_cannot_be_saved_is_printed_all_the_same(port: int) -> None:
    done = fork_cli("client", "-r", f"127.0.0.1:{port}", "--count", "2", "-o", "/dev/full")
    assert (done.returncode, "Summary of the whole run" in done.stdout) == (4, True)
    saved = Path(done.stderr.split("the result is in ")[1].strip())
    assert json.loads(saved.read_text())["kind"] == "client"
    saved.unlink()
