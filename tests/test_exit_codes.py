"""An exit code is the verdict's, whoever reads stdout: nobody, or somebody who leaves after a line."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MOST_S, NFT, PRIVATE, ROOT, SOON_S, in_sandbox, start_cli

EXAMPLES = ROOT / "docs" / "examples"
RACING, CURED = str(EXAMPLES / "racing-1.json"), str(EXAMPLES / "cured-1.json")
EXPOSED = "table ip t { chain p { type nat hook postrouting priority 100; masquerade; }; }"
DIALS = 200


def code_of(command: tuple[str, ...], *, read: bool) -> int:
    """The exit code of a command whose stdout is read to its end, or is a pipe that nobody reads."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream:
        if not read:
            stream.close()
        with start_cli(*command, stdout=writer, stderr=subprocess.DEVNULL) as process:
            os.close(writer)
            assert not read or stream.read()
            return process.wait(MOST_S)


def codes(*command: str) -> list[int]:
    return [code_of(command, read=read) for read in (True, False)]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("report", RACING), 0),
        (("report", "--max-error-rate", "0%", RACING), 3),
        (("report", "--format", "json", "--max-error-rate", "0%", RACING), 3),
        (("compare", "--fail-if", "fewer", RACING, CURED), 3),
        (("compare", "--fail-if", "more", RACING, CURED), 0),
        (("compare", "--format", "json", "--fail-if", "fewer", RACING, CURED), 3),
    ],
    ids=lambda value: " ".join(map(os.path.basename, value)) if isinstance(value, tuple) else "",
)
def test_of_what_reads_results(command: tuple[str, ...], code: int) -> None:
    assert codes(*command) == [code, code]


def in_exposed_host(work: Callable[[], Any], rules: str = EXPOSED) -> Any:
    def exposed() -> Any:
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        return work()

    return in_sandbox(exposed)


@PRIVATE
@NFT
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("doctor",), 3),
        (("doctor", "--json"), 3),
        (("doctor", "--quiet"), 3),
        (("mitigate",), 0),
        (("watch", "--duration", "100ms"), 0),
        (("watch", "--json", "--duration", "100ms"), 0),
        (("watch", "--netns", "/nowhere", "--duration", "100ms"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_of_what_looks_at_a_host(command: tuple[str, ...], code: int) -> None:
    if code == 2:  # it prints nothing
        assert in_sandbox(lambda: code_of(command, read=False)) == code
    else:
        assert in_exposed_host(lambda: codes(*command)) == [code, code]


@PRIVATE
@NFT
@pytest.mark.parametrize("curable", ["", "masquerade"])
def test_of_rules_that_cannot_be_changed_whether_it_is_tried_or_not(curable: str, tmp_path: Path) -> None:
    lines = ["type nat hook postrouting priority 100;", "meta mark 1 jump { masquerade; }", curable]
    undo = str(tmp_path / "undo.json")

    def work() -> list[int]:
        commands = ("mitigate",), ("mitigate", "--apply", "--dump", undo)
        return [code_of(command, read=False) for command in commands]

    rules = "\n".join(["table ip t {", "chain c {", *lines, "}", "}", ""])
    assert in_exposed_host(work, rules) == [4, 4]


@PRIVATE
@NFT
def test_of_what_changes_rules(tmp_path: Path) -> None:
    undo = str(tmp_path / "undo.json")

    def change() -> list[int]:
        applied = code_of(("mitigate", "--apply", "--dump", undo), read=False)
        cured = code_of(("doctor",), read=False)
        reverted = code_of(("mitigate", "--revert", undo), read=False)
        return [applied, cured, reverted, code_of(("doctor",), read=False)]

    assert in_exposed_host(change) == [0, 0, 0, 3]


@PRIVATE
@pytest.mark.parametrize("form", [(), ("--ktap",), ("--json",)], ids=str)
def test_of_a_lab_whose_expectation_does_not_hold(form: tuple[str, ...]) -> None:
    short = ("lab", "--duration", "1s", "--variant", "masquerade")
    # It races; on a machine that is too busy for its dials to meet, that cannot be told, which is 4.
    assert code_of((*short, "--expect", "no-race", *form), read=False) in (3, 4)


@pytest.mark.parametrize("form", [(), ("--json",)], ids=str)
def test_a_client_with_a_limit_goes_on_without_a_reader(form: tuple[str, ...]) -> None:
    """The server closes when half of the dials are made, long after the reader has left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SOON_S)
        command = (
            *("client", "--remote-addr", f"127.0.0.1:{listener.getsockname()[1]}"),
            *("--mode", "independent", "--workers", "1", "--dial-interval-us", "20000"),
            *("--count", str(DIALS), "--summary-interval-sec", "1", "--max-error-rate", "1%", *form),
        )
        reader, writer = os.pipe()
        client = start_cli(*command, stdout=writer, stderr=subprocess.DEVNULL)
        os.close(writer)
        for _ in range(DIALS // 2):
            listener.accept()[0].close()
            if reader >= 0:
                assert os.read(reader, 1)
                os.close(reader)
                reader = -1
        listener.close()
        assert client.wait(MOST_S) == 3
