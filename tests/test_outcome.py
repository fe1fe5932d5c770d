"""What a dial is said to have come to is what happened, whatever the worker went through meanwhile."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ECONNREFUSED
from typing import Any

import numpy as np
import psutil
import pytest

from snat_race.load.dialer_config import DialerConfig, Exchange
from snat_race.load.dialer_pool import DialerPool, Placement
from snat_race.load.outcome import settled
from snat_race.load.sockets import socket_factory
from snat_race.results import sample
from tests.conftest import PRIVATE, eventually, in_sandbox
from tests.interruptions import PAUSES, stopped
from tests.slow_path import REMOTE, SlowPath, busy_loops, slow_path

MS = 1_000_000
PAUSE_S = 0.2
NO_END = 3600.0


def config(timeout_ms: int, remote: Any = REMOTE, exchange: Exchange = Exchange.tcp_rst) -> DialerConfig:
    return DialerConfig(family=socket.AF_INET, remote=remote, timeout_ms=timeout_ms, exchange=exchange)


def dialled(placements: list[Placement], count: int, meanwhile: Callable[[int], None]) -> Any:
    """Have a pool make so many dials; ``meanwhile`` gets its first worker's process. Return the samples."""
    with DialerPool(placements, lambda: False) as pool:
        worker = psutil.Process().children()[-len(placements)]
        taken = []
        for number, samples in enumerate(pool.round(NO_END, count, every_s=0.02)):
            taken += samples
            if not number:
                meanwhile(worker.pid)
        return np.concatenate(taken)


@contextmanager
def deaf() -> Iterator[Any]:
    """A listener whose queue is full: a SYN to it is never answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(2)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address
        for filler in fillers:
            filler.close()


def state_of(pid: int) -> set[str]:
    return {connection.status for connection in psutil.Process(pid).net_connections("tcp")}


@pytest.mark.parametrize("pause", PAUSES)
def test_the_timeout_of_a_dial_is_bounded_whatever_interrupts_it(pause: str) -> None:
    timeout_ms = 300

    def interrupt(pid: int) -> None:
        eventually(lambda: psutil.CONN_SYN_SENT in state_of(pid))
        with PAUSES[pause](pid):
            time.sleep(PAUSE_S)  # what is tested is a pause

    with deaf() as remote:
        placement = Placement(config=config(timeout_ms, remote))
        samples = dialled([placement], 3, interrupt)
    assert sample.errors(samples["packed"]).tolist() == [sample.TIMED_OUT] * 3
    latencies_ns = sample.latencies_ns(samples["packed"])
    assert latencies_ns.min() >= timeout_ms * MS
    assert latencies_ns.max() < (timeout_ms + 1000 * PAUSE_S + 500) * MS


def on_slow_path(delay_s: float, work: Callable[[SlowPath], Any]) -> Any:
    def set_up() -> Any:
        with slow_path(delay_s) as path:
            return work(path)

    return in_sandbox(set_up)


@PRIVATE
@pytest.mark.parametrize("timeout_ms", [50, 5000], ids=["its time was up", "interrupted in time"])
def test_a_connection_that_was_made_while_its_worker_was_stopped_is_one(timeout_ms: int) -> None:
    def work(path: SlowPath) -> Any:
        def sleep_through_the_answer(pid: int) -> None:
            with stopped(pid):
                eventually(lambda: path.server.accepted)

        placement = Placement(config=config(timeout_ms), prepare=path.client.enter)
        return dialled([placement], 1, sleep_through_the_answer), path.server.stop()

    samples, accepted = on_slow_path(0.15, work)
    (packed,) = samples["packed"].tolist()
    assert accepted == 1
    assert sample.errors(packed) == 0
    assert sample.latencies_ns(packed) >= 300 * MS


@PRIVATE
def test_what_timed_out_is_never_accepted() -> None:
    """The answers come after the timeout: they find no connection any more."""

    def work(path: SlowPath) -> Any:
        placement = Placement(config=config(20), prepare=path.client.enter)
        samples = dialled([placement], 10, lambda _pid: None)
        time.sleep(0.3)  # the answers to those that were given up are still on their way
        return samples, path.server.stop()

    samples, accepted = on_slow_path(0.05, work)
    assert sample.errors(samples["packed"]).tolist() == [sample.TIMED_OUT] * 10
    assert accepted == 0


@PRIVATE
def test_on_a_busy_machine_what_was_accepted_connected() -> None:
    def work(path: SlowPath) -> Any:
        placements = [Placement(config=config(4), prepare=path.client.enter)] * 2
        with busy_loops(4):
            samples = dialled(placements, 300, lambda _pid: None)
        connected = int((sample.errors(samples["packed"]) == 0).sum())
        eventually(lambda: path.server.accepted >= connected)
        return samples, connected, path.server.stop()

    samples, connected, accepted = on_slow_path(0.0005, work)
    assert len(samples) == 300
    assert accepted == connected
    late = sample.latencies_ns(samples["packed"][sample.errors(samples["packed"]) == 0]) > 4 * MS
    assert late.sum() > 0, "the machine was not busy enough to prove anything"


def test_a_connection_that_was_refused_meanwhile_is_refused(port: int) -> None:
    sock = socket_factory(config(1000))(0)
    os.set_blocking(sock.fileno(), False)
    sock.connect_ex(("127.0.0.1", port))
    assert settled(sock) == ECONNREFUSED


@PRIVATE
def test_a_syn_that_was_sent_again_is_still_counted() -> None:
    """A dial that was interrupted, and connected after a retransmit, is as slow as any other."""

    def work(path: SlowPath) -> Any:
        placement = Placement(config=config(3000), prepare=path.client.enter)
        with DialerPool([placement], lambda: False) as pool:
            worker = psutil.Process().children()[-1]
            taken = []
            for number, samples in enumerate(pool.round(NO_END, 1, every_s=0.02)):
                taken += samples
                if not number:
                    with stopped(worker.pid):
                        time.sleep(PAUSE_S)
            return np.concatenate(taken), pool.slow_connects()

    samples, slow_connects = on_slow_path(0.6, work)
    assert sample.errors(samples["packed"]).tolist() == [0]
    assert slow_connects[1:] == [1, 0, 0, 0, 0, 0, 0]


def interrupted_often(work: Callable[[], Any]) -> float:
    """Do something in a process that is stopped every 50 ms for 3 s; return how long that took it, in s."""
    pid = os.fork()
    began_s = time.monotonic()
    if not pid:
        work()
        os._exit(0)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() - began_s < 3:
            with stopped(pid):
                time.sleep(0.005)
        time.sleep(0.045)
    return time.monotonic() - began_s


@pytest.mark.parametrize("exchange", [Exchange.udp, Exchange.tcp_fin_after_server])
def test_no_wait_begins_anew_after_an_interruption(exchange: Exchange) -> None:
    """A server that neither answers nor closes."""
    kind = socket.SOCK_DGRAM if exchange is Exchange.udp else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as silent:
        silent.bind(("127.0.0.1", 0))
        if exchange is not Exchange.udp:
            silent.listen()
        sock = socket_factory(config(400, silent.getsockname(), exchange))(0)

        def work() -> None:
            sock.connect_ex(silent.getsockname())
            sock.close()

        assert interrupted_often(work) < 1.2
