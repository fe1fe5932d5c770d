"""Which cause gets how many losses: pure, from counters as they were measured."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.intervals import poisson_at_least
from snat_race.report.wording.causes import advice, evidence
from snat_race.results.conclusions import UNPROVEN, Advice
from snat_race.results.counters import CONNTRACK_COUNTERS, ConntrackDelta, KernelCounters
from snat_race.results.nat import Nat
from tests.results import lost


def kernel(*, count: int = 10, **rises: int) -> KernelCounters:
    per_cpu = {name: [rises.get(name, 0), 0] for name in CONNTRACK_COUNTERS}
    destination = {name: rise for name, rise in rises.items() if name not in CONNTRACK_COUNTERS}
    source = ConntrackDelta(**per_cpu, count=count, max=1000)
    return KernelCounters(source=source, destination=destination, containers={})


@pytest.mark.parametrize(
    ("errors", "rises", "expected"),
    [
        ({"TIMEOUT": 7}, {"insert_failed": 7, "drop": 7, "found": 40}, {"snat_race": 7}),
        ({"TIMEOUT": 9}, {"insert_failed": 7, "drop": 7}, {"snat_race": 7, "unexplained": 2}),
        ({"TIMEOUT": 7}, {}, {"unexplained": 7}),
        ({"TIMEOUT": 100}, {}, {"filtered": 100}),
        ({"TIMEOUT": 7}, {"drop": 7, "early_drop": 1}, {"conntrack_table_full": 7}),
        ({"TIMEOUT": 7}, {"drop": 7, "invalid": 9}, {"conntrack_entry_dying": 7}),
        ({"TIMEOUT": 7}, {"drop": 7}, {"inconclusive": 7}),
        ({"TIMEOUT": 7}, {"insert_failed": 7, "chain_toolong": 7}, {"conntrack_chain_too_long": 7}),
        ({"TIMEOUT": 7}, {"ListenDrops": 30, "ListenOverflows": 30}, {"accept_queue_full": 7}),
        ({"TIMEOUT": 7}, {"ListenDrops": 7, "TCPReqQFullDrop": 7}, {"syn_queue_full": 7}),
        ({"TIMEOUT": 7}, {"ListenDrops": 7}, {"syn_queue_full": 7}),
        ({"TIMEOUT": 7}, {"ListenDrops": 7, "IpOutNoRoutes": 7}, {"no_route_back": 7}),
        ({"TIMEOUT": 7}, {"IPReversePathFilter": 7}, {"reverse_path_filter": 7}),
        ({"TIMEOUT": 7}, {"TCPSYNChallenge": 7}, {"open_connection_reused": 7}),
        ({"TIMEOUT": 7}, {"IcmpInDestUnreachs": 7}, {"rejected": 7}),
        ({"ECONNREFUSED": 7}, {"IcmpInDestUnreachs": 7}, {"refused": 7}),
        ({"TIMEOUT": 7}, {"PAWSTimewait": 9}, {"time_wait_reuse": 7}),
        ({"TIMEOUT": 7}, {"PAWSEstab": 5}, {"time_wait_reuse": 5, "unexplained": 2}),
        ({"ECONNREFUSED": 3}, {"insert_failed": 3, "drop": 3}, {"refused": 3}),
        ({"EADDRNOTAVAIL": 4}, {}, {"client_ports_exhausted": 4}),
        ({"EPROTO": 2}, {}, {"other_error": 2}),
        ({"UNKNOWN": 2}, {}, {"other_error": 2}),
        ({}, {"insert_failed": 3, "drop": 3}, {}),
        # Two suspects with enough for both; then with more than was lost.
        (
            {"TIMEOUT": 10},
            {"insert_failed": 7, "drop": 7, "ListenDrops": 3, "ListenOverflows": 3},
            {"snat_race": 7, "accept_queue_full": 3},
        ),
        (
            {"TIMEOUT": 10},
            {"insert_failed": 7, "drop": 7, "ListenDrops": 5, "ListenOverflows": 5},
            {"snat_race": 5, "accept_queue_full": 3, "inconclusive": 2},
        ),
        ({"TIMEOUT": 5}, {"insert_failed": 15, "drop": 15}, {"snat_race": 5}),
        ({"TIMEOUT": 5}, {"insert_failed": 16, "drop": 16}, {"inconclusive": 5}),
        ({"TIMEOUT": 10}, {"insert_failed": 1000, "drop": 1001}, {"inconclusive": 10}),
        (
            {"EHOSTUNREACH": 4, "TIMEOUT": 2},
            {"IpExtInNoRoutes": 4, "IcmpInDestUnreachs": 4},
            {"unreachable": 4, "unexplained": 2},
        ),
        (
            {"TIMEOUT": 10},
            {"insert_failed": 10, "drop": 10, "ListenDrops": 50, "ListenOverflows": 50},
            {"inconclusive": 10},
        ),
    ],
)
def test_losses_go_to_their_causes(
    errors: dict[str, int], rises: dict[str, int], expected: dict[str, int]
) -> None:
    causes = diagnose(lost(100, errors), kernel(**rises))
    assert {cause.cause: cause.losses for cause in causes} == expected
    assert all(evidence(cause) and advice(cause) for cause in causes)


@given(
    st.integers(0, 300),
    st.fixed_dictionaries(
        {},
        optional={
            name: st.integers(0, 400)
            for name in ("insert_failed", "drop", "found", "chain_toolong", "ListenDrops", "PAWSTimewait")
        },
    ),
    st.integers(1, 70_000),
    st.integers(0, 70_000),
)
def test_all_losses_are_accounted_for_and_none_twice(
    timeouts: int, rises: dict[str, int], ports: int, count: int
) -> None:
    causes = diagnose(lost(300, {"TIMEOUT": timeouts}), kernel(count=count, **rises), nat=Nat(ports=ports))
    assert sum(cause.losses for cause in causes) == timeouts
    assert all(cause.losses > 0 for cause in causes)
    raced = sum(cause.losses for cause in causes if cause.cause == "snat_race")
    assert raced <= min(rises.get("insert_failed", 0), rises.get("drop", 0))


def test_a_rule_that_nobody_read_leaves_a_doubt() -> None:
    (cause,) = diagnose(lost(100, {"TIMEOUT": 3}), kernel(insert_failed=3, drop=3), nat=Nat(known=False))
    assert (cause.cause, "32 ports or fewer" in evidence(cause)) == ("snat_race", True)


def test_clashes_that_no_rule_there_can_have_made_are_of_others() -> None:
    (cause,) = diagnose(lost(100, {"TIMEOUT": 3}), kernel(insert_failed=3, drop=3), nat=Nat(absent=True))
    assert (cause.cause, "no rule there translates" in evidence(cause)) == ("inconclusive", True)


def test_what_nobody_watched_is_not_told() -> None:
    blind = KernelCounters(source=None, destination={}, containers={})
    (cause,) = diagnose(lost(100, {"TIMEOUT": 3}), blind)
    assert (cause.cause, "--watch-netns" in advice(cause)) == ("not_watched", True)
    assert cause.cause in UNPROVEN


def test_what_a_client_counts_itself_is_not_of_the_server() -> None:
    rises = {"TCPSYNChallenge": 7, "PAWSEstab": 7, "ListenDrops": 7}
    (cause,) = diagnose(lost(100, {"TIMEOUT": 7}), kernel().model_copy(update={"containers": rises}))
    assert cause.cause == "unexplained"


def test_a_search_alone_may_have_found_no_port() -> None:
    rises = kernel(insert_failed=1, drop=1, found=128, count=700)
    (cause,) = diagnose(lost(100, {"TIMEOUT": 1}), rises, nat=Nat(ports=1000))
    assert cause.cause == "nat_ports_exhausted"


def test_syns_lost_of_dials_that_connected_late_are_explained_as_well() -> None:
    causes = diagnose(
        lost(100, {"TIMEOUT": 1}, syn_retransmits={"1": 1, "2": 1}), kernel(insert_failed=4, drop=4)
    )
    assert {cause.cause: cause.losses for cause in causes} == {"snat_race": 4}


def test_an_answer_that_came_too_late_is_no_loss_of_the_network() -> None:
    causes = diagnose(lost(100, {"TIMEOUT": 3}), kernel(), answered_late=2)
    assert {cause.cause: cause.losses for cause in causes} == {"answered_too_late": 2, "unexplained": 1}


def test_nobody_is_told_to_do_what_is_done() -> None:
    one = lost(100, {"TIMEOUT": 1})
    (plain,) = diagnose(one, kernel(insert_failed=1, drop=1))
    (chance,) = diagnose(one, kernel(insert_failed=1, drop=1), nat=Nat(same_draws=0.02))
    assert "--random-fully" in advice(plain)
    assert "--random-fully" not in advice(chance)
    (broken,) = diagnose(
        lost(100, {"TIMEOUT": 9}), kernel(insert_failed=9, drop=9), nat=Nat(same_draws=0.02)
    )
    assert broken.advice == Advice.report_excess


@pytest.mark.parametrize(
    ("ports", "evicts", "found"),
    # VariantMeasurement on 6.18, dialling from outside of the range; before 6.5 every try counts.
    [
        (4, True, 0),
        (32, True, 0),
        (64, True, 32),
        (128, True, 96),
        (256, True, 128),
        (3000, True, 128),
        (32, False, 32),
        (3000, False, 248),
    ],
)
def test_what_an_exhausted_search_costs(ports: int, evicts: bool, found: int) -> None:
    assert Nat(ports=ports, evicts=evicts).found_per_exhausted == found


def search(taken: list[bool], random: Random) -> tuple[bool, int]:
    """get_unique_tuple() without eviction: whether it finds a port, and how far ``found`` rises."""
    found = 0
    for turn in (128, 64, 32, 16, 8):
        first = random.randrange(len(taken))
        for port in range(first, first + turn):
            if not taken[port % len(taken)]:
                return True, found
            found += 1
    return False, found


@given(st.integers(1, 20), st.integers(0, 1000), st.integers(0, 2**32))
def test_searches_without_a_port_are_no_more_than_said(blocks: int, held: int, seed: int) -> None:
    """Wherever the held ports lie: in one block, or in several that leave a port between them."""
    random = Random(seed)  # noqa: S311 - a simulation
    taken = [port < held and port % max(1, held // blocks) > 0 for port in range(1000)]
    tries = [search(taken, random) for _ in range(300)]
    failed, found = sum(not free for free, _ in tries), sum(rose for _, rose in tries)
    expected = Nat(ports=1000, evicts=False).expected_exhausted(found, failed, sum(taken))
    assert poisson_at_least(failed, expected) > 1e-6


@pytest.mark.parametrize(
    ("ports", "count", "clashes", "found", "expected"),
    [
        (256, 256, 50, 6400, {"nat_ports_exhausted": 50}),
        (256, 256, 50, 90_000, {"nat_ports_exhausted": 50}),
        (256, 20, 50, 6400, {"snat_race": 50}),  # as long as the table did not empty meanwhile
        (1000, 643, 5, 10_073, {"nat_ports_exhausted": 5}),  # a block of half of them held
        (256, 256, 300, 6450, {"snat_race": 250, "nat_ports_exhausted": 50}),
        (16, 16, 50, 50, {"inconclusive": 50}),  # few ports hide it
        (16, 15, 50, 50, {"snat_race": 50}),
        (64512, 400, 50, 90_000, {"snat_race": 50}),
        (64512, 17_238, 10, 800, {"snat_race": 10}),  # half a second of two containers, after ten
        (64512, 70_000, 50, 30, {"snat_race": 50}),
        (64512, 70_000, 50, 90_000, {"inconclusive": 50}),
    ],
)
def test_the_race_is_told_from_a_nat_without_ports(
    ports: int, count: int, clashes: int, found: int, expected: dict[str, int]
) -> None:
    rises = kernel(insert_failed=clashes, drop=clashes, found=found, count=count)
    causes = diagnose(lost(1200, {"TIMEOUT": clashes}), rises, nat=Nat(ports=ports))
    assert {cause.cause: cause.losses for cause in causes} == expected
