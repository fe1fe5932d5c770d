"""scripts/collect, with a kubectl that replays what our own commands have printed."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, SOON_S, fork_cli
from tests.results import small_watch

KUBECTL = """#!{python}
import json, pathlib, sys
store, words = pathlib.Path({store!r}), sys.argv[1:]
assert words[:2] == ["--namespace", "snat-race"]
if "get" in words:
    print((store / "pods.json").read_text())
else:
    log = store / words[words.index("logs") + 1]
    sys.stdout.write(log.read_text() if log.exists() else "")
"""


class Cluster:
    """Pods with their logs, and a kubectl that knows them."""

    def __init__(self, folder: Path) -> None:
        self.store, self.out, self._pods = folder / "store", folder / "out", list[dict[str, Any]]()
        self.store.mkdir()
        kubectl = folder / "bin" / "kubectl"
        kubectl.parent.mkdir()
        kubectl.write_text(KUBECTL.format(python=sys.executable, store=str(self.store)))
        kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
        self._path = f"{kubectl.parent}:{os.environ['PATH']}"

    def add(self, name: str, node: str, component: str, log: str | None) -> None:
        labels = {"app.kubernetes.io/component": component}
        pod = {"metadata": {"name": name, "labels": labels}, "spec": {"nodeName": node}}
        self._pods.append(pod | {"status": {"phase": "Running" if log else "Pending"}})
        if log is not None:
            (self.store / name).write_text(log)

    def collect(self, *more: str) -> subprocess.CompletedProcess[str]:
        (self.store / "pods.json").write_text(json.dumps({"items": self._pods}))
        return run("collect", str(self.out), *more, path=self._path)


def run(*args: str, path: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / args[0]), *args[1:]]
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=SOON_S, check=False
    )


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


@pytest.fixture(scope="module")
def logs() -> tuple[str, str]:
    """What a client and a watch print, with text in between and a broken line, as logs have it."""
    args = ["-r", "127.0.0.1:9", "-c", "1", "--duration", "1500ms", "-s", "1", "--json"]
    client = fork_cli("client", *args).stdout
    watch = json.dumps({"event": "result"} | small_watch("w").model_dump(mode="json"))
    return f'warning: text\n{client}{{"event": "per', f"reading /proc\n{watch}\n"


def test_each_node_has_a_folder_and_a_report(cluster: Cluster, logs: tuple[str, str]) -> None:
    for node in ("one", "two"):
        cluster.add(f"client-{node}", node, "client", logs[0])
        cluster.add(f"watch-{node}", node, "watch", logs[1])
    done = cluster.collect()
    assert done.returncode == 0, done.stderr
    assert sorted(str(path.relative_to(cluster.out)) for path in cluster.out.glob("*/*")) == [
        "one/client-one.json", "one/watch-one.json", "two/client-two.json", "two/watch-two.json",
    ]  # fmt: skip
    assert done.stdout.count("Verdict: ") == 2
    assert "==== node one: 2 results" in done.stdout


def test_a_stream_without_an_end_counts_up_to_its_last_period(
    cluster: Cluster, logs: tuple[str, str]
) -> None:
    lines = [line for line in logs[0].splitlines() if '"event": "result"' not in line]
    cluster.add("client", "one", "client", "\n".join(lines))
    done = cluster.collect()
    assert done.returncode == 0, done.stderr
    assert "was cut off" in done.stdout


def test_a_pod_without_a_result_is_named_and_the_others_are_reported(
    cluster: Cluster, logs: tuple[str, str]
) -> None:
    cluster.add("client", "one", "client", logs[0])
    cluster.add("late", "", "client", None)
    done = cluster.collect()
    assert done.returncode == 4
    assert done.stderr == "collect: late on no node has no result: it is Pending\n"
    assert done.stdout.count("Verdict: ") == 1


def test_nothing_to_collect_is_one_line(cluster: Cluster) -> None:
    done = cluster.collect()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "kubectl apply -k" in done.stderr
    cluster.add("client", "one", "client", "warning: no server\n")
    assert "no pod has a result yet" in cluster.collect().stderr
    assert not cluster.out.exists()


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("")
    said = [run("collect", *args, path="/nowhere") for args in ([], [str(full)], [str(tmp_path / "new")])]
    assert [(each.returncode, each.stderr.count("\n")) for each in said] == [(2, 1)] * 3
    assert [each.stderr.split()[1] for each in said] == ["where", str(full), "there"]
    assert (full / "mine").exists()
