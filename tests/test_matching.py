"""Which SYNs were lost, and to whom: tables of sightings, and a simulated NAT whose losses are known."""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snat_race.packets.matching import APART_NS, LONGEST_NS, WINDOW_NS, Judged, Matcher, apart_ns
from snat_race.packets.syn import MAPPED, SIGHTING, Sightings, identity

BEGAN_NS = 1_700_000_000 * 10**9
VETH0, VETH1, BRIDGE, UPLINK, OTHER_UPLINK = range(1, 6)
A, B, C = "172.17.0.2:40012", "172.17.0.3:40012", "172.17.0.4:40099"
NAT, SERVER, BACKEND = "10.18.10.136:40012", "10.18.10.137:8080", "10.18.10.150:80"
IN, OUT = "in", "out"


class Seen(NamedTuple):
    """A sighting as a test writes it."""

    at_us: float
    device: int
    direction: str
    source: str
    destination: str = SERVER
    sequence: int = 1
    timestamp: int = 7


def endpoint(text: str) -> tuple[int, int, int]:
    address, _, port = text.rpartition(":")
    parsed = ipaddress.ip_address(address.strip("[]"))
    number = int(parsed) | (MAPPED if parsed.version == 4 else 0)
    return number >> 64, number & (1 << 64) - 1, int(port)


def text_of(endpoint: Any) -> str:
    return f"{ipaddress.ip_address(int(endpoint['low']) & 0xFFFFFFFF)}:{endpoint['port']}"


def array(seen: Iterable[Seen]) -> Sightings:
    rows = list(seen)
    result = np.zeros(len(rows), SIGHTING)
    for row, sighting in zip(result, rows, strict=True):
        numbers = (np.array([sighting.sequence]), np.array([sighting.timestamp]))
        row["time_ns"] = BEGAN_NS + round(sighting.at_us * 1000)
        row["identity"] = identity(*numbers)[0]
        row["source"], row["destination"] = endpoint(sighting.source), endpoint(sighting.destination)
        row["device"] = sighting.device
        row["outgoing"] = sighting.direction == OUT
        row["passing"] = sighting.direction == IN and sighting.device in (VETH0, VETH1)
    return result


def arrival(at_us: float, source: str, port: int = VETH0, **more: Any) -> list[Seen]:
    """A SYN comes in through the port of a bridge, then through the bridge."""
    return [Seen(at_us, port, IN, source, **more), Seen(at_us + 0.1, BRIDGE, IN, source, **more)]


def departure(at_us: float, source: str, **more: Any) -> list[Seen]:
    return [Seen(at_us, UPLINK, OUT, source, **more)]


def judged(*drains: Sequence[Seen], now_us: float = 100_000) -> Judged:
    """What is judged in all of drains. They end 1 ms after their last sighting, the last at ``now_us``."""
    matcher = Matcher()
    parts = []
    for number, drain in enumerate(drains, 1):
        latest_us = max((seen.at_us for seen in drain), default=0)
        until_us = now_us if number == len(drains) else latest_us + 1000
        parts.append(matcher.judge(array(drain), BEGAN_NS + round(until_us * 1000)))
    assert matcher.held == 0
    return added(parts)


def added(parts: Iterable[Judged]) -> Judged:
    judged = list(parts)
    return Judged(
        left=np.concatenate([part.left for part in judged]),
        vanished=np.concatenate([part.vanished for part in judged]),
        winners=np.concatenate([part.winners for part in judged]),
        unknown=sum(part.unknown for part in judged),
    )


def losses(result: Judged) -> list[tuple[str, str | None]]:
    """The vanished, each with its winner."""
    return [
        (text_of(lost["source"]), text_of(winner["source"]) if won else None)
        for lost, winner, won in zip(result.vanished, result.winners, result.raced, strict=True)
    ]


A_LEAVES = [*arrival(0, A), *departure(3, NAT)]
B_IS_LOST = arrival(0.6, B, VETH1, sequence=2)

