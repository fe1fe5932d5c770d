"""What the hot loop makes of sockets and clocks that misbehave."""

import itertools
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from errno import ECONNREFUSED, EINTR, EMFILE
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snat_race.analysis.summary import error_name
from snat_race.load import dialer, pacers
from snat_race.load.dialer_config import DialerConfig, Exchange, Preparation
from snat_race.load.drain import Drain
from snat_race.load.ring import Ring
from snat_race.load.round_control import RoundControl
from snat_race.load.schedule import Schedule
from snat_race.load.worker_state import WorkerState
from snat_race.results import sample

CONFIG = DialerConfig(family=socket.AF_INET, remote=("127.0.0.1", 9), timeout_ms=500)


@dataclass
class FakeSocket:
    connect: Callable[[], int] = lambda: 0
    closed: list[bool] = field(default_factory=list)
    type: int = socket.SOCK_STREAM

    def connect_ex(self, _remote: object) -> int:
        return self.connect()

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 40000

    def getsockopt(self, *_: int) -> bytes:
        return bytes(104)

    def close(self) -> None:
        self.closed.append(True)


def dialled(
    monkeypatch: pytest.MonkeyPatch,
    make_socket: Callable[[int], Any],
    dials: int = 1,
    config: DialerConfig = CONFIG,
) -> tuple[Any, WorkerState, Ring]:
    """Dial in this process, in one round that ends by its quota; return the samples and counters."""
    rounds, state, ring = RoundControl(0.0), WorkerState.shared(), Ring(64)
    state.quota = dials
    rounds.announce(0, 1 << 62)
    monkeypatch.setattr(dialer, "socket_factory", lambda _config: make_socket)
    monkeypatch.setattr(rounds, "attend", lambda _state: iter([1]))
    dialer.dial(config, rounds, state, ring)
    return Drain(ring).take_rest(), state, ring


def test_a_dial_of_more_than_18_minutes_is_clamped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container was frozen inside connect()."""
    now_ns = itertools.count(10**12, 1 << 40)
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(now_ns))
    samples, state, _ = dialled(monkeypatch, lambda _port: FakeSocket(), dials=2)
    assert sample.latencies_ns(samples["packed"]).tolist() == [sample.MAX_LATENCY_NS] * 2
    assert sample.errors(samples["packed"]).tolist() == [0, 0]
    assert state.slow_connects[0] == 2


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (OSError("no errno at all"), sample.UNKNOWN_ERROR),
        (OSError(0, "said to be none"), sample.UNKNOWN_ERROR),
        (OSError(512, "too large"), sample.UNKNOWN_ERROR),
        (OSError(EMFILE, "too many files"), EMFILE),
    ],
)
def test_a_socket_that_cannot_be_made_is_a_failed_dial(
    monkeypatch: pytest.MonkeyPatch, refusal: OSError, error: int
) -> None:
    def refuse(_port: int) -> FakeSocket:
        raise refusal

    samples, state, ring = dialled(monkeypatch, refuse, dials=3)
    assert sample.errors(samples["packed"]).tolist() == [error] * 3
    assert error_name(error) == ("UNKNOWN" if error == sample.UNKNOWN_ERROR else "EMFILE")
    assert state.attempted == 3 == ring.head
    assert sample.ports(samples["packed"]).tolist() == [0] * 3


@pytest.mark.parametrize(("error", "recorded"), [(ECONNREFUSED, ECONNREFUSED), (256, 255), (524, 255)])
def test_an_errno_of_connect_never_touches_the_port(
    monkeypatch: pytest.MonkeyPatch, error: int, recorded: int
) -> None:
    samples, _, _ = dialled(monkeypatch, lambda _port: FakeSocket(lambda: error))
    assert sample.errors(samples["packed"]).tolist() == [recorded]
    assert sample.ports(samples["packed"]).tolist() == [40000]


@given(
    errors=st.lists(st.one_of(st.none(), st.integers(-1000, 1 << 40)), max_size=30),
    refused=st.sets(st.integers(0, 29)),
)
def test_whatever_a_dial_comes_to_it_is_one_sample(errors: list[int | None], refused: set[int]) -> None:
    """An outcome is 0, an errno that fits, or unknown; only 0 is a connection."""
    outcomes = enumerate(errors)

    def make_socket(_port: int) -> FakeSocket:
        number, error = next(outcomes)
        if number in refused:
            raise OSError(error, "refused") if error is not None else OSError("refused")
        return FakeSocket(lambda: error or 0)

    with pytest.MonkeyPatch.context() as patch:
        samples, state, ring = dialled(patch, make_socket, dials=len(errors))
    assert state.attempted == ring.head == len(errors)
    for number, (packed, error) in enumerate(zip(samples["packed"].tolist(), errors, strict=True)):
        if number in refused and not error:
            error = sample.UNKNOWN_ERROR  # noqa: PLW2901
        fits = 0 <= (error or 0) <= sample.UNKNOWN_ERROR
        expected = (error or 0) if fits else sample.UNKNOWN_ERROR
        if expected not in (EINTR, sample.TIMED_OUT) or number in refused:
            assert sample.errors(packed) == expected
        assert sample.ports(packed) in (0, 40000)


def test_a_close_that_takes_long_is_no_lost_syn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not close in time keeps close() waiting, though the dial connected at once."""
    made: list[pacers.RendezvousPacer] = []

    class Kept(pacers.RendezvousPacer):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    class SlowToClose(FakeSocket):
        def close(self) -> None:
            time.sleep(0.05)

    monkeypatch.setattr(dialer, "RendezvousPacer", Kept)
    config = DialerConfig(
        family=socket.AF_INET,
        remote=("127.0.0.1", 9),
        timeout_ms=10,
        exchange=Exchange.tcp_fin_after_server,
        schedule=Schedule(interval_ns=1_000_000, low=20000, high=29999, lanes=1, lane=0),
        preparation=Preparation(balances=True),
    )
    dialled(monkeypatch, lambda _port: SlowToClose(), dials=3, config=config)
    assert made[0]._lead().lag_ns == 0


def test_a_full_ring_is_accounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _, state, ring = dialled(monkeypatch, lambda _port: FakeSocket(), dials=100)
    assert (state.attempted, ring.head, ring.overruns) == (100, 64, 36)
