import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, poisson, t

from snat_race.analysis.diagnosis import diagnose
from snat_race.analysis.intervals import (
    Z95,
    dispersion,
    poisson_at_least,
    reduction,
    student_widening,
    wilson,
)
from snat_race.analysis.summary import (
    Circumstances,
    Pairs,
    Total,
    count_errors,
    order_statistic,
    paired_slots,
)
from snat_race.analysis.verdict import as_expected, outcome_of, verdict_on, verdict_reason
from snat_race.load.dialer_pool import DialCounts
from snat_race.report.wording.verdicts import verdict
from snat_race.results import sample
from snat_race.results.conclusions import Outcome
from snat_race.results.nat import Nat
from snat_race.results.schema import Summary, VariantResult
from tests.test_diagnosis import kernel

LATENCIES = st.lists(st.integers(1, 10**10), min_size=1, max_size=300)


def samples(*dials: tuple[int, int, int, int]) -> np.ndarray:
    """Make samples of (start_ns, errno, port, latency_ns)."""
    words = [(start, sample.pack(error, port, latency)) for start, error, port, latency in dials]
    return np.array(words, dtype=sample.FIELDS)


@given(LATENCIES, st.sampled_from([0, 500, 900, 950, 990, 999, 1000]))
def test_order_statistics_are_numpys_lower_percentiles(values: list[int], per_mille: int) -> None:
    ordered = np.sort(np.array(values))
    index = (len(values) - 1) * per_mille // 1000
    assert order_statistic(ordered, per_mille) == sorted(values)[index]
    # numpy computes the index in floating point, which may fall short of a whole number
    nearest = np.percentile(ordered, per_mille / 10 + 1e-9 if per_mille < 1000 else 100, method="lower")
    assert order_statistic(ordered, per_mille) == nearest


@settings(max_examples=30)
@given(LATENCIES)
def test_percentiles_never_cross(values: list[int]) -> None:
    total = Total(0)
    total.add(samples(*((0, 0, 0, value) for value in values)))
    latency = total.summary(
        DialCounts(len(values), len(values), 0, 0, 0), Circumstances(elapsed_s=1.0)
    ).latency_ns
    assert latency
    assert latency.min <= latency.p50 <= latency.p90 <= latency.p95 <= latency.p99 <= latency.p999
    assert latency.p999 <= latency.max
    assert abs(latency.max - max(values)) <= max(values) / 1000


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(table: tuple[int, int]) -> None:
    oracle = binomtest(*table).proportion_ci(0.95, method="wilson")
    assert wilson(*table) == pytest.approx((oracle.low, oracle.high), abs=1e-9)


def test_wilson_without_trials_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_reduction_covers_the_truth_about_95_times_in_100() -> None:
    random = np.random.default_rng(7)
    p, q, n = 0.3, 0.03, 2000
    covered = 0
    for _ in range(400):
        found = reduction((int(random.binomial(n, p)), n), (int(random.binomial(n, q)), n))
        assert found
        covered += found[1][0] <= 1 - q / p <= found[1][1]
    assert 0.92 <= covered / 400 <= 0.98


def test_reduction_to_nothing_is_whole_and_bounded() -> None:
    found = reduction((612, 2000), (0, 2000))
    assert found
    assert found[0] == 1.0
    assert 0.99 < found[1][0] < found[1][1] == 1.0
    assert reduction((0, 2000), (5, 2000)) is None
    assert reduction((5, 2000), (0, 0)) is None


def test_pairs_are_dials_of_one_port_at_one_time() -> None:
    ms = 1_000_000
    timed_out = sample.TIMED_OUT
    one = samples((10 * ms, 0, 5000, 9), (11 * ms, 0, 5001, 9), (12 * ms, 0, 5002, 9))
    two = samples((10 * ms + 900, timed_out, 5000, 9), (11 * ms + 50, 0, 5001, 9), (40 * ms, 0, 5002, 9))
    met = paired_slots([one, two], ms)
    assert met.pairs == Pairs(paired=2, collisions=1)
    assert list(zip(met.ports.tolist(), met.losers.tolist(), strict=True)) == [(5000, 1), (5001, 0)]


