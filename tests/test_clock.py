"""CLOCK_REALTIME may be set during a run; here it is set on paper, not on this machine."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from snat_race.report.registry import document
from snat_race.report.renderers.text import text
from snat_race.report.wording import warnings as wording
from snat_race.results.conclusions import WarningKind
from snat_race.results.schema import ClientResult
from snat_race.runs import client
from snat_race.runs.clock import ClockOffset, realtime_offset_ns
from snat_race.runs.settings import ClientSettings, Close, Mode
from snat_race.runs.worker_placement import find_remote, find_target
from tests.conftest import in_fork

MS = 1_000_000


def read_offsets(offsets_ns: Iterable[int]) -> ClockOffset:
    offsets_ns = list(offsets_ns)
    readings = iter(offsets_ns)
    clock = ClockOffset(lambda: next(readings))
    assert clock.offset_ns == offsets_ns[0]
    for offset_ns in offsets_ns[1:]:
        assert clock.update() == offset_ns
    return clock


@pytest.mark.parametrize(
    ("offsets_ns", "step_ns"),
    [
        ([7], 0),
        ([7, 7, 7], 0),
        (range(0, 1000 * MS, MS), 0),  # slewed, reading by reading, by a second in all
        ([0, 50 * MS], 0),
        ([0, 51 * MS], 51 * MS),
        ([0, 51 * MS, 51 * MS, 51 * MS], 51 * MS),
        ([0, -3_600_000 * MS], -3_600_000 * MS),
        ([0, 60 * MS, -40 * MS, -40 * MS], -100 * MS),  # the largest of two
        ([0, -100 * MS, -40 * MS], -100 * MS),
    ],
)
def test_only_a_step_is_one(offsets_ns: Iterable[int], step_ns: int) -> None:
    assert read_offsets(offsets_ns).largest_step_ns == step_ns


def test_losing_the_cpu_between_two_readings_is_no_step() -> None:
    monotonic_ns = itertools.chain([0, 900 * MS], [1000 * MS, 1000 * MS + 40], [1001 * MS, 1300 * MS])
    realtime_ns = iter([5 * MS, 1005 * MS + 20, 1006 * MS])
    assert realtime_offset_ns(lambda: next(realtime_ns), lambda: next(monotonic_ns)) == 5 * MS


class Silent:
    """An observer that only keeps the failures."""

    def __init__(self) -> None:
        self.failures: list[Any] = []

    def started(self, *_: Any) -> None: ...

    def failure(self, failure: Any) -> None:
        self.failures.append(failure)

    def period(self, *_: Any) -> None: ...

    def drained(self, *_: Any) -> None: ...


def test_a_step_during_a_run_becomes_a_warning_and_moves_the_time_stamps(port: int) -> None:
    settings = ClientSettings(
        remote_addr=f"127.0.0.1:{port}",
        workers=1,
        local_ips=(),
        timeout_ms=100,
        dial_interval_us=50_000,
        summary_interval_sec=60,
        mode=Mode.independent,
        source_ports=(20000, 29999),
        lanes=1,
        close=Close.rst,
        duration_s=1.5,
        count=None,
        warmup_s=None,
        pin=False,
    )
    now_ns = realtime_offset_ns()
    offsets_ns = itertools.chain([now_ns] * 3, itertools.repeat(now_ns + 3600 * 1000 * MS))

    def dialled() -> tuple[ClientResult, list[int]]:
        observer = Silent()
        target = find_target(settings, find_remote(settings.remote_addr, settings.timeout_ms))
        result, fault = client.run(
            settings, target, [], observer, read_clock_offset_ns=lambda: next(offsets_ns)
        )
        assert fault is None
        return result, [failure.ended_ns for failure in observer.failures]

    result, ended_ns = in_fork(dialled)
    (warning,) = [one for one in result.warnings if one.kind is WarningKind.clock_stepped]
    assert warning.values == {"step_s": 3600.0}
    assert "+3,600.00 s" in wording.sentence(warning)
    assert wording.sentence(warning) in " ".join(text(document(result)).split())
    assert len(ended_ns) == 10, "nobody listens there, and only the first few are listed"
    assert max(ended_ns) - min(ended_ns) > 3599 * 1000 * MS
