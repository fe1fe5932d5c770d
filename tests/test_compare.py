"""Loss rates compared: pure, against scipy, and as a command on files."""

import json
from collections.abc import Callable
from math import isclose
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from snat_race.analysis.comparison import compare
from snat_race.analysis.intervals import newcombe, wilson
from snat_race.analysis.loss_rates import LossCounts
from tests.conftest import fork_cli

COUNTS = st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_a_thousand_intervals_agree_with_scipy() -> None:
    rng = np.random.default_rng(20261123)
    for _ in range(1000):
        trials = int(10 ** rng.uniform(0, 7))
        losses = int(rng.integers(0, trials + 1))
        oracle = stats.binomtest(losses, trials).proportion_ci(0.95, "wilson")
        ours = wilson(losses, trials)
        assert ours == pytest.approx((oracle.low, oracle.high), abs=1e-9)


def test_newcombe_s_own_examples() -> None:
    """Table II of the paper, method 10; our difference is other minus base."""
    for base, other, low, high in (
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((0, 10), (10, 10), 0.6075, 1.0),
    ):
        assert newcombe(base, other) == pytest.approx((low, high), abs=5e-5)


@given(COUNTS, COUNTS)
def test_a_difference_lies_in_its_interval_and_turns_with_its_sides(
    one: tuple[int, int], two: tuple[int, int]
) -> None:
    low, high = newcombe(one, two)
    difference = two[0] / two[1] - one[0] / one[1]
    assert low - 1e-12 <= difference <= high + 1e-12
    back = newcombe(two, one)
    assert isclose(low, -back[1], abs_tol=1e-12)
    assert isclose(high, -back[0], abs_tol=1e-12)


@given(COUNTS, COUNTS)
def test_every_number_of_a_comparison_is_finite_and_the_word_fits_the_interval(
    one: tuple[int, int], two: tuple[int, int]
) -> None:
    found = compare(LossCounts(name="a", rounds=(one,)), LossCounts(name="b", rounds=(two,)))
    low, high = found.difference_ci95
    assert (found.outcome == "fewer") == (high < 0)
    assert (found.outcome == "more") == (low > 0)
    assert json.loads(found.model_dump_json())  # pydantic refuses what is not finite


def simulated(rng: np.random.Generator, rate: float, rounds: int, dials: int, drift: float) -> LossCounts:
    rates = np.clip(rate * np.exp(rng.normal(0, drift, rounds)), 0, 1)
    return LossCounts(name="x", rounds=tuple((int(rng.binomial(dials, each)), dials) for each in rates))


@pytest.mark.parametrize("drift", [0.0, 0.3])
@pytest.mark.parametrize(("rate", "rounds", "dials"), [(0.005, 8, 2000), (0.25, 8, 500), (0.02, 20, 500)])
def test_the_same_thing_twice_is_seldom_told_apart(
    rate: float, rounds: int, dials: int, drift: float
) -> None:
    """An A/A comparison: the target is 6 %; so many pairs that luck decides little."""
    rng = np.random.default_rng(7)
    outcomes = [
        compare(
            simulated(rng, rate, rounds, dials, drift), simulated(rng, rate, rounds, dials, drift)
        ).outcome
        for _ in range(2000)
    ]
    false = sum(outcome in ("fewer", "more") for outcome in outcomes)
    assert false <= 0.06 * len(outcomes)


def test_what_it_takes_to_tell_is_what_it_says() -> None:
    """With that many dials more, losses that halve are seen four times in five."""
    rng, rate = np.random.default_rng(3), 0.01
    needed = compare(LossCounts(name="a", rounds=((5, 500),)), LossCounts(name="b", rounds=((4, 500),)))
    assert needed.outcome == "inconclusive"
    assert needed.more_dials
    dials = 500 + needed.more_dials
    seen = sum(
        compare(
            LossCounts(name="a", rounds=((int(rng.binomial(dials, rate)), dials),)),
            LossCounts(name="b", rounds=((int(rng.binomial(dials, rate / 2)), dials),)),
        ).outcome
        == "fewer"
        for _ in range(500)
    )
    assert 0.72 <= seen / 500 <= 0.88


def test_none_lost_by_either_is_no_difference_detected() -> None:
    found = compare(LossCounts(name="a", rounds=((0, 5000),)), LossCounts(name="b", rounds=((0, 5000),)))
    assert (found.outcome, found.reduction, found.more_dials) == ("no difference detected", None, 0)


@pytest.mark.parametrize(("lost", "dialled"), [(0, 1), (3, 10)])
def test_a_baseline_without_a_loss_is_no_proof_if_small(lost: int, dialled: int) -> None:
    assert (
        compare(
            LossCounts(name="a", rounds=((0, dialled),)), LossCounts(name="b", rounds=((lost, dialled),))
        ).outcome
        == "inconclusive"
    )


@pytest.mark.parametrize("rounds", [2, 3])
def test_many_small_rounds_beside_few_large_ones_are_seldom_told_apart(rounds: int) -> None:
    rng = np.random.default_rng(5)
    outcomes = [
        compare(
            simulated(rng, 0.005, rounds, 5000, drift=0.5), simulated(rng, 0.005, 40, 40, drift=0.5)
        ).outcome
        for _ in range(500)
    ]
    assert sum(outcome in ("fewer", "more") for outcome in outcomes) <= 0.06 * len(outcomes)


Kept = Callable[..., Path]


def test_the_words_and_exit_codes_of_the_command(kept: Kept) -> None:
    base, fixed = kept("base", failed=200), kept("fixed", failed=0)
    fewer = fork_cli("compare", str(base), str(fixed), "--fail-if", "more")
    assert (fewer.returncode, ": fewer" in fewer.stdout) == (0, True)
    assert "of the losses are gone (95 % interval" in " ".join(fewer.stdout.split())
    more = fork_cli("compare", str(fixed), str(base), "--fail-if", "more", "--format", "json")
    assert more.returncode == 3
    assert "--fail-if more" in more.stderr
    assert json.loads(more.stdout)["comparisons"][0]["outcome"] == "more"


def test_doubts_about_a_comparison(kept: Kept) -> None:
    base = kept("base", failed=20)
    other = kept("other", failed=20, attempted=5000, environment={"kernel": "5.4.0"})
    said = " ".join(fork_cli("compare", str(base), str(other)).stdout.split())
    assert "not the same amount of work" in said
    assert "kernel is 5.4.0" in said


def test_bad_input_is_one_line(kept: Kept) -> None:
    base = kept("base", failed=20)
    watch = kept("watch", kind="watch")
    for files, message in (
        ((base,), "two results"),
        ((base, base), "same run"),
        ((base, watch), "no dials"),
        ((base, base.parent / "none"), "cannot be read"),
    ):
        done = fork_cli("compare", *map(str, files))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert message in done.stderr
