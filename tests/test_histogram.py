"""Our histogram against HdrHistogram itself, as the oracle."""

import base64
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from snat_race.analysis.histogram import HIGHEST_NS, Histogram
from snat_race.errors import UsageError
from snat_race.report.renderers.hgrm import distribution

# Every width of bucket is as likely as any other.
LATENCY = st.integers(0, 45).flatmap(lambda bits: st.integers(1 << bits >> 1, 1 << bits))
LATENCIES = st.lists(LATENCY.filter(bool), min_size=1, max_size=300)


def recorded(latencies_ns: list[int], weight: int = 1) -> tuple[Histogram, HdrHistogram]:
    ours, theirs = Histogram(), HdrHistogram(1, HIGHEST_NS, 3)
    ours.record(np.array(latencies_ns, np.uint64), np.full(len(latencies_ns), weight, np.uint64))
    for latency_ns in latencies_ns:
        theirs.record_value(min(latency_ns, HIGHEST_NS), weight)
    return ours, theirs


def their_distribution(theirs: HdrHistogram, unit_ns: float) -> str:
    out = io.BytesIO()
    theirs.output_percentile_distribution(out, unit_ns)
    return out.getvalue().decode().rstrip("\n")


@given(LATENCIES, st.integers(1, 10**6))
def test_encoded_text_is_theirs_to_the_byte(latencies_ns: list[int], weight: int) -> None:
    ours, theirs = recorded(latencies_ns, weight)
    assert ours.encode() == theirs.encode().decode()
    again = Histogram.of([ours.encode()])
    assert list(again.buckets()) == list(ours.buckets())
    assert again.encode() == ours.encode()


@settings(max_examples=40, deadline=None)  # theirs takes 10 ms
@given(LATENCIES, st.floats(0, 100))
def test_percentiles_are_theirs(latencies_ns: list[int], percent: float) -> None:
    ours, theirs = recorded(latencies_ns)
    assert ours.count == theirs.get_total_count() == len(latencies_ns)
    asked = [percent, 0, 50, 90, 99, 99.9, 100]
    assert {one: ours.percentile_ns(one) for one in asked} == theirs.get_percentile_to_value_dict(asked)


@settings(max_examples=10, deadline=None)  # theirs takes 40 ms
@given(LATENCIES)
def test_mean_and_deviation_are_theirs(latencies_ns: list[int]) -> None:
    ours, theirs = recorded(latencies_ns)
    assert ours.mean_ns == pytest.approx(theirs.get_mean_value(), rel=1e-12)
    # The difference of numbers near 2**40 is exact to some 1e-4 only.
    assert ours.standard_deviation_ns == pytest.approx(theirs.get_stddev(), rel=1e-9, abs=1e-3)


@given(LATENCIES, st.lists(LATENCY.filter(bool), max_size=50))
def test_merging_is_adding(one: list[int], other: list[int]) -> None:
    together = Histogram.of([recorded(one)[0].encode(), recorded(other)[0].encode()])
    assert together.encode() == recorded(one + other)[0].encode()


@given(st.lists(st.integers(1, 50_000), min_size=1, max_size=50), st.integers(600, 10_000))
def test_correction_for_coordinated_omission_is_hdr_histograms(values: list[int], interval: int) -> None:
    ours, theirs = Histogram(), HdrHistogram(1, HIGHEST_NS, 3)
    ours.record_from_schedule(np.array(values, np.uint64), interval)
    for value in values:
        theirs.record_corrected_value(value, interval)
    # HdrHistogram stops at one interval; we also count the slot that was about to begin.
    whole = sum(value % interval != 0 and value > interval for value in values)
    assert theirs.get_total_count() <= ours.count <= theirs.get_total_count() + whole + len(values)


def test_a_long_stall_weighs_as_many_slots_as_it_hid() -> None:
    stalled = Histogram()
    stalled.record_from_schedule(np.array([10**9], np.uint64), 10**6)
    assert 1000 <= stalled.count <= 1001
    assert stalled.percentile_ns(50) == pytest.approx(5 * 10**8, rel=0.02)