def test_of_three_on_one_port_one_wins_and_two_lose() -> None:
    lost = (100, sample.TIMED_OUT, 7, 9)
    met = paired_slots([samples((90, 0, 7, 9)), samples(lost), samples(lost)], 10**6)
    assert met.pairs == Pairs(1, 1)
    assert met.losers.tolist() == [2]


def test_a_refused_dial_is_no_collision() -> None:
    assert paired_slots([samples((90, 111, 7, 9)), samples((91, 0, 7, 9))], 10**6).pairs == Pairs(1, 0)


def test_nothing_dialled_is_no_pair() -> None:
    assert paired_slots([samples(), samples()], 10**6).pairs == Pairs(0, 0)


def test_a_period_keeps_connected_and_failed_apart() -> None:
    dials = samples((0, 0, 1, 100), (1, 0, 2, 300), (2, sample.TIMED_OUT, 3, 9000), (3, 111, 4, 50))
    total = Total(interval_ns=0)
    total.add(dials)
    summary = total.period(DialCounts(5, 4, 2, 1, 0), Circumstances(elapsed_s=2.0))
    assert (summary.attempted, summary.connected, summary.failed, summary.overruns) == (5, 2, 2, 1)
    assert summary.errors == {"TIMEOUT": 1, "ECONNREFUSED": 1}
    assert summary.latency_ns
    assert summary.latency_all_ns
    assert (summary.latency_ns.max, summary.latency_all_ns.max) == (300, 9007)  # 3 digits
    assert summary.rate_per_s == 2.5


def test_errors_are_counted_by_name() -> None:
    assert count_errors(np.array([0, 0, 111, 115, 115], np.uint64)) == {"ECONNREFUSED": 1, "TIMEOUT": 2}


@given(st.integers(0, 2**62), st.floats(1e-9, 1e18))
@example(10**12, 1.5)
@example(10**6, 1e6)
@example(1_002_000, 1_000_001.0)
def test_the_chance_of_any_number_of_losses_takes_a_moment(losses: int, expected: float) -> None:
    assert poisson_at_least(losses, expected) == pytest.approx(poisson.sf(losses - 1, expected), abs=1e-4)


@given(st.integers(0, 300), st.floats(0.001, 200))
def test_the_chance_of_losses_is_scipys(losses: int, expected: float) -> None:
    assert poisson_at_least(losses, expected) == pytest.approx(poisson.sf(losses - 1, expected), abs=1e-9)


@pytest.mark.parametrize("freedom", [4, 7, 19, 200])
def test_students_interval_is_scipys(freedom: int) -> None:
    assert student_widening(freedom) * Z95 == pytest.approx(t.ppf(0.975, freedom), rel=0.01)


def variant(
    name: str,
    *,
    lost: int,
    others: int,
    paired: int,
    collisions: int,
    drawn: int | None = None,
    cpus: int = 2,
) -> VariantResult:
    failed = lost + others
    rose = kernel(insert_failed=lost, drop=lost)
    attempted = 2 * paired + failed
    summary = Summary(
        attempted=attempted,
        connected=attempted - failed,
        failed=failed,
        late=0,
        overruns=0,
        cut_short=0,
        paired=paired,
        collisions=collisions,
        elapsed_s=1,
        rate_per_s=1,
        errors={"TIMEOUT": failed} if failed else {},
        loss_rate=0,
        loss_rate_ci95=(0, 1),
    )
    same_draws = attempted / 2 / drawn if drawn else 0.0
    diagnosis = diagnose(summary, rose, nat=Nat(same_draws=same_draws))
    reason = verdict_reason(summary, diagnosis, same_draws, cpus)
    return VariantResult(
        name=name,
        rule=name,
        drawn_ports=drawn,
        accepted=0,
        summary=summary,
        kernel=rose,
        diagnosis=diagnosis,
        outcome=outcome_of(reason),
        reason=reason,
        collision_rate_ci95=wilson(collisions, paired),
    )


