from errno import EINPROGRESS, errorcode

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from snat_race.results import sample

ERRORS, PORTS = st.integers(0, 255), st.integers(0, 65535)


@given(ERRORS, PORTS, st.integers(1, sample.MAX_LATENCY_NS))
def test_what_is_packed_comes_out(error: int, port: int, latency_ns: int) -> None:
    word = sample.pack(error, port, latency_ns)
    assert 0 < word < 1 << 64
    for words in (word, np.array([word], np.uint64)):
        assert sample.errors(words) == error
        assert sample.ports(words) == port
        assert sample.latencies_ns(words) == latency_ns


@given(ERRORS, PORTS, st.integers(-5, 1 << 50))
def test_latency_saturates_and_the_word_is_never_zero(error: int, port: int, latency_ns: int) -> None:
    word = sample.pack(error, port, latency_ns)
    assert word != 0
    assert sample.latencies_ns(word) == min(max(latency_ns, 1), sample.MAX_LATENCY_NS)
    assert (sample.errors(word), sample.ports(word)) == (error, port)


@given(st.one_of(st.integers(-300, -1), st.integers(256, 1 << 40)), PORTS, st.integers(1, 1 << 50))
@example(256, 40000, 1)  # whose lower 8 bits say "connected"
@example(524, 40000, 1)  # ENOTSUPP, which some drivers let escape
def test_an_errno_that_does_not_fit_stays_an_error_and_spares_the_port(
    error: int, port: int, latency_ns: int
) -> None:
    word = sample.pack(error, port, latency_ns)
    assert sample.errors(word) == sample.UNKNOWN_ERROR != 0
    assert sample.ports(word) == port
    assert sample.latencies_ns(word) == min(latency_ns, sample.MAX_LATENCY_NS)


def test_no_errno_of_this_machine_is_taken_for_the_unknown_one() -> None:
    assert sample.UNKNOWN_ERROR not in errorcode


def test_a_sample_has_16_bytes() -> None:
    assert np.dtype(sample.FIELDS).itemsize == sample.SIZE_BYTES == 16
    assert sample.TIMED_OUT == EINPROGRESS
