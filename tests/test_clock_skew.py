"""Two hosts share no clock: what a watch counted is matched with what clients lost, or said to be apart."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from snat_race.analysis import warnings
from snat_race.analysis.clock_skew import SLACK_S, Counted, clock_ahead_s
from snat_race.analysis.merge import instant, merged, seconds
from snat_race.report.wording.warnings import sentence
from snat_race.results.conclusions import CauseName, MeasurementWarning, WarningKind
from snat_race.results.counters import CounterDelta
from snat_race.results.schema import ClientResult, MergedResult, WatchResult
from tests.results import BEGAN, lost, rise, small_client, small_watch

FEW = settings(max_examples=25)  # each merges results
BEGAN_S = seconds(BEGAN)
DAY_S = 86400.0


def client_of(losses: list[int]) -> ClientResult:
    """A client that lost so many SYNs in each second."""
    periods = [
        lost(1000, {"TIMEOUT": failed} if failed else {}, began_at=instant(BEGAN_S + second), elapsed_s=1.0)
        for second, failed in enumerate(losses)
    ]
    client = small_client("client", failed=sum(losses))
    fields = dict(client) | {"periods": periods, "elapsed_s": float(len(losses))}
    return ClientResult(**fields)


def watch_of(clashes: list[int], *, began_s: float, ahead_s: float, boot_id: str = "other") -> WatchResult:
    """A watch that counted so many clashes in each second, by a clock that is ahead."""
    watch = small_watch("watch", began_at=instant(began_s + ahead_s))
    periods = [
        CounterDelta(
            netns="host",
            inode=7,
            began_at=instant(began_s + ahead_s + second),
            elapsed_s=1.0,
            conntrack=rise(clashed),
            tcp={},
        )
        for second, clashed in enumerate(clashes)
    ]
    fields = dict(watch) | {
        "periods": periods,
        "total": None,
        "elapsed_s": float(len(clashes)),
        "environment": dict(watch.environment) | {"boot_id": boot_id},
    }
    return WatchResult(**fields)


def counted_of(result: MergedResult) -> int:
    return sum(result.kernel.source.insert_failed) if result.kernel.source else 0


def kinds_of(result: MergedResult) -> dict[WarningKind, MeasurementWarning]:
    return {warning.kind: warning for warning in warnings.of_merged(result)}


LOSSES = st.lists(st.integers(0, 30), min_size=3, max_size=30).filter(lambda counts: sum(counts) >= 4)


@FEW
@given(
    losses=LOSSES,
    ahead_s=st.floats(-DAY_S, DAY_S).filter(lambda ahead_s: abs(ahead_s) > 40),
    before=st.integers(0, 20),
    after=st.integers(0, 20),
    shifted_s=st.floats(-0.9, 0),
)
def test_what_was_counted_by_another_clock_is_matched(
    losses: list[int], ahead_s: float, before: int, after: int, shifted_s: float
) -> None:
    """The watch ran longer than the client, in periods of its own."""
    clashes = [0] * before + losses + [0] * after
    watch = watch_of(clashes, began_s=BEGAN_S - before + shifted_s, ahead_s=ahead_s)
    result = merged([client_of(losses)], [watch])
    assert counted_of(result) == sum(losses)
    assert [(cause.cause, cause.losses) for cause in result.diagnosis] == [
        (CauseName.snat_race, sum(losses))
    ]
    warning = kinds_of(result)[WarningKind.clocks_differ]
    assert abs(float(warning.values["ahead_s"]) - ahead_s) <= 1
    assert f"{warning.values['ahead_s']:+,.1f} s" in sentence(warning)
    assert WarningKind.watch_at_other_time not in kinds_of(result)


@FEW
@given(losses=LOSSES, ahead_s=st.floats(-1, 1), boot_id=st.sampled_from(["other", "b", ""]))
def test_clocks_that_agree_are_left_alone(losses: list[int], ahead_s: float, boot_id: str) -> None:
    clashes = [0] * 5 + losses + [0] * 5
    watch = watch_of(clashes, began_s=BEGAN_S - 5, ahead_s=ahead_s, boot_id=boot_id)
    result = merged([client_of(losses)], [watch])
    assert counted_of(result) == sum(losses)
    assert result.merged_from[-1].clock_ahead_s == 0
    assert not {WarningKind.clocks_differ, WarningKind.watch_at_other_time} & kinds_of(result).keys()


@FEW
@given(losses=LOSSES, ahead_s=st.sampled_from([-5.0, 5.0, 7.5, -20.0, 3600.0]))
def test_a_hosts_own_clock_is_never_another(losses: list[int], ahead_s: float) -> None:
    """One boot has one clock: what was counted at another time there was counted at another time."""
    watch = watch_of(losses, began_s=BEGAN_S, ahead_s=ahead_s, boot_id="b")
    result = merged([client_of(losses)], [watch])
    assert result.merged_from[-1].clock_ahead_s == 0
    assert not {WarningKind.clocks_differ, WarningKind.watch_at_other_time} & kinds_of(result).keys()


@FEW
@given(
    losses=LOSSES,
    busy=st.lists(st.integers(1, 20), min_size=60, max_size=90),
    ahead_s=st.floats(-DAY_S, DAY_S).filter(lambda ahead_s: abs(ahead_s) > 200),
)
def test_what_clashes_all_the_time_is_not_matched_with_a_short_run(
    losses: list[int], busy: list[int], ahead_s: float
) -> None:
    result = merged([client_of(losses)], [watch_of(busy, began_s=BEGAN_S - 5, ahead_s=ahead_s)])
    assert counted_of(result) == 0
    assert result.diagnosis[0].cause is CauseName.not_watched
    warning = kinds_of(result)[WarningKind.watch_at_other_time]
    assert 0 < float(warning.values["apart_s"]) < abs(ahead_s)
    assert WarningKind.watch_missed_some not in kinds_of(result)


@pytest.mark.parametrize("before", [121, 600, 3600])
def test_an_incident_before_the_run_is_not_that_of_the_run(before: int) -> None:
    """The watch ran meanwhile too, and counted nothing."""
    losses = [10] * 10
    clashes = [0] * 5 + losses + [0] * (before + 20)
    result = merged([client_of(losses)], [watch_of(clashes, began_s=BEGAN_S - before - 15, ahead_s=0)])
    assert counted_of(result) == 0
    assert result.merged_from[-1].clock_ahead_s == 0
    assert [cause.cause for cause in result.diagnosis] == [CauseName.unexplained]


@pytest.mark.parametrize("ahead_s", [-5.0, 5.0, 6.0, -8.0])
def test_clocks_that_differ_by_less_than_a_run(ahead_s: float) -> None:
    """Some of what was counted falls into the run by either clock."""
    losses = [0, 3, 9, 4, 0, 8, 8, 2, 5, 1]
    watch = watch_of([0, 0, *losses, 0, 0], began_s=BEGAN_S - 2, ahead_s=ahead_s)
    result = merged([client_of(losses)], [watch])
    assert counted_of(result) == sum(losses)
    assert kinds_of(result)[WarningKind.clocks_differ].values["ahead_s"] == pytest.approx(ahead_s, abs=1)


COUNTED = st.lists(
    st.builds(Counted, st.floats(0, 1e9), st.floats(0.01, 100), st.integers(0, 10**9)), max_size=20
)


@given(losses=COUNTED, clashes=COUNTED)
def test_whatever_was_counted_a_clock_is_ahead_by_a_finite_time(
    losses: list[Counted], clashes: list[Counted]
) -> None:
    ahead_s = clock_ahead_s(losses, clashes)
    assert abs(ahead_s) < 1e10
    if not any(period.events for period in losses) or not any(period.events for period in clashes):
        assert ahead_s == 0


@given(losses=COUNTED, ahead_s=st.floats(-1e6, 1e6))
def test_the_same_counts_by_another_clock(losses: list[Counted], ahead_s: float) -> None:
    assume(any(period.events for period in losses))
    clashes = [period._replace(began_s=period.began_s + ahead_s) for period in losses]
    found_s = clock_ahead_s(losses, clashes)
    assert found_s == 0 or found_s == pytest.approx(ahead_s, abs=0.01)
    length_s = max(period.began_s + period.elapsed_s for period in losses) - min(
        period.began_s for period in losses
    )
    if abs(ahead_s) > length_s + 2 * SLACK_S:
        assert found_s