@pytest.mark.parametrize(
    ("counts", "cpus", "expected"),
    [
        ({"lost": 500, "others": 0, "paired": 1000, "collisions": 500}, 2, "reproduced"),
        ({"lost": 500, "others": 5, "paired": 1000, "collisions": 505}, 2, "reproduced"),
        ({"lost": 1, "others": 499, "paired": 1000, "collisions": 500}, 2, "inconclusive"),
        ({"lost": 0, "others": 30, "paired": 1000, "collisions": 30}, 2, "inconclusive"),
        ({"lost": 0, "others": 1, "paired": 1000, "collisions": 1}, 2, "not_seen"),
        ({"lost": 0, "others": 0, "paired": 1000, "collisions": 0}, 2, "not_seen"),
        ({"lost": 0, "others": 0, "paired": 1000, "collisions": 0}, 1, "inconclusive"),
        ({"lost": 0, "others": 0, "paired": 20, "collisions": 0}, 2, "inconclusive"),
    ],
)
def test_a_verdict_claims_no_more_than_was_seen(counts: dict[str, int], cpus: int, expected: str) -> None:
    base = variant("masquerade", cpus=cpus, **counts)
    cured = variant("masquerade fully-random", lost=0, others=0, paired=900, collisions=0)
    judged = verdict_on([base, cured])
    assert judged.outcome == expected
    assert verdict(base).split(":")[0].split(" under")[0] in (
        "race reproduced",
        "no race seen",
        "not the race",
        "inconclusive",
    )
    assert (judged.mitigations[0].loss_reduction == 1.0) == (counts["collisions"] > 0)


@pytest.mark.parametrize(
    ("lost", "drawn", "expected"),
    [(1, 64512, "not_seen"), (4, 64512, "reproduced"), (1, None, "reproduced"), (3, 10_000, "not_seen")],
)
def test_two_draws_of_the_same_port_are_no_race(lost: int, drawn: int | None, expected: str) -> None:
    measured = variant("any", lost=lost, others=0, paired=2000, collisions=lost, drawn=drawn)
    assert measured.outcome == expected
    assert (
        (measured.reason == "by_chance")
        == ("beyond chance" in verdict(measured))
        == (expected == "not_seen")
    )


def test_losses_of_other_causes_are_not_called_a_race() -> None:
    measured = variant("masquerade", lost=0, others=400, paired=0, collisions=0)
    assert (measured.outcome, measured.reason) == ("inconclusive", "other_causes")
    assert verdict(measured).startswith("not the race")


def test_what_may_be_the_race_is_not_called_another_cause() -> None:
    """Very few ports: exhaustion does not show."""
    rose = kernel(insert_failed=400, drop=400, count=16)
    few = variant("masquerade", lost=400, others=0, paired=0, collisions=0)
    diagnosis = diagnose(few.summary, rose, nat=Nat(ports=16))
    reason = verdict_reason(few.summary, diagnosis, 0.0, 2)
    assert reason == "mixed_causes"
    judged = few.model_copy(update={"diagnosis": diagnosis, "reason": reason})
    assert verdict(judged).startswith("inconclusive: of 400")


def test_what_cannot_be_told_is_neither_as_expected_nor_not() -> None:
    assert as_expected(Outcome.reproduced, race=True) is True
    assert as_expected(Outcome.reproduced, race=False) is False
    assert as_expected(Outcome.not_seen, race=False) is True
    assert as_expected(Outcome.inconclusive, race=True) is None


def test_rounds_that_differ_by_more_than_chance_widen_the_interval() -> None:
    random = np.random.default_rng(3)
    steady = [(int(random.binomial(100, 0.3)), 100) for _ in range(200)]
    shaky = [(int(random.binomial(100, p)), 100) for p in random.uniform(0.1, 0.5, 200)]
    assert 1.0 <= dispersion([steady]) < 1.25
    assert dispersion([shaky]) > 4
    assert dispersion([[(0, 100)] * 8]) == dispersion([[(3, 10)]]) == dispersion([]) == 1.0
    cured = [(0, 100)] * 7 + [(1, 100)]
    assert dispersion([shaky, cured, cured]) == dispersion([shaky])
