"""Whatever happens amid a run, what it says of itself adds up, it ends, and nobody is left."""

import os

import pytest

from tests.faults import Fault, chosen, run_trial, run_trials

TRIALS = 65  # each fault five times
SEEDS = range(TRIALS)


@pytest.mark.timeout(120)
def test_the_books_are_right_after_any_fault() -> None:
    trials = list(run_trials(SEEDS, at_once=4 * len(os.sched_getaffinity(0))))
    assert len(trials) == TRIALS
    assert [str(trial) for trial in trials if trial.violations] == []


def test_every_fault_has_its_turn_and_a_seed_says_all() -> None:
    assert {chosen(seed).fault for seed in SEEDS} == set(Fault)
    assert [chosen(seed) for seed in SEEDS] == [chosen(seed) for seed in SEEDS]


def test_a_slow_reader_loses_samples_but_no_count() -> None:
    """So the trials do test what they say: the rings overran, and every overrun is in a period."""
    (seed,) = [seed for seed in range(len(Fault)) if chosen(seed).fault is Fault.slow_reader]
    trial = run_trial(seed)
    assert trial.violations == []
    assert trial.result
    assert trial.result.summary.overruns > 0
