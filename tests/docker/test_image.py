"""The image: small, quick to start and to stop, content with few rights, clear about what it lacks."""

import json
import statistics
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests.docker.engine import (
    BEYOND,
    DIAL,
    HARDENED,
    IMAGE,
    USER,
    docker,
    inspect,
    logs,
    run,
    started,
    until,
)

Figure = Callable[[str], None]


def test_our_layers_are_at_most_120_mb(figure: Figure) -> None:
    base = inspect(IMAGE, 'index .Config.Labels "org.opencontainers.image.base.name"')
    ours = int(inspect(IMAGE, ".Size")) - int(inspect(base, ".Size"))
    figure(f"our layers take {ours / 1e6:.0f} MB above {base}")
    assert ours <= 120e6


@BEYOND
def test_the_first_dial_is_within_a_second_of_the_start(tmp_path: Path, figure: Figure) -> None:
    waits_s = []
    for _ in range(3):
        mount = ("-v", f"{tmp_path}:/r", "--user", USER)
        with started(*mount, *HARDENED, IMAGE, *DIAL, "--count", "20", "-o", "/r/r.json") as name:
            docker("wait", name)
            began = datetime.fromisoformat(inspect(name, ".State.StartedAt")[:26])
        dialled = json.loads((tmp_path / "r.json").read_text())["summary"]["began_at"]
        waits_s.append((datetime.fromisoformat(dialled[:-1]) - began).total_seconds())
    figure(f"start of a container to its first dial: {statistics.median(waits_s):.2f} s")
    assert statistics.median(waits_s) <= 1.0


@BEYOND
@pytest.mark.parametrize(
    ("command", "begun", "ended"),
    [
        (DIAL, "Starting", "Summary of the whole run"),
        (("server",), "Ready", "Stopped. Accepted"),
        (("watch",), "rose", "In all"),
    ],
    ids=["client", "server", "watch"],
)
def test_docker_stop_ends_it_with_its_summary(
    command: tuple[str, ...], begun: str, ended: str, figure: Figure
) -> None:
    with started(*HARDENED, IMAGE, *command) as name:
        until(lambda: begun in logs(name))
        began_s = time.monotonic()
        docker("stop", name)
        took_s = time.monotonic() - began_s
        assert inspect(name, ".State.ExitCode") == "0"
        assert ended in logs(name)
    figure(f"docker stop of a {command[0]}: {took_s:.2f} s")
    assert took_s <= 1.5


@BEYOND
def test_it_keeps_to_its_cpus(tmp_path: Path) -> None:
    mount = ("-v", f"{tmp_path}:/r", "--user", USER)
    docker("run", "--rm", "--cpuset-cpus", "0", *mount, IMAGE, *DIAL, "--count", "20", "-o", "/r/r.json")
    measured = json.loads((tmp_path / "r.json").read_text())
    assert measured["environment"]["usable_cpus"] == [0]
    assert measured["spec"]["workers"] == 1


@BEYOND
def test_health_is_that_of_a_server_that_listens() -> None:
    docker("exec", "snat-race-server", "healthcheck")
    deaf = ("--entrypoint", "sh", IMAGE, "-c", "healthcheck; exit $?", "server")
    assert "does not listen" in run("docker", "run", "--rm", *deaf, code=1).stderr
    docker("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", "healthcheck; exit $?", "client")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--network", "host", IMAGE, "mitigate"], 4, "--cap-add NET_ADMIN"),
        (["-v", "/tmp:/r:ro", IMAGE, *DIAL, "-o", "/r/x.json"], 2, "choose another place"),
        ([IMAGE, "client", "-r", "nobody.invalid:80"], 2, "unknown host"),
        ([IMAGE, "client", "--cpus", "7"], 2, "--help"),
    ],
    ids=["no NET_ADMIN", "a read-only folder", "an unknown server", "an unknown option"],
)
def test_what_is_wrong_is_one_line(args: list[str], code: int, said: str) -> None:
    told = run("docker", "run", "--rm", *args, code=code).stderr
    assert said in told
    assert told.count("\n") == 1


def test_an_unreachable_server_is_called_that() -> None:
    told = docker("run", "--rm", "--network", "none", IMAGE, *DIAL, "--duration", "300ms")
    assert "unreachable" in told


@pytest.mark.parametrize("script", [["docker-race"], ["docker-server", "up"]], ids=" ".join)
def test_without_an_engine_the_scripts_say_so(script: list[str], tmp_path: Path) -> None:
    results = ["--results", str(tmp_path)] if script == ["docker-race"] else []
    name, *rest = script
    told = run(f"scripts/{name}", *rest, *results, code=2, DOCKER_HOST="unix:///nowhere").stderr
    assert "no engine answers" in told
    assert told.count("\n") == 1