RACE = [*A_LEAVES, *B_IS_LOST]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(A_LEAVES, [], id="a SYN that leaves"),
        pytest.param(RACE, [(B, A)], id="the race"),
        pytest.param(B_IS_LOST, [(B, None)], id="nobody else left"),
        pytest.param(
            [*A_LEAVES, *arrival(3.2, B, sequence=2)], [(B, None)], id="it came when the entry was there"
        ),
        pytest.param(
            [*A_LEAVES, *arrival(0.6, "172.17.0.3:40013", sequence=2)],
            [("172.17.0.3:40013", None)],
            id="another port",
        ),
        pytest.param(
            [*A_LEAVES, *arrival(0.6, B, sequence=2, destination="10.18.10.138:8080")],
            [(B, None)],
            id="another destination",
        ),
        pytest.param(
            [*arrival(0, A), *departure(3, A), *B_IS_LOST], [(B, None)], id="nothing was translated"
        ),
        pytest.param([*departure(3, NAT), *B_IS_LOST], [(B, NAT)], id="this host's own SYN wins"),
        pytest.param(
            [*arrival(0, C), *departure(3, NAT), *B_IS_LOST], [(B, C)], id="the winner was given the port"
        ),
        pytest.param(
            [*A_LEAVES, *arrival(3 - APART_NS / 1000 - 1, B, sequence=2)], [(B, None)], id="too far apart"
        ),
        pytest.param(
            [*RACE, *arrival(0.9, "172.17.0.9:40012", sequence=3)],
            [(B, A), ("172.17.0.9:40012", A)],
            id="two lose to one",
        ),
    ],
)
def test_a_winner_left_for_the_same_destination_from_the_same_port(
    seen: list[Seen], expected: list[tuple[str, str | None]]
) -> None:
    assert losses(judged(seen)) == expected


@pytest.mark.parametrize(
    ("seen", "expected", "left"),
    [
        pytest.param(
            [
                *RACE,
                *arrival(1.02e6, B, sequence=2, timestamp=9),
                *departure(1.020003e6, NAT, sequence=2, timestamp=9),
            ],
            [(B, A)],
            2,
            id="a retransmit that leaves",
        ),
        pytest.param(
            [*B_IS_LOST, *arrival(20_000, B, sequence=2, timestamp=9)],
            [(B, None), (B, None)],
            0,
            id="a retransmit within the window, told apart by its timestamp",
        ),
        pytest.param(
            [*B_IS_LOST, *arrival(1e6, B, sequence=2), *departure(1e6 + 3, NAT, sequence=2)],
            [(B, None)],
            1,
            id="a retransmit without timestamps",
        ),
        pytest.param(
            [
                *arrival(0, A, destination="10.18.10.136:30080"),
                Seen(3, UPLINK, OUT, NAT, BACKEND),
                *arrival(0.6, B, sequence=2, destination="10.18.10.136:30080"),
            ],
            [(B, A)],
            1,
            id="DNAT in front of SNAT",
        ),
        pytest.param(
            [
                *arrival(0, A, destination="10.96.0.10:80"),
                Seen(3, UPLINK, OUT, NAT, BACKEND),
                *arrival(0.6, B, sequence=2, destination=BACKEND),
            ],
            [(B, A)],
            1,
            id="the winner came by a service's address",
        ),
        pytest.param(
            [
                *arrival(0, A, destination=BACKEND),
                Seen(3, UPLINK, OUT, NAT, BACKEND),
                Seen(0.6, VETH1, IN, B, "10.96.0.10:80", 2),
                Seen(0.7, BRIDGE, IN, B, BACKEND, 2),
            ],
            [(B, A)],
            1,
            id="DNAT at the bridge's port already",
        ),
        pytest.param(
            [
                *arrival(0, A, destination="10.18.10.136:8080"),
                Seen(2, BRIDGE, OUT, "172.17.0.1:40012", "172.17.0.4:80"),
                Seen(2.2, VETH1, OUT, "172.17.0.1:40012", "172.17.0.4:80"),
                *arrival(0.6, B, VETH1, sequence=2, destination="10.18.10.136:8080"),
            ],
            [(B, A)],
            1,
            id="hairpin",
        ),
        pytest.param(
            [
                *arrival(0, A),
                Seen(3, OTHER_UPLINK, OUT, NAT),
                Seen(0.6, UPLINK, IN, B, SERVER, 2),
            ],
            [(B, A)],
            1,
            id="asymmetric routes",
        ),
        pytest.param(
            [*arrival(0, A), *departure(3, NAT), *arrival(0.2, C), *departure(4, "10.18.10.136:40099")],
            [],
            2,
            id="the same sequence number by chance, both leave",
        ),
        pytest.param(
            [*arrival(0, A), *departure(3, NAT), *arrival(0.2, C, destination="192.0.2.7:443")],
            [(C, None)],
            1,
            id="the same sequence number by chance, one is lost",
        ),
        pytest.param(
            [*arrival(0, A), *departure(3, NAT), *arrival(0.2, B)],
            [],
            2,
            id="the same sequence number, port and destination: nobody is blamed",
        ),
        pytest.param(RACE[::-1], [(B, A)], 1, id="sightings in reverse order"),
        pytest.param(
            [
                *A_LEAVES,
                Seen(0.05, VETH1, IN, A),
                Seen(3.5, OTHER_UPLINK, OUT, NAT),
                *B_IS_LOST,
                Seen(0.65, VETH0, IN, B, SERVER, 2),
            ],
            [(B, A)],
            1,
            id="a bridge shows a SYN at several ports",
        ),
        pytest.param(
            [*A_LEAVES, *arrival(4, A)], [], 1, id="the network repeats a SYN that has left already"
        ),
    ],
)
def test_whatever_way_a_syn_takes(
    seen: list[Seen], expected: list[tuple[str, str | None]], left: int
) -> None:
    result = judged(seen, now_us=2e6)
    assert sorted(losses(result), key=str) == sorted(expected, key=str)
    assert (len(result.left), result.unknown) == (left, 0)


