"""Whether clients could meet is told from what they were told to do, and when."""

from typing import Any

import pytest

from snat_race.analysis.merge import merged, part_of_client
from snat_race.analysis.pairing import unmet
from snat_race.analysis.warnings import lost_nothing_alone, of_client, of_merged
from snat_race.report.wording.warnings import sentences
from snat_race.results.schema import ClientResult
from tests.results import rise, small_client

SPEC = {"source_ports": [20000, 29999], "lanes": 2, "remote_addr": "10.0.0.1:80"}
ELSEWHERE = {"boot_id": "other"}
LATER = {"started_at": "2026-11-23T10:00:10.000Z"}


def client(name: str, fields: dict[str, Any] | None = None, failed: int = 0, **spec: Any) -> ClientResult:
    made = small_client(name, failed)
    return made.model_copy(update={"spec": made.spec | SPEC | spec} | (fields or {}))


def told(*clients: ClientResult) -> list[str]:
    return list(sentences(list(unmet([part_of_client(each) for each in clients]))))


def test_the_same_slots_at_the_same_time_meet_whatever_the_number_of_workers() -> None:
    assert not told(client("a"), client("b", workers=1))
    assert not told(client("a"), client("b", {"started_at": "2026-11-23T10:00:09.900Z"}))
    assert not told(client("a"), client("b", remote_addr="server:80"))  # which may be 10.0.0.1


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (client("b", lanes=4), "its --lanes is 2, not 4"),
        (client("b", source_ports=[1024, 65535]), "its --source-ports is 20000-29999, not 1024-65535"),
        (client("b", dial_interval_us=2000), "its --dial-interval-us is 1000, not 2000"),
        (client("b", remote_addr="10.0.0.2:80"), "another destination"),
        (client("b", remote_addr="server:81"), "another destination"),
        (client("b", LATER), "did not run at that time"),
        (client("b", {"environment": ELSEWHERE}), "another host"),
    ],
)
def test_what_keeps_two_apart_is_told_of_both(other: ClientResult, why: str) -> None:
    one, two = told(client("a"), other)
    assert one.startswith("The slots of client a met no other's: ")
    assert why in one
    assert two.startswith("The slots of client b ")
    assert not told(client("a"), client("c"), other)[1:], "only of that which nobody met"


def test_a_client_alone_has_met_nobody_unless_it_lost_something() -> None:
    assert "none among these results" in told(client("a"))[0]
    assert not told(client("a", failed=3))
    assert not told(client("a", mode="independent"))
    assert "none among these results" in " ".join(sentences(of_merged(merged([client("a")], []))))


def test_a_client_of_two_addresses_meets_itself() -> None:
    alone, two = client("a"), client("a", local_ips=["10.0.0.2", "10.0.0.3"])
    assert (lost_nothing_alone(alone), bool(told(alone))) == (True, True)
    assert (lost_nothing_alone(two), told(two)) == (False, [])


def test_a_silent_zero_is_no_finding_of_one_client() -> None:
    assert "only if another client met these slots" in " ".join(sentences(of_client(client("a"))))
    assert not of_client(client("a", mode="independent"))
    assert "met these slots" not in " ".join(sentences(of_client(client("a", failed=1))))
    watched = client("a").kernel.model_copy(update={"source": rise(1)})
    assert not of_client(client("a", {"kernel": watched}))
