"""Where the kernel prints something else than we know, a line says so; nothing is guessed."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from snat_race.errors import EnvironmentLacks
from snat_race.kernel import counters, host, netns_lookup
from snat_race.kernel.counters import CounterReader
from snat_race.results.nat import Nat
from snat_race.rules import reader
from snat_race.runs import doctor
from snat_race.runs.counter_monitor import CounterMonitor
from tests.conftest import PRIVATE, in_sandbox

HEADING = "entries  found insert_failed drop"
NETSTAT = "TcpExt: ListenDrops SyncookiesSent\nTcpExt: 1 2\nTcp: RetransSegs\nTcp: 3\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no insert_failed"),
        ("\n\n", "no insert_failed"),
        (HEADING, "no line below"),
        ("entries found drop\n0 0 0\n", "no insert_failed"),
        (f"{HEADING}\n0 0 0\n", "line 2"),
        (f"{HEADING}\n0 0 0 0\n0 0 0 0 0\n", "line 3"),
        (f"{HEADING}\n0 0 x 0\n", "line 2"),
        (f"{HEADING}\n0 0 -1 0\n", "line 2"),
        (f"{HEADING}\n0 0 ٣ 0\n", "line 2"),
        (f"{HEADING}\n0 0 0 0\n\n", "line 3"),
    ],
)
def test_rows_of_conntrack_that_do_not_fit_their_heading_are_not_read(text: str, why: str) -> None:
    with pytest.raises(EnvironmentLacks, match=rf"nf_conntrack could not be read: .*{why}"):
        counters.parse_stat(text)


@pytest.mark.parametrize(
    "text",
    [
        "TcpExt: A B\nTcpExt: 1\n",
        "TcpExt: A\nTcpExt: 1 2\n",
        "TcpExt: A\nTcpExt: x\n",
        "TcpExt: A\n",
        "TcpExt: A\nTcpExt: 1\nTcpExt: 1\n",
        "Tcp: A\nTcp: 1.5\n",
    ],
)
def test_sections_whose_names_and_values_do_not_match_are_not_read(text: str) -> None:
    with pytest.raises(EnvironmentLacks, match="netstat could not be read: its section Tcp"):
        counters.parse_tcp(text)


def test_sections_and_counters_that_a_kernel_lacks_are_left_out() -> None:
    assert counters.parse_tcp(NETSTAT) == {"ListenDrops": [1], "SyncookiesSent": [2], "RetransSegs": [3]}
    icmp = "Icmp: InMsgs InDestUnreachs\nIcmp: 5 6\nIp: Forwarding\nIp: 1\n"
    assert counters.parse_tcp(icmp) == {"IcmpInDestUnreachs": [6]}


class Reply(dict[str, Any]):
    def get_attr(self, name: str) -> Any:
        return self.get(name)


def test_a_reply_of_netlink_without_its_main_counter_is_not_read_as_nothing_lost() -> None:
    whole = Reply(CTA_STATS_INSERT_FAILED=1)
    assert counters.parse_netlink_stat([whole])["insert_failed"] == [1]
    assert counters.parse_netlink_stat([whole])["chain_toolong"] == [0]
    for rows in ([], [whole, Reply(CTA_STATS_DROP=1)], [Reply(CTA_STATS_INSERT_FAILED=b"1")]):
        with pytest.raises(EnvironmentLacks, match="no insert_failed"):
            counters.parse_netlink_stat(rows)


def test_counters_of_other_cpus_are_not_subtracted() -> None:
    for earlier in ({"found": [1]}, {"drop": [1, 2]}):
        with pytest.raises(EnvironmentLacks, match="CPUs"):
            counters.difference({"found": [1, 2]}, earlier)


@pytest.mark.parametrize(
    ("refusal", "file", "loaded", "says"),
    [
        (
            errno.EPERM,
            None,
            True,
            {"CAP_NET_ADMIN": True, "CONFIG_NF_CONNTRACK_PROCFS": True, "modprobe": False},
        ),
        (
            errno.EPERM,
            "",
            True,
            {"CAP_NET_ADMIN": True, "could not be read": True, "modprobe": False, "PROCFS": False},
        ),
        (errno.EPERM, None, False, {"modprobe nf_conntrack'": True, "PROCFS": False}),
        (errno.EINVAL, None, True, {"modprobe nf_conntrack_netlink'": True, "CAP_NET_ADMIN": False}),
        (None, "", True, {"modprobe nf_conntrack_netlink'": True, "CAP_NET_ADMIN": False}),
    ],
)
def test_what_keeps_the_counters_from_being_read_is_named(
    refusal: int | None, file: str | None, loaded: bool, says: dict[str, bool], tmp_path: Path
) -> None:
    def refuse(_: object) -> None:
        if refusal is None:
            raise EnvironmentLacks("no insert_failed in them")
        raise OSError(refusal, os.strerror(refusal))

    stat = tmp_path / "nf_conntrack"
    if file is not None:
        stat.write_text(file)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(counters, "read_conntrack", refuse)
        patched.setattr(counters, "_STAT", stat)
        patched.setattr(counters, "_LOADED", (tmp_path if loaded else tmp_path / "nothing",))
        with pytest.raises(EnvironmentLacks) as raised:
            CounterReader(netns_lookup.here())
    assert {words: words in str(raised.value) for words in says} == says


@PRIVATE
def test_a_monitor_ends_with_what_it_has_when_counters_become_unreadable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read() -> tuple[str, int]:
        monitor = CounterMonitor([CounterReader(netns_lookup.here())], Nat(), reads_own_tcp=False)
        monitor.end_period()
        monkeypatch.setattr(counters, "parse_netlink_stat", lambda _: counters.parse_stat("x"))
        assert monitor.end_period() == []
        return str(monitor.failure), len(monitor.total)

    failure, periods = in_sandbox(read)
    assert "could not be read" in failure
    assert periods == 1


@pytest.mark.parametrize("text", ["", "x", "1 x", "-5", "1" * 5000, "\ufffd", "٣", "1\n2\n3 4"])
def test_doctor_passes_over_settings_that_say_nothing(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "proc_text", lambda _: text)
    result = doctor.examine(netns_lookup.here(), 0)
    assert json.loads(result.model_dump_json())["findings"]
    assert reader._client_ports() == (1, 65535)
    with pytest.raises(EnvironmentLacks, match="ip_local_port_range could not be read"):
        host.local_port_range()


def test_missing_files_of_proc_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_BOOT_ID", "_CLOCK_SOURCE", "_PORT_RANGE"):
        monkeypatch.setattr(host, name, tmp_path / name)
    assert host.environment()["boot_id"] == ""
    assert host.clock_source() == ""
    assert reader._client_ports() == (1, 65535)


@pytest.mark.parametrize("text", ["", "x", "1.5", "1 2", "1" * 5000])
def test_a_number_of_proc_sys_is_one_number(text: str, tmp_path: Path) -> None:
    path = tmp_path / "nf_conntrack_max"
    path.write_text(text)
    with pytest.raises(EnvironmentLacks, match="it holds no number"):
        counters.parse_number(path)
    path.write_text("262144\n")
    assert counters.parse_number(path) == 262144