@pytest.mark.parametrize("cut", range(1, len(RACE)))
def test_a_journey_goes_on_after_a_drain(cut: int) -> None:
    in_time = sorted(RACE)
    result = judged(in_time[:cut], in_time[cut:])
    assert (losses(result), len(result.left)) == ([(B, A)], 1)


def test_a_winner_may_leave_long_after_its_victim_is_over() -> None:
    """The victim is judged while sightings of the winner still come: a slow queue, say."""
    slow = [*arrival(0, A), *departure(3, NAT), Seen(40_000, OTHER_UPLINK, OUT, NAT)]
    matcher = Matcher()
    first = matcher.judge(array([*slow, *B_IS_LOST]), BEGAN_NS + 60_000_000)
    assert (losses(first), len(first.left)) == ([(B, A)], 0)
    assert len(matcher.judge(array([]), BEGAN_NS + 100_000_000).left) == 1


def test_what_is_known_of_a_loss() -> None:
    (lost,), (winner,) = (judged(RACE).vanished, judged(RACE).winners)
    assert lost["devices"].tolist() == [VETH1, BRIDGE, 0, 0, 0, 0]
    assert not lost["passing"]
    assert text_of(winner["last_source"]) == NAT
    result = judged(RACE)
    assert apart_ns(result.vanished, result.winners).tolist() == [600]


def test_a_syn_that_only_the_port_of_a_bridge_saw_may_be_for_another_host() -> None:
    result = judged([Seen(0, VETH0, IN, A)])
    assert result.vanished["passing"].tolist() == [True]


def test_ipv6_is_judged_alike() -> None:
    first, second, nat, server = "[fd00::2]:1", "[fd00::3]:1", "[fd00:18::136]:1", "[fd00:18::137]:80"
    seen = [
        Seen(0, BRIDGE, IN, first, server),
        Seen(2, UPLINK, OUT, nat, server),
        Seen(0.5, BRIDGE, IN, second, server, 2),
    ]
    result = judged(seen)
    assert (len(result.left), result.raced.tolist()) == (1, [True])
    assert result.winners["source"].tolist() == [endpoint(first)]


def test_nobody_is_blamed_when_sightings_are_missing() -> None:
    matcher = Matcher()
    matcher.miss(BEGAN_NS + 1000, BEGAN_NS + 2000)
    result = matcher.judge(array(RACE), BEGAN_NS + 10**8)
    assert (len(result.vanished), result.unknown, len(result.left)) == (0, 1, 1)
    later = [seen._replace(at_us=seen.at_us + 1e6) for seen in RACE]
    assert losses(matcher.judge(array(later), BEGAN_NS + 1_100_000_000)) == [(B, A)]


