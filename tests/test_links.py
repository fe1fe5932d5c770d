"""The devices of a namespace, against what ``ip`` lists."""

import json
import shutil
import subprocess

import pytest

from snat_race.kernel import host, netns_lookup
from snat_race.kernel.links import Link, addresses, links
from tests.conftest import PRIVATE, in_sandbox

pytestmark = [PRIVATE, pytest.mark.skipif(not shutil.which("ip"), reason="there is no ip")]
DEVICES = {"v0 type veth peer name v1": True, "bridge0 type bridge": False, "bridge1 type bridge": True}


def listed_by_ip() -> list[Link]:
    listed = json.loads(subprocess.check_output(["ip", "-j", "-d", "link"], text=True))
    return [
        Link(
            name=link["ifname"],
            kind=link.get("linkinfo", {}).get("info_kind", ""),
            is_up="UP" in link["flags"],
        )
        for link in listed
    ]


def add(device: str, *, up: bool) -> None:
    subprocess.run(["ip", "link", "add", *device.split()], check=True)
    if up:
        subprocess.run(["ip", "link", "set", device.split(maxsplit=1)[0], "up"], check=True)


def test_devices_are_those_that_ip_lists() -> None:
    def both() -> tuple[list[Link], list[Link]]:
        for device, up in DEVICES.items():
            add(device, up=up)
        return list(links(netns_lookup.here())), listed_by_ip()

    ours, theirs = in_sandbox(both)
    assert ours == theirs
    assert {"veth", "bridge"} <= {link.kind for link in ours}


@pytest.mark.parametrize(("second", "expected"), [("", "v0"), ("bridge0 type bridge", None)])
def test_a_namespace_with_one_device_that_is_up_is_a_containers(second: str, expected: str | None) -> None:
    def device() -> str | None:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        add("v0 type veth peer name v1", up=True)
        if second:
            add(second, up=True)
        return netns_lookup.container_device(netns_lookup.here())

    assert in_sandbox(device) == expected


def test_a_vxlan_that_leaves_checksums_to_the_device_below_is_named() -> None:
    def named() -> list[list[str]]:
        before = host.checksumming_vxlans(netns_lookup.here())
        add("vx0 type vxlan id 5 dstport 4789", up=False)
        return [before, host.checksumming_vxlans(netns_lookup.here())]

    assert in_sandbox(named) == [[], ["vx0"]]


def test_addresses_are_those_of_devices_and_not_of_routes() -> None:
    def ours() -> list[str]:
        add("v0 type veth peer name v1", up=True)
        for given in ("192.0.2.1/24", "198.51.100.1 peer 198.51.100.2", "2001:db8::1/64"):
            subprocess.run(["ip", "address", "add", *given.split(), "dev", "v0"], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "route", "add", "local", "203.0.113.7", "dev", "lo"], check=True)
        return sorted(addresses(netns_lookup.here()))

    assert in_sandbox(ours) == ["192.0.2.1", "198.51.100.1", "2001:db8::1"]
