"""What ``make soak`` calls wrong. The soak itself takes minutes."""

from typing import Any

import pytest

from scripts import soak
from scripts.soak import MB, WINDOW, Sample, dial_problems, drift_s, growth, unaccounted

KERNEL = {"insert_failed": 3, "drop": 3, "ListenDrops": 1, "PassiveOpens": 97}


def samples(*, grows_mb: float = 0.0, leaks: int = 0, seconds: int = 200) -> list[Sample]:
    """A process that grows over its whole time, and keeps more and more descriptors."""
    return [
        Sample(
            at_s=at,
            rss=int((50 + grows_mb * at / seconds) * MB),
            pss=20 * MB,
            descriptors=9 + leaks * at // seconds,
        )
        for at in range(seconds)
    ]


def summary(**changed: Any) -> dict[str, Any]:
    """100 dials in 0.1 s, a slot each; all is accounted for."""
    whole = {
        "attempted": 100,
        "connected": 96,
        "failed": 3,
        "overruns": 0,
        "cut_short": 1,
        "late": 0,
        "errors": {"TIMEOUT": 3},
        "syn_retransmits": {"1": 1},
        "elapsed_s": 0.1,
    }
    return whole | changed


def test_a_process_that_stays_as_it_is_is_right() -> None:
    grown = growth("one", samples(), 60)
    assert grown
    assert (grown.wrong, grown.grown_mb, grown.descriptors) == ("", 0, (9, 9))


@pytest.mark.parametrize(
    ("leak", "said"), [({"grows_mb": 5.0}, "grew by 3."), ({"leaks": 4}, "descriptors")]
)
def test_a_leak_is_found(leak: dict[str, Any], said: str) -> None:
    grown = growth("one", samples(**leak), 60)
    assert grown
    assert said in grown.wrong


def test_what_a_process_takes_in_its_first_minute_does_not_count() -> None:
    early = [Sample(at, MB if at < 60 else 90 * MB, MB, 9) for at in range(200)]
    grown = growth("one", early, 60)
    assert grown
    assert grown.wrong == ""


def test_a_descriptor_that_is_open_for_a_moment_is_no_leak() -> None:
    dialling = [Sample(at, MB, MB, 9 + at % 2) for at in range(200)]
    grown = growth("one", dialling, 60)
    assert grown
    assert (grown.wrong, grown.most_descriptors) == ("", 10)


def test_too_short_a_process_tells_nothing() -> None:
    assert growth("one", samples(seconds=60 + 2 * WINDOW - 1), 60) is None


def test_every_dial_and_every_loss_is_accounted_for() -> None:
    assert [*unaccounted("one", summary())] == []
    assert [*dial_problems({"meeting": summary()}, KERNEL, accepted=96)] == []


@pytest.mark.parametrize(
    "changed", [{"attempted": 101}, {"cut_short": 0}, {"overruns": 1}, {"errors": {"TIMEOUT": 2}}]
)
def test_a_dial_too_few_or_too_many_is_found(changed: dict[str, Any]) -> None:
    (said,) = unaccounted("one", summary(**changed))
    assert said.startswith("one: ")


@pytest.mark.parametrize(
    ("client", "kernel", "accepted", "said"),
    [
        ({"syn_retransmits": {}}, {}, 96, "3 SYNs were lost, and 4 were counted"),
        ({}, {"insert_failed": 2}, 96, "4 SYNs were lost, and 3 were counted"),
        ({}, {}, 95, "96 dials connected, and 95 were accepted"),
        ({}, {}, 98, "96 dials connected, and 98 were accepted"),
        ({"elapsed_s": 3.0}, {}, 96, "its slots are -2.900 s off its time"),
    ],
)
def test_what_does_not_add_up_is_found(
    client: dict[str, Any], kernel: dict[str, int], accepted: int, said: str
) -> None:
    (problem,) = dial_problems({"meeting": summary(**client)}, KERNEL | kernel, accepted)
    assert said in problem


def test_a_late_slot_is_no_drift() -> None:
    assert drift_s(summary(late=50, elapsed_s=0.15)) == pytest.approx(0.0)
    assert abs(drift_s(summary(late=0, elapsed_s=0.15))) < soak.MOST_DRIFT_S


def test_the_trials_of_faults_can_be_started() -> None:
    trials = soak.start_trials(0, 7)
    printed, _ = trials.communicate()
    assert (trials.returncode, printed) == (0, "0 trials from seed 7, 0 with a violation\n")
