"""However long a run is, what it holds in memory and what its result keeps stay bounded."""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snat_race.analysis import kept_periods
from snat_race.analysis.kept_periods import MOST_PERIODS, periods_of_client, periods_of_watch
from snat_race.analysis.summary import Circumstances, Total
from snat_race.load.clock import ClockOffset
from snat_race.load.dialer_pool import NO_DIALS, DialCounts
from snat_race.results.counters import CounterDelta, total_of
from snat_race.results.schema import Summary
from snat_race.runs import client
from tests.results import BEGAN, Counted, dials, lost, rise


def delta_of(number: int) -> CounterDelta:
    """What was counted in one period of a watch."""
    return CounterDelta(
        netns="host",
        inode=7,
        began_at=BEGAN,
        elapsed_s=1.0,
        conntrack=rise(number % 3, found=number),
        tcp={"TCPSynRetrans": 1},
    )


def dialled(number: int) -> Summary:
    """What became of the dials of one period of a client."""
    return lost(10 + number % 5, {"TIMEOUT": number % 3}, counters=[delta_of(number)])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5 * 16), st.sampled_from([2, 8, 16]))
def test_sums_of_what_is_kept_are_those_of_all_periods(count: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_periods, "MOST_PERIODS", most)
        kept, counted = periods_of_client(), periods_of_watch()
        for number in range(count):
            kept.add(dialled(number))
            counted.add(delta_of(number))
        periods, deltas = kept.all(), counted.all()
    assert len(periods) == len(deltas) <= most
    everything = [dialled(number) for number in range(count)]
    for name in ("attempted", "connected", "failed"):
        assert sum(getattr(period, name) for period in periods) == sum(
            getattr(period, name) for period in everything
        )
    assert sum(period.elapsed_s for period in periods) == pytest.approx(count)
    assert total_of(deltas) == total_of([delta_of(number) for number in range(count)])
    assert total_of(delta for period in periods for delta in period.counters) == total_of(deltas)


def test_what_is_kept_is_equally_long_and_in_its_order() -> None:
    kept = periods_of_watch()
    for number in range(2 * MOST_PERIODS + 1):
        kept.add(delta_of(number))
    periods = kept.all()
    assert [period.elapsed_s for period in periods] == [4.0] * (MOST_PERIODS // 2) + [1.0]
    found = [sum(period.conntrack.found) for period in periods if period.conntrack]
    assert found == [*sorted(found[:-1]), 2 * MOST_PERIODS]


def test_a_short_run_keeps_every_period_as_it_was() -> None:
    total = Total(interval_ns=0)
    total.add(dials(500, 2))
    period = total.period(
        Counted(500), Circumstances(elapsed_s=1.0, began_at=BEGAN, counters=[delta_of(1)])
    )
    kept = periods_of_client()
    for _ in range(MOST_PERIODS - 1):
        kept.add(period)
    assert kept.all() == [period] * (MOST_PERIODS - 1)


def test_the_latency_of_all_dials_of_a_period_has_its_timeouts() -> None:
    total = Total(interval_ns=0)
    total.add(dials(100, 10))
    period = total.period(Counted(100), Circumstances(elapsed_s=1.0))
    assert period.latency_ns
    assert period.latency_all_ns
    assert period.latency_ns.max < 100_000_000
    assert period.latency_all_ns.p90 < 100_000_000
    assert period.latency_all_ns.p95 == pytest.approx(500_000_000, rel=1e-3)


def test_percentiles_of_a_period_are_its_samples_to_three_digits() -> None:
    samples = dials(20_000, 0)
    total = Total(interval_ns=0)
    for part in np.array_split(samples, 7):
        total.add(part)
    latency = total.period(Counted(20_000), Circumstances(elapsed_s=1.0)).latency_all_ns
    assert latency
    latencies_ns = (samples["packed"] >> np.uint64(24)).astype(np.int64)
    for name, percent in {"min": 0, "p50": 50, "p99": 99, "p999": 99.9, "p9999": 99.99, "max": 100}.items():
        expected = float(np.percentile(latencies_ns, percent, method="inverted_cdf"))
        assert getattr(latency, name) == pytest.approx(expected, rel=1e-3), name
    assert latency.mean == pytest.approx(float(latencies_ns.mean()), rel=1e-3)


class SyntheticPool:
    """Dialers whose samples are made up; each drain has the same."""

    def __init__(self, samples: np.ndarray[Any, Any], each: Iterator[None]) -> None:
        self._samples, self._each, self._drained = samples, each, 0
        self.clock = ClockOffset()

    def round(self, *_: Any, **__: Any) -> Iterator[list[np.ndarray[Any, Any]]]:
        for _ in self._each:
            self._drained += len(self._samples)
            yield [self._samples.copy()]

    def counts(self) -> DialCounts:
        return NO_DIALS._replace(attempted=self._drained, recorded=self._drained)

    def slow_connects(self) -> list[int]:
        return [0] * 8

    def rest(self) -> list[np.ndarray[Any, Any]]:
        return [self._samples[:0]]

    def stop(self) -> None:
        """Nothing runs."""


def growth(drains: int, *, from_drain: int, samples: int, period_s: int) -> tuple[client._Run, int]:
    """Run a client over made-up drains; return it, and by how many bytes it grew after ``from_drain``."""
    grown: list[int] = []

    def measured() -> Iterator[None]:
        for number in range(drains):
            if number in (from_drain, drains - 1):
                grown.append(tracemalloc.get_traced_memory()[0])
            yield

    delta = delta_of(1)
    ignore: Callable[..., None] = lambda *_: None  # noqa: E731
    run = client._Run(
        settings=cast(
            "Any",
            SimpleNamespace(
                dial_interval_us=1000, summary_interval_sec=period_s, duration_s=None, count=None
            ),
        ),
        target=cast("Any", SimpleNamespace(source_ips=["10.0.0.1"], remote=SimpleNamespace(text="s:1"))),
        pool=cast("Any", SyntheticPool(dials(samples, 3), measured())),
        monitor=cast("Any", SimpleNamespace(end_period=lambda: [delta], read_if_due=ignore, total=[delta])),
        observer=cast("Any", SimpleNamespace(failure=ignore, period=ignore, drained=ignore)),
    )
    tracemalloc.start()
    with suppress(StopIteration):
        run.dial()
    tracemalloc.stop()
    return run, grown[1] - grown[0]


def test_a_long_period_costs_no_memory_a_dial() -> None:
    run, grown = growth(250, from_drain=50, samples=2000, period_s=10_000)
    assert run.summary().attempted == 250 * 2000
    assert grown < 200_000  # the samples of 200 drains are 6.4 MB


def test_many_periods_cost_no_memory_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_periods, "MOST_PERIODS", 32)
    monkeypatch.setattr(client, "_DRAIN_S", 0.0)
    run, grown = growth(200, from_drain=60, samples=20, period_s=0)
    summary, periods = run.summary(), run.periods.all()
    assert len(periods) <= 32
    assert sum(period.attempted for period in periods) == summary.attempted == 200 * 20
    assert grown < 120_000  # 140 periods are 1.4 MB as objects, 190 kB as JSON