@settings(max_examples=12, deadline=None)  # theirs takes 40 ms
@given(LATENCIES, st.sampled_from([1.0, 1000.0, 1e6]))
def test_the_distribution_is_theirs_but_for_the_deviation(latencies_ns: list[int], unit_ns: float) -> None:
    ours, theirs = recorded(latencies_ns)
    *our_lines, our_moments, our_maximum, our_layout = distribution(ours, unit_ns).split("\n")
    *their_lines, their_moments, their_maximum, their_layout = their_distribution(theirs, unit_ns).split(
        "\n"
    )
    assert our_lines == their_lines
    assert our_moments.split(",")[0] == their_moments.split(",")[0]
    assert (our_maximum, our_layout) == (their_maximum, their_layout)


def test_the_deviation_is_in_the_unit_of_the_mean() -> None:
    """As many dials of 1 ms as of 3 ms: the mean is 2 ms, and each is 1 ms away from it."""
    ours, _ = recorded([1_000_000, 3_000_000] * 50)
    (moments,) = (line for line in distribution(ours, 1000).splitlines() if "StdDeviation" in line)
    mean_us, deviation_us = (float(part.split("=")[1].strip(" ]")) for part in moments.split(","))
    assert mean_us == pytest.approx(2000, rel=1e-3)
    assert deviation_us == pytest.approx(1000, rel=1e-3)


@given(st.lists(st.integers(1, 99_000), max_size=50), st.integers(1000, 10_000))
def test_each_hidden_slot_is_recorded_once(latencies_ns: list[int], interval_ns: int) -> None:
    ours, one_by_one = Histogram(), Histogram()
    ours.record_from_schedule(np.array(latencies_ns, np.uint64), interval_ns)
    for latency_ns in latencies_ns:
        slots = range(1, latency_ns // interval_ns + 1) if latency_ns > interval_ns else ()
        waited = [latency_ns, *(max(1, latency_ns - slot * interval_ns) for slot in slots)]
        one_by_one.record(np.array(waited, np.uint64))
    assert ours.encode() == one_by_one.encode()


def test_nothing_recorded_is_nothing() -> None:
    nothing, theirs = Histogram(), HdrHistogram(1, HIGHEST_NS, 3)
    assert (nothing.count, nothing.mean_ns, nothing.standard_deviation_ns) == (0, 0.0, 0.0)
    assert (nothing.percentile_ns(50), list(nothing.buckets()), list(nothing.percentile_steps())) == (
        0,
        [],
        [],
    )
    assert nothing.encode() == theirs.encode().decode()
    assert distribution(nothing, 1000) == their_distribution(theirs, 1000)
    nothing.record(np.empty(0, np.uint64))
    nothing.record_from_schedule(np.empty(0, np.uint64), 1000)
    assert nothing.count == 0


@pytest.mark.parametrize("latency_ns", [1, 2047, 2048, 4095, 4096, HIGHEST_NS - 1, HIGHEST_NS])
def test_a_bucket_holds_the_latency_recorded(latency_ns: int) -> None:
    ours, _ = recorded([latency_ns])
    assert ours.percentile_ns(0) <= latency_ns <= ours.percentile_ns(100)
    assert ours.percentile_ns(100) - ours.percentile_ns(0) < max(1, latency_ns / 1000)


def test_what_is_longer_than_the_highest_counts_as_the_highest() -> None:
    longer, _ = recorded([HIGHEST_NS + 1, 1 << 63])
    assert longer.encode() == recorded([HIGHEST_NS, HIGHEST_NS])[0].encode()


def damaged() -> list[str]:
    whole = recorded([1000, 2000, 3000])[0].encode()
    cut_or_changed = ["", "HISTzzzz", "=", "\xe9", whole[:-9], whole[:40], whole[5:], whole.swapcase()]
    too_many = HdrHistogram(1, HIGHEST_NS, 3)
    too_many.record_value(5, 1 << 60)
    layouts = HdrHistogram(1, 1 << 30, 3), HdrHistogram(1, HIGHEST_NS, 2), HdrHistogram(2, HIGHEST_NS, 3)
    return cut_or_changed + [other.encode().decode() for other in (too_many, *layouts)]


@pytest.mark.parametrize("text", damaged())
def test_what_is_damaged_or_of_another_layout_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="damaged"):
        Histogram.of([text])


def test_a_small_text_that_unpacks_to_much_is_refused_before_it_does() -> None:
    bomb = zlib.compress(bytes(64_000_000))
    header = struct.pack(">II", 0x1C849304 | 0x10, len(bomb))
    text = base64.b64encode(header + bomb).decode()
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="damaged"):
            Histogram.of([text])
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < 5_000_000
