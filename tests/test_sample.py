from errno import EINPROGRESS

import numpy as np
from hypothesis import given
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


def test_a_sample_has_16_bytes() -> None:
    assert np.dtype(sample.FIELDS).itemsize == sample.SIZE_BYTES == 16
    assert sample.TIMED_OUT == EINPROGRESS
