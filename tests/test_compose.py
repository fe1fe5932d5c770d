"""compose.yaml agrees with itself, with our command line and with the scripts that do the same."""

import re
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, parsed_cli

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
OURS = sorted(name for name, each in SERVICES.items() if "command" in each)


@pytest.mark.parametrize("name", OURS)
def test_our_command_line_takes_the_command(name: str) -> None:
    params = parsed_cli(SERVICES[name]["command"])
    if name.startswith("client"):
        assert params["remote_addr"] == "10.18.10.137:8080"
        assert params["output"].name == f"{name}.json"


def test_the_clients_agree_so_that_they_meet_and_use_docker_s_own_bridge() -> None:
    clients = [each for name, each in SERVICES.items() if name.startswith("client")]
    assert len(clients) == 4
    assert len({tuple(each["command"][:-1]) for each in clients}) == 1
    assert {each["network_mode"] for each in clients} == {"bridge"}


def test_it_dials_what_the_scripts_dial() -> None:
    script = (ROOT / "scripts" / "docker-server").read_text()
    assert re.search(r"SNAT_RACE_UPLINK:-(\S+)}", script)[1] in SERVICES["uplink"]["entrypoint"]
    assert SERVICES["server"]["network_mode"] == "none"
    race = (ROOT / "scripts" / "docker-race").read_text()
    settings = " ".join(SERVICES["client-1"]["command"][3:9])
    assert settings == "-d 1000 -t 50 --duration 10s"
    assert settings in race


def test_services_wait_for_services_that_there_are_and_the_mitigated_ones_need_the_profile() -> None:
    for name, each in SERVICES.items():
        assert set(each.get("depends_on", {})) <= set(SERVICES)
        mitigated = name.endswith("fixed") or name in {"mitigate", "revert", "compare"}
        assert each.get("profiles", []) == (["fixed"] if mitigated else [])
