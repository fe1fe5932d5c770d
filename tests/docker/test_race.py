"""Containers that share nothing but the clock race on the default bridge, and what helps does help."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import assert_all_clashed
from tests.docker.engine import (
    BEYOND,
    DIAL,
    IMAGE,
    ROOT,
    docker,
    ends,
    insert_failed,
    logs,
    on_host,
    rules_and_devices,
    run,
    started,
    until,
)

Figure = Callable[[str], None]
MOST_BY_CHANCE = 5  # of 20,000 pairs that draw from 64,512 ports: 0.3 are expected, 6 once in 10^6 runs


def counted(folder: Path, name: str) -> tuple[int, int, int]:
    """What was lost, and how far insert_failed and drop rose meanwhile."""
    merged: dict[str, Any] = json.loads((folder / name).read_text())
    source = merged["kernel"]["source"]
    return merged["summary"]["failed"], sum(source["insert_failed"]), sum(source["drop"])


def test_the_stock_rule_races_and_random_ports_cure_it(tmp_path: Path, figure: Figure) -> None:
    told = run("scripts/docker-race", "--fixed", "--results", str(tmp_path)).stdout
    lost, failed, dropped = counted(tmp_path, "race.json")
    figure(f"stock rule, 10 s at 1 ms slots: {lost} lost, insert_failed +{failed}, drop +{dropped}")
    assert_all_clashed(lost, failed, dropped)
    assert lost >= 100
    lost, failed, dropped = counted(tmp_path, "fixed.json")
    figure(f"--random-fully, the same: {lost} lost, insert_failed +{failed}")
    assert_all_clashed(lost, failed, dropped)
    assert failed <= MOST_BY_CHANCE
    assert "Verdict: fewer" in told
    assert not (tmp_path / "undo.json").exists()


def test_ctrl_c_while_the_host_s_rule_is_changed_puts_it_back(tmp_path: Path) -> None:
    before, undo = rules_and_devices(), tmp_path / "undo.json"
    command = ["scripts/docker-race", "--fixed", "--results", str(tmp_path), "--", "--duration", "1s"]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL) as racing:
        until(lambda: "--random-fully" in on_host("iptables-nft-save") and undo.exists())
        os.killpg(racing.pid, signal.SIGINT)
    assert racing.returncode == 130
    assert rules_and_devices() == before
    assert not undo.exists()
    assert not docker("ps", "--all", "--quiet", "--filter", "name=snat-race-")


@BEYOND
def test_the_documentation_s_two_lines_race(figure: Figure) -> None:
    text = (ROOT / "docs" / "containers.md").read_text()
    lines = re.findall(r"^\$ (docker run --rm snat-race client .*)$", text, re.MULTILINE)
    assert len(lines) == 2
    before = insert_failed()
    said = run("bash", "-c", "\n".join(lines)).stdout
    failed = re.findall(r"^failed +([\d,]+)", said, re.MULTILINE)
    lost = sum(int(each.replace(",", "")) for each in failed)
    figure(f"the documentation's two lines: {lost} lost")
    assert lost > 0
    assert_all_clashed(lost, insert_failed() - before)


@BEYOND
def test_who_comes_late_or_starts_again_with_fewer_workers_still_meets(figure: Figure) -> None:
    before, endless = insert_failed(), [*DIAL, "--json"]
    with started(IMAGE, *endless, "-c", "2") as first:
        until(lambda: "Starting" in logs(first))
        time.sleep(20)  # so late
        with started(IMAGE, *endless, "-c", "1") as late:
            time.sleep(6)
            docker("restart", late)
            time.sleep(6)
            docker("stop", late)
            lost = [each["failed"] for each in ends(late)]
        docker("stop", first)
        (all_along,) = ends(first)
    figure(f"20 s late with 1 worker to 2: {lost[0]} lost in 6 s; restarted: {lost[1]}")
    assert min(lost) > 0
    assert_all_clashed(sum(lost) + all_along["failed"], insert_failed() - before)


@BEYOND
def test_doctor_and_watch_see_the_host_without_being_root() -> None:
    on_host_args = ("--network", "host", "--cap-add", "NET_ADMIN", IMAGE)
    told = run("docker", "run", "--rm", *on_host_args, "doctor", code=3).stdout
    assert re.search(r"EXPOSED .*docker0 -j MASQUERADE \(by\s+Docker\)", told)
    assert "UNKNOWN" not in told
    assert "In all" in docker("run", "--rm", *on_host_args, "watch", "--duration", "1s")
    assert "--random-fully" in docker("run", "--rm", *on_host_args, "mitigate")
    assert "--random-fully" not in on_host("iptables-nft-save")


@BEYOND
def test_a_client_that_met_nobody_says_so() -> None:
    told = docker("run", "--rm", IMAGE, *DIAL, "--duration", "1s")
    assert "only if another client met these slots" in told
