"""A real Docker engine, as its command line has it."""

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snat_race.kernel.counters import parse_stat

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("SNAT_RACE_IMAGE", "snat-race")
DIAL = ("client", "-r", "10.18.10.137:8080", "-d", "1000", "-t", "50")
USER = f"{os.getuid()}:{os.getgid()}"
HARDENED = ("--read-only", "--cap-drop", "ALL")
BEYOND = pytest.mark.usefixtures("server")
_VARIES = re.compile(r"\[\d+:\d+\]|^#.*|packets \d+ bytes \d+", re.MULTILINE)


def run(*command: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the repository's root; fail if it does not exit with ``code``."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
    )
    assert done.returncode == code, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def docker(*args: str, code: int = 0) -> str:
    return run("docker", *args, code=code).stdout


def on_host(first: str, *rest: str) -> str:
    """Run a tool of the image in the host's network; return what it printed."""
    where = ("--rm", "--network", "host", "--cap-add", "NET_ADMIN")
    return docker("run", *where, "--entrypoint", first, IMAGE, *rest)


def rules_and_devices() -> str:
    tools = ("iptables-nft-save", "iptables-legacy-save", "ip6tables-nft-save", "ip6tables-legacy-save")
    saved = [on_host(tool) for tool in tools]
    saved += [on_host("nft", "--stateless", "list", "ruleset"), on_host("ls", "/sys/class/net")]
    return _VARIES.sub("", "\n".join(saved))


def insert_failed() -> int:
    return sum(parse_stat(on_host("cat", "/proc/net/stat/nf_conntrack"))["insert_failed"])


def inspect(name: str, field: str) -> str:
    return docker("inspect", "-f", f"{{{{{field}}}}}", name).strip()


def logs(name: str) -> str:
    done = run("docker", "logs", name)
    return done.stdout + done.stderr


def ends(name: str) -> list[dict[str, Any]]:
    """The summaries of a container's runs, each with --json."""
    events = [json.loads(line) for line in docker("logs", name).splitlines()]
    return [event["summary"] for event in events if event["event"] == "result"]


def until(holds: Callable[[], object]) -> None:
    over_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < over_s


@contextlib.contextmanager
def started(*args: str) -> Iterator[str]:
    """A container in the background; gone at the end."""
    name = docker("run", "-d", *args).strip()
    try:
        yield name
    finally:
        docker("rm", "-f", name)


def answers() -> str:
    """Why no engine does; empty if one does."""
    done = subprocess.run(
        ["scripts/docker-server", "require"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.stderr.strip()
