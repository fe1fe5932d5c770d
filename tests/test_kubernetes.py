"""The manifests are as Kubernetes wants them, and agree with each other and with our command line."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from snat_race.cli.parsing import duration_s
from tests.conftest import ROOT, SOON_S, parsed_cli

FOLDER = ROOT / "docker" / "kubernetes"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))
OLDEST, *_, NEWEST = kubernetes_validate.utils.all_versions()
REFERENCE = re.compile(r"\$\((\w+)\)")
UNTIL = re.compile("until snat-race (.*?); do")
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def workloads() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each pod template, by the file it is in."""
    for path in FILES:
        for document in documents(path):
            template = document.get("spec", {}).get("template", {})
            if "containers" in template.get("spec", {}):
                yield f"{path.relative_to(FOLDER)}", document


WORKLOADS = dict(workloads())
SETTINGS = documents(FOLDER / "base" / "settings.yaml")[0]["data"]


def containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    pod = document["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_manifest_is_valid(path: Path, version: str) -> None:
    for document in documents(path):
        if path.name != "server-node.yaml":  # a patch
            kubernetes_validate.validate(document, version, strict=True)


def test_a_wrong_field_would_be_found() -> None:
    document = json.loads(json.dumps(WORKLOADS["base/server.yaml"]))
    document["spec"]["template"]["spec"]["hostNetworks"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, NEWEST, strict=True)


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_kustomization_names_what_is_there_and_all_of_it(path: Path) -> None:
    (named,) = documents(path)
    files = [*named.get("resources", []), *named.get("components", [])]
    files += [each["path"] for each in named.get("patches", [])]
    assert all((path.parent / each).exists() for each in files)
    beside = {each.name for each in path.parent.glob("*.yaml")} - {"kustomization.yaml"}
    assert beside == {each for each in files if each.endswith(".yaml")}


@pytest.mark.parametrize("name", WORKLOADS)
def test_our_command_line_takes_the_arguments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for container in containers(WORKLOADS[name]):
        if container.get("command") == ["sleep", "infinity"]:  # waits for 'kubectl exec'
            continue
        for key, value in SETTINGS.items() if "envFrom" in container else ():
            monkeypatch.setenv(key, value)
        waiting = UNTIL.search(container.get("command", [""])[-1])
        words = shlex.split(waiting[1]) if waiting else container["args"]
        args = [REFERENCE.sub(lambda found: SETTINGS[found[1]], each) for each in words]
        params = parsed_cli(args)
        if "envFrom" in container:
            assert params["remote_addr"] == SETTINGS["REMOTE_ADDR"]
            assert params["dial_interval_us"] == int(SETTINGS["DIAL_INTERVAL_US"])


def test_the_settings_are_those_that_are_read() -> None:
    assert duration_s(SETTINGS["DURATION"]) > 0
    assert int(SETTINGS["REMOTE_ADDR"].rpartition(":")[2]) == 18080
    (service, server) = documents(FOLDER / "base" / "server.yaml")
    assert service["spec"]["ports"][0]["port"] == 18080
    assert server["spec"]["template"]["spec"]["containers"][0]["ports"][0]["hostPort"] == 18080
    assert SETTINGS["REMOTE_ADDR"].startswith("server.snat-race.svc:")


@pytest.mark.parametrize("name", WORKLOADS)
def test_selectors_and_affinities_find_their_pods(name: str) -> None:
    document = WORKLOADS[name]
    template = document["spec"]["template"]
    labels = template["metadata"]["labels"]
    selector = document["spec"].get("selector", {}).get("matchLabels", labels)
    assert selector.items() <= labels.items()
    every = [each["spec"]["template"]["metadata"]["labels"] for each in WORKLOADS.values()]
    affinities = template["spec"].get("affinity", {})
    terms = [
        term
        for kind in ("podAffinity", "podAntiAffinity")
        for term in affinities.get(kind, {}).get("requiredDuringSchedulingIgnoredDuringExecution", [])
    ]
    for term in terms:
        wanted = term["labelSelector"]["matchLabels"].items()
        assert any(wanted <= each.items() for each in every)
    assert labels[NAME] == "snat-race"
    assert labels[COMPONENT] in template["spec"]["containers"][0]["name"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_nobody_has_more_rights_than_it_takes(name: str) -> None:
    pod = WORKLOADS[name]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod.get("hostNetwork", False) == (pod["containers"][0]["name"] in {"server", "watch", "doctor"})
    for container in containers(WORKLOADS[name]):
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"]
        assert not rights["allowPrivilegeEscalation"]
        assert rights["capabilities"]["drop"] == ["ALL"]
        added = rights["capabilities"].get("add", [])
        assert bool(added) == (container["name"] in {"watch", "doctor"}) == ("runAsUser" in rights)
        assert {"cpu", "memory"} == set(container["resources"]["requests"])
        assert set(container["resources"]["limits"]) == {"memory"}


@pytest.mark.parametrize("form", ["pair", "nodes"])
def test_rendered_it_is_valid_and_has_one_image(form: str) -> None:
    tool = next((each for each in ("kustomize", "kubectl") if shutil.which(each)), None)
    if not tool:
        pytest.skip("there is neither kustomize nor kubectl")
    command = [tool, "build" if tool == "kustomize" else "kustomize", str(FOLDER / form)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SOON_S, check=False, env=os.environ
    )
    if "unknown field" in done.stderr or "unknown command" in done.stderr:
        pytest.skip(f"this {tool} is older than components")
    assert done.returncode == 0, done.stderr
    rendered = [each for each in yaml.safe_load_all(done.stdout) if each]
    for document in rendered:
        kubernetes_validate.validate(document, NEWEST, strict=True)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "snat-race"
    images = {each["image"] for document in rendered if "template" in document.get("spec", {})
              for each in containers(document)}  # fmt: skip
    assert images == {"registry.example.com/snat-race:0.1.0"}
    clients = [each for each in rendered if each["metadata"]["name"].endswith("clients")]
    assert sum(each["spec"].get("completions", 1) for each in clients) == 2
    selectors = [json.dumps(each["spec"].get("selector")) for each in clients]
    assert len(set(selectors)) == len(clients)


def test_the_collector_asks_for_the_pods_that_measure() -> None:
    text = (ROOT / "scripts" / "collect").read_text()
    assert f'COMPONENT = "{COMPONENT}"' in text
    kinds = {each["spec"]["template"]["metadata"]["labels"][COMPONENT] for each in WORKLOADS.values()}
    assert kinds == {"client", "watch", "server", "doctor"}
    assert "in (client,watch)" in text
