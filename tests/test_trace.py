"""trace: each loss as a line or an event as it is proven, and what they add up to."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

from snat_race.cli.parsing import destination
from snat_race.kernel import netns_lookup
from snat_race.lab.topology import IPV4
from snat_race.packets.matching import NO_JOURNEYS, Judged, Matcher
from snat_race.report.builders.trace import document
from snat_race.report.renderers.text import text
from snat_race.report.wording import traces
from snat_race.results.trace import Loss, SentAgain, TracedPeriod, TraceResult
from snat_race.runs import loss_tally
from snat_race.runs.loss_tally import LossTally
from tests.conftest import (
    NFT,
    PRIVATE,
    SOON_S,
    TWO_CPUS,
    eventually,
    fork_cli,
    in_fork,
    in_sandbox,
    start_cli,
)
from tests.results import small_trace
from tests.stage import SECOND_IP, Stage, drop_forwarded, syn
from tests.test_causes import RACING, SHORT
from tests.test_losses import race
from tests.test_matching import BEGAN_NS, NAT, RACE, Seen, array, arrival, departure

ALWAYS = (0, 1 << 62)


def tallied(
    *drains: tuple[list[Seen], float], clashes: Iterable[int | None] = (), **options: Any
) -> tuple[LossTally, list[Any]]:
    """A tally of drains, each with the time of its end in us, and what it said."""
    matcher = Matcher()
    tally = LossTally(lambda index: f"device {index}", **options)
    said: list[Any] = []
    readings = iter(clashes)
    for seen, until_us in drains:
        judged = matcher.judge(array(seen), BEGAN_NS + round(until_us * 1000))
        said += tally.add(judged, *ALWAYS, lambda: next(readings, None))
    return tally, said


AGAIN = [
    *arrival(1.02e6, "172.17.0.3:40012", sequence=2, timestamp=9),
    *departure(1.020003e6, NAT, sequence=2, timestamp=9),
]


def test_a_loss_and_its_retransmit() -> None:
    tally, (lost, again) = tallied((RACE, 100_000), (AGAIN, 1.2e6))
    assert lost == Loss(
        at="2023-11-14T22:13:20.000000+00:00",
        source="172.17.0.3:40012",
        destination="10.18.10.137:8080",
        devices=["device 2", "device 3"],
        winner="172.17.0.2:40012",
        translated="10.18.10.136:40012",
        apart_ns=600,
    )
    assert isinstance(again, SentAgain)
    assert (again.source, again.waited_ns) == ("172.17.0.3:40012", 1_020_002_300)
    assert (tally.syns, tally.lost, tally.vanished, tally.sent) == (3, 1, 0, 0)
    assert tally.waited() == {"1": 1}
    (victim,) = tally.victims()
    assert (victim.address, victim.syns, victim.lost) == ("172.17.0.3", 2, 1)
    assert [(pair.victim, pair.winner, pair.lost) for pair in tally.pairs()] == [
        ("172.17.0.3", "172.17.0.2", 1)
    ]
    assert [(gap.below_ns, gap.count) for gap in tally.apart() if gap.count] == [(1024, 1)]


def test_a_retransmit_that_is_lost_too_goes_on_waiting() -> None:
    second = [seen._replace(at_us=seen.at_us + 1e6, timestamp=8) for seen in RACE]
    third = [seen._replace(at_us=seen.at_us + 2e6, timestamp=10) for seen in AGAIN]
    tally, said = tallied((RACE, 100_000), (second, 1.1e6), (third, 3.2e6))
    assert [type(one) for one in said] == [Loss, Loss, SentAgain]
    assert (tally.lost, tally.waited()) == (2, {"3": 1})


def test_only_what_the_user_asked_for_is_counted() -> None:
    for to, lost in (
        (("10.18.10.137", 8080), 1),
        (("10.18.10.137", 0), 1),
        (("10.18.10.137", 443), 0),
        (("10.18.10.138", 0), 0),
        (("fd00::1", 0), 0),
    ):
        tally, _ = tallied((RACE, 100_000), destination=to)
        assert (tally.lost, tally.syns) == (lost, 2 * lost), to
    matcher = Matcher()
    tally = LossTally(str)
    assert not list(tally.add(matcher.judge(array(RACE), BEGAN_NS + 10**8), BEGAN_NS + 10_000, ALWAYS[1]))
    assert tally.syns == 0


def test_a_service_is_counted_by_both_its_addresses() -> None:
    seen = [*arrival(0, "172.17.0.2:1", destination="10.96.0.10:80")]
    seen += [Seen(3, 4, "out", "10.18.10.136:1", "10.18.10.150:8080")]
    for to in (("10.96.0.10", 80), ("10.18.10.150", 8080)):
        assert tallied((seen, 100_000), destination=to)[0].syns == 1


def raced(at_us: float, number: int, apart_us: float) -> list[Seen]:
    """Two SYNs of which one did not leave, and that look like the race."""
    port = f":{40000 + number}"
    return [
        *arrival(at_us, f"172.17.0.2{port}", sequence=2 * number),
        *arrival(at_us + apart_us, f"172.17.0.3{port}", sequence=2 * number + 1),
        *departure(at_us + apart_us + 3, f"10.18.10.136{port}", sequence=2 * number),
    ]


@pytest.mark.parametrize(
    ("clashes", "ports"),
    [
        pytest.param((None, None), [1, 2, 3, 4], id="nobody knows"),
        pytest.param((0, 0), [], id="no race"),
        pytest.param((1, 3), [3, 4], id="one of the first was none"),
        pytest.param((2, 3), [1, 2], id="one of the last was none"),
        pytest.param((4, 4), [1, 2, 3, 4], id="those of the last were counted already"),
        pytest.param((1, 2), [], id="one each was none"),
    ],
)
def test_nobody_is_blamed_where_conntrack_counted_fewer(
    clashes: tuple[int | None, int | None], ports: list[int]
) -> None:
    first = [*raced(0, 1, 2.0), *raced(100, 2, 0.5)]
    then = [*raced(200_000, 3, 0.1), *raced(200_100, 4, 40.0)]
    tally, said = tallied((first, 100_000), (then, 300_000), clashes=clashes)
    assert [loss.source for loss in said] == [f"172.17.0.3:{40000 + port}" for port in ports]
    assert (tally.lost, tally.vanished, tally.unsure) == (len(ports), 4 - len(ports), 4 - len(ports))


def test_memory_is_bounded_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_tally, "_MOST_KEYS", 10)
    monkeypatch.setattr(loss_tally, "_MOST_AWAITED", 10)
    seen: list[Seen] = []
    for number in range(30):
        at_us, port = number * 10.0, f":{40000 + number}"
        seen += arrival(at_us, f"172.17.1.{number}{port}", sequence=2 * number)
        seen += departure(at_us + 3, f"10.18.10.136{port}", sequence=2 * number)
        seen += arrival(at_us + 1, f"172.17.2.{number}{port}", sequence=2 * number + 1)
        seen += arrival(
            at_us, f"172.17.3.{number}:7", sequence=1000 + number, destination=f"192.0.2.{number}:1"
        )
    tally, said = tallied((seen, 100_000))
    assert (tally.lost, tally.vanished, len(said)) == (30, 30, 30)
    for rows in (tally.victims(), tally.destinations()):
        assert len(rows) <= 22
        assert sum(row.lost for row in rows) == 30
        assert sum(row.vanished for row in rows) == 30
    assert sum(pair.lost for pair in tally.pairs()) == 30
    assert len(tally._awaited) <= 10
    assert all(victim.syns >= victim.lost + victim.vanished for victim in tally.victims())


def test_nothing_is_nothing() -> None:
    tally = LossTally(str)
    judged = Judged(left=NO_JOURNEYS, vanished=NO_JOURNEYS, winners=NO_JOURNEYS, unknown=0)
    assert not list(tally.add(judged, *ALWAYS))
    assert (tally.victims(), tally.pairs(), tally.apart(), tally.waited()) == ([], [], [], {})


# The words


def changed(**fields: Any) -> TraceResult:
    return TraceResult.model_validate(small_trace().model_dump() | fields)


def test_lines() -> None:
    loss = small_trace().losses[0]
    assert re.fullmatch(
        r"\d\d:\d\d:00\.000001  172\.17\.0\.3:40012 -> 10\.18\.10\.137:8080  "
        r"lost to 172\.17\.0\.2:40012, 600ns apart, both translated to 10\.18\.10\.136:40012",
        traces.loss_line(loss),
    )
    own = Loss.model_validate(loss.model_dump() | {"winner": loss.translated, "apart_ns": -1200})
    assert "lost to this host's own 10.18.10.136:40012, 1.2us apart" in traces.loss_line(own)
    period = TracedPeriod(began_at=loss.at, syns=9, lost=2, vanished=0, dropped=0)
    assert not traces.period_line(period)
    period = TracedPeriod(began_at=loss.at, syns=9, lost=2, vanished=3, dropped=4)
    assert "3 SYNs of 9 did not leave, without a winner; the ring was full" in traces.period_line(period)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (small_trace(), "3 SYNs of 1,000 (0.3%) lost the race, of 1 address"),
        (small_trace(), "2 SYNs did not leave for another reason"),
        (small_trace(lost=0, vanished=0), "none of 1,000 SYNs lost the race."),
        (small_trace(), "Proven 3, insert_failed +3, drop +3: they agree."),
        (changed(lost=2, apart=[{"below_ns": 1024, "count": 2}], waited={}), "the other 1 are"),
        (
            changed(syns=2000, lost=4, apart=[{"below_ns": 9, "count": 4}]),
            "so some were not lost to the race",
        ),
        (changed(unsure=1), "1 SYN of those without a winner looked like the race"),
        (changed(unsure=1), "2 SYNs did not leave for another reason"),
        (
            changed(unsure=2, lost=0, apart=[], waited={}),
            "lost the race for certain. 2 SYNs did not leave either; up to 2 of them may have lost it too",
        ),
        (changed(counted=None), "Conntrack's counters could not be read"),
        (changed(spec={"to": ["10.0.0.1", 0]}), "the counters are of all destinations"),
        (changed(dropped=1000, unknown=7), "1,000 sightings (25.0%) are missing"),
        (changed(dropped=1000, unknown=7), "nothing is said of 7 SYNs that did not leave"),
        (changed(unknown=7), "the clock was set meanwhile"),
        (
            changed(syns=0, lost=0, vanished=0, apart=[], waited={}, victims=[], destinations=[]),
            "No device here received a SYN",
        ),
    ],
)
def test_sentences(result: TraceResult, said: str) -> None:
    assert said in " ".join(text(document(result)).split())


# What users type


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("10.0.0.1", ("10.0.0.1", 0)),
        ("10.0.0.1:8080", ("10.0.0.1", 8080)),
        ("[fd00::1]:80", ("fd00::1", 80)),
        ("[fd00:0::1]", ("fd00::1", 0)),
        ("fd00::1", ("fd00::1", 0)),
    ],
)
def test_destinations(typed: str, meant: tuple[str, int]) -> None:
    assert destination(typed) == meant


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--to", "web"), "--to: 'web' is no address; write 10.0.0.1, 10.0.0.1:80 or [fd00::1]:80"),
        (("--to", "10.0.0.1:0"), "--to: '10.0.0.1:0': a port is 1 to 65535"),
        (("--to", ""), "--to: '' is no address"),
        (("--interval", "1ms"), "--interval: 1ms is out of range; give 100ms to 24h"),
        (("--count", "0"), "--count: '0' is no count above 0"),
        (("--ring", "0"), "--ring"),
        (("--ring", "4096"), "--ring"),
        (("--netns", "nobody's"), "--netns: there is no namespace"),
        (("--output", "/nowhere/at/all"), "--output"),
    ],
)
def test_bad_input_is_one_line(options: tuple[str, ...], said: str) -> None:
    done = fork_cli("trace", *options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


def test_without_the_privilege_it_says_which_one() -> None:
    def unprivileged() -> tuple[int, str]:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        done = fork_cli("trace", "--duration", "1s")
        return done.returncode, done.stderr

    code, said = in_fork(unprivileged)
    assert code == 4
    assert "CAP_NET_RAW" in said
    assert "--cap-add NET_RAW" in said


# Real losses


def started(stage: Stage, *options: str) -> subprocess.Popen[str]:
    """A trace of the source that sees SYNs already."""
    with stage.source.entered():
        tracing = start_cli("trace", "--json", *options)
    assert tracing.stdout
    assert '"start"' in tracing.stdout.readline()
    return tracing


def events_of(tracing: subprocess.Popen[str], *, stop: bool = True) -> list[dict[str, Any]]:
    if stop:
        tracing.send_signal(signal.SIGINT)
    said, complained = tracing.communicate(timeout=SOON_S)
    assert tracing.returncode == 0, complained
    return [json.loads(line) for line in said.splitlines()]


@PRIVATE
@TWO_CPUS
def test_each_loss_of_a_race_is_an_event_with_victim_and_winner(tmp_path: Path) -> None:
    def work() -> tuple[list[dict[str, Any]], int, dict[str, Any]]:
        stage = Stage(backlog=None)
        before = stage.insert_failed()
        tracing = started(stage, "-o", str(tmp_path / "trace.json"))
        client = race(stage, "-t", "4000", losses=5, out=tmp_path / "client.json")
        return events_of(tracing), stage.insert_failed() - before, client

    events, clashed, client = in_sandbox(work)
    kinds = Counter(event["event"] for event in events)
    result = events[-1]
    assert kinds["loss"] == result["lost"] == clashed >= 5
    assert result["vanished"] == result["dropped"] == result["unknown"] == 0
    late = sum(count for times, count in client["summary"]["syn_retransmits"].items() if times != "0")
    assert late <= kinds["sent_again"] == sum(result["waited"].values()) <= clashed
    assert sum(event["lost"] for event in events if event["event"] == "period") == clashed
    assert {victim["address"] for victim in result["victims"]} <= {IPV4.container_ip(0), SECOND_IP}
    assert sum(victim["lost"] for victim in result["victims"]) == clashed
    assert sum(result["counted"]["conntrack"]["insert_failed"]) == clashed
    assert json.loads((tmp_path / "trace.json").read_text()) == {
        name: value for name, value in result.items() if name != "event"
    }
    shown = fork_cli("report", str(tmp_path / "trace.json"))
    assert f"Proven {clashed}, insert_failed +{clashed}, drop +{clashed}: they agree." in shown.stdout


@PRIVATE
@TWO_CPUS
def test_it_ends_after_as_many_losses_as_were_asked_for(tmp_path: Path) -> None:
    def work() -> tuple[str, int | None]:
        stage = Stage(backlog=None)
        stage.accept_all()
        stage.add_address(SECOND_IP)
        with stage.source.entered():
            tracing = start_cli("trace", "--count", "2", "--to", f"{IPV4.destination_ip}:8080")
        client = stage.start(*RACING, out=tmp_path / "client.json")
        said, complained = tracing.communicate(timeout=SOON_S)
        client.send_signal(signal.SIGINT)
        stage.finish(client, tmp_path / "client.json")
        stage.server.terminate()
        stage.server.communicate()
        assert not complained
        return said, tracing.returncode

    said, code = in_sandbox(work)
    assert code == 0
    assert said.count("lost to") >= 2
    assert "Verdict: " in said
    assert "WHO LOST TO WHOM" in said


@PRIVATE
def test_what_a_firewall_drops_has_no_winner(tmp_path: Path) -> None:
    def work() -> list[dict[str, Any]]:
        stage = Stage()
        drop_forwarded(stage.source)
        tracing = started(stage, "--interval", "100ms")
        stage.run(*SHORT, out=tmp_path / "client.json")
        return events_of(tracing)

    events = in_sandbox(work)
    result = events[-1]
    assert (result["lost"], result["vanished"], result["syns"]) == (0, 40, 40)
    assert result["destinations"] == [
        {"destination": f"{IPV4.destination_ip}:8080", "lost": 0, "vanished": 40}
    ]
    assert not [event for event in events if event["event"] == "loss"]
    assert sum(event["vanished"] for event in events if event["event"] == "period") == 40


@PRIVATE
@NFT
@TWO_CPUS
def test_what_a_firewall_drops_is_not_the_race_though_another_left_from_its_port(tmp_path: Path) -> None:
    def work() -> dict[str, Any]:
        stage = Stage(backlog=None)
        stage.accept_all()
        stage.add_address(SECOND_IP)
        with stage.source.entered():
            for rule in (
                "add table ip closed",
                "add chain ip closed c { type filter hook forward priority 0; }",
                f"add rule ip closed c ip saddr {SECOND_IP} drop",
            ):
                subprocess.run(["nft", rule], check=True)
        tracing = started(stage)
        stage.run(*RACING, "--count", "300", out=tmp_path / "client.json")
        stage.server.terminate()
        stage.server.communicate()
        result: dict[str, Any] = events_of(tracing)[-1]
        return result

    result = in_sandbox(work)
    assert (result["lost"], result["losses"], result["vanished"]) == (0, [], 150)
    assert sum(result["counted"]["conntrack"]["insert_failed"]) == 0


@PRIVATE
def test_a_ring_that_is_too_small_says_how_much_is_missing() -> None:
    def work() -> dict[str, Any]:
        stage = Stage()
        tracing = started(stage, "--ring", "1")
        psutil.Process(tracing.pid).suspend()
        syns(stage, 3000)
        psutil.Process(tracing.pid).resume()
        return events_of(tracing)[-1]

    result = in_sandbox(work)
    assert result["dropped"] > 0
    assert result["lost"] == result["vanished"] == 0
    assert "Use a larger --ring." in " ".join(text(document(TraceResult.model_validate(result))).split())


def syns(stage: Stage, count: int) -> None:
    """Send SYNs from the container that are forwarded, and answered by nobody."""
    with stage.container.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for number in range(count):
        packet = bytearray(syn(IPV4.container_ip(0), 1024 + number))
        packet[24:28] = number.to_bytes(4, "big")  # a sequence number of its own
        raw.sendto(bytes(packet), (IPV4.destination_ip, 0))
    raw.close()


@PRIVATE
def test_where_nothing_comes_in_it_says_where_to_look() -> None:
    def work() -> tuple[str, str, int | None]:
        stage = Stage()
        with stage.container.entered():
            began_s = time.monotonic()
            tracing = start_cli("trace", "--duration", "6s", "--netns", f"/proc/{os.getpid()}/ns/net")
            said, complained = tracing.communicate(timeout=SOON_S)
            assert time.monotonic() - began_s >= 6
        return said, complained, tracing.returncode

    said, complained, code = in_sandbox(work)
    assert code == 0
    assert "No device here has received a SYN yet" in complained
    assert "no SYN came in to be forwarded" in said


@PRIVATE
def test_a_trace_ends_with_the_namespace_that_it_traces(tmp_path: Path) -> None:
    def work() -> tuple[int | None, str]:
        child = subprocess.Popen(["unshare", "-n", "sleep", "50"])
        eventually(lambda: not netns_lookup.same(netns_lookup.here(), netns_lookup.find(str(child.pid))))
        tracing = start_cli("trace", "--json", "--netns", str(child.pid), "-o", str(tmp_path / "t.json"))
        assert tracing.stdout
        tracing.stdout.readline()
        child.kill()
        child.wait()
        _, complained = tracing.communicate(timeout=SOON_S)
        return tracing.returncode, complained

    code, complained = in_sandbox(work)
    assert (code, "has ended" in complained) == (4, True)
    assert json.loads((tmp_path / "t.json").read_text())["kind"] == "trace"


def test_a_stream_that_was_cut_off_holds_no_result(tmp_path: Path) -> None:
    result = small_trace().model_dump(mode="json")
    start = {"event": "start"} | {name: result[name] for name in ("run_id", "tool", "started_at", "spec")}
    start |= {"elapsed_s": 0, "environment": {}, "kind": "trace", "schema_version": 2}
    period = {"event": "period", "began_at": result["started_at"], "syns": 1, "lost": 0}
    period |= {"vanished": 0, "dropped": 0}
    stream = tmp_path / "trace.jsonl"
    lines = [json.dumps(event) for event in (start, period)]
    stream.write_text("\n".join(lines) + "\n")
    done = fork_cli("report", str(stream))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    stream.write_text("\n".join([*lines, json.dumps({"event": "result"} | result)]) + "\n")
    assert "3 SYNs of 1,000" in fork_cli("report", str(stream)).stdout


def test_counts_that_do_not_add_up_are_refused() -> None:
    for fields in ({"lost": 2000}, {"waited": {"1": 9}}, {"apart": []}):
        with pytest.raises(ValueError, match="must"):
            changed(**fields)