def test_a_scanner_that_sends_all_alike_is_not_held_for_ever() -> None:
    matcher = Matcher()
    step_ns = WINDOW_NS // 2
    unknown = 0
    for number in range(3 * LONGEST_NS // step_ns):
        seen = Seen(number * step_ns / 1000, BRIDGE, IN, A, f"192.0.2.{number}:80")
        result = matcher.judge(array([seen]), BEGAN_NS + number * step_ns)
        assert (len(result.vanished), len(result.left)) == (0, 0)
        unknown += result.unknown
        assert matcher.held <= 2 + (LONGEST_NS + WINDOW_NS) // step_ns
    assert unknown > 0


def test_what_is_forgotten_is_counted() -> None:
    matcher = Matcher()
    matcher.judge(array(RACE), BEGAN_NS + 1000)
    assert (matcher.forget(), matcher.held) == (2, 0)


class Fate(NamedTuple):
    """What the simulated NAT does with a SYN."""

    source: str
    lost_to: str | None
    lost: bool


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[Seen], list[Fate]]:
    """A NAT that keeps ports; some SYNs race, some are dropped by a rule, some are sent again."""
    seen: list[Seen] = []
    fates: list[Fate] = []
    at_us = 0.0
    for number in range(draw(st.integers(1, 25))):
        at_us += draw(st.floats(APART_NS / 1000 + 50, 80_000))
        port = draw(st.integers(40000, 40003))
        first, second = f"172.17.0.2:{port}", f"172.17.0.3:{port}"
        inside_us = draw(st.floats(2, 60))
        kind = draw(st.sampled_from(["leaves", "races", "dropped", "follows", "host races"]))
        sequence = draw(st.sampled_from([2 * number + 10, 2**32 - 1 - 2 * number]))
        ours = f"10.18.10.136:{port}"
        if kind == "dropped":
            seen += arrival(at_us, first, sequence=sequence)
            fates.append(Fate(first, None, lost=True))
            continue
        if kind == "host races":
            seen += departure(at_us + inside_us, ours, sequence=sequence)
        else:
            seen += arrival(at_us, first, sequence=sequence)
            seen += departure(at_us + inside_us, ours, sequence=sequence)
            fates.append(Fate(first, None, lost=False))
        if kind in ("races", "host races"):
            after_us = draw(st.floats(0, inside_us - 1))
            seen += arrival(at_us + after_us, second, VETH1, sequence=sequence - 1)
            fates.append(Fate(second, ours if kind == "host races" else first, lost=True))
        elif kind == "follows":  # its port is in use, so it is given another one
            seen += arrival(at_us + inside_us + 1, second, VETH1, sequence=sequence - 1)
            other = f"10.18.10.136:{draw(st.integers(1024, 30000))}"
            seen += departure(at_us + inside_us + 5, other, sequence=sequence - 1)
            fates.append(Fate(second, None, lost=False))
    return seen, fates


@given(traffic(), st.randoms(use_true_random=False), st.integers(1, 12))
def test_every_loss_of_a_simulated_nat_and_no_other(
    made: tuple[list[Seen], list[Fate]], shuffle: Any, drains: int
) -> None:
    seen, fates = made
    in_time = sorted(seen)
    cuts = sorted(shuffle.randrange(len(in_time) + 1) for _ in range(drains - 1))
    matcher, parts = Matcher(), []
    for low, high in zip([0, *cuts], [*cuts, len(in_time)], strict=True):
        part = in_time[low:high]
        # Until the first sighting that is not in it.
        now_us = in_time[high].at_us if high < len(in_time) else in_time[-1].at_us + 1e6
        shuffle.shuffle(part)
        parts.append(matcher.judge(array(part), BEGAN_NS + round(now_us * 1000)))
    result = added(parts)
    assert matcher.held == 0
    expected = [(fate.source, fate.lost_to) for fate in fates if fate.lost]
    assert sorted(losses(result), key=str) == sorted(expected, key=str)
    hosts = sum(fate.lost_to is not None and fate.lost_to.startswith("10.") for fate in fates)
    assert len(result.left) == sum(not fate.lost for fate in fates) + hosts
